"""PartImageNet as GraCo and RefCut read it: one PNG of part ids a photograph."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from model.data.scenes import Scene
from model.errors import DataError
from model.masks import encode

BACKGROUND = 40
PARTS: tuple[tuple[str, str], ...] = tuple(
    (object_class, part)
    for object_class, parts in (
        ("Quadruped", ("Head", "Body", "Foot", "Tail")),
        ("Biped", ("Head", "Body", "Hand", "Foot", "Tail")),
        ("Fish", ("Head", "Body", "Fin", "Tail")),
        ("Bird", ("Head", "Body", "Wing", "Foot", "Tail")),
        ("Snake", ("Head", "Body")),
        ("Reptile", ("Head", "Body", "Foot", "Tail")),
        ("Car", ("Body", "Tier", "Side Mirror")),
        ("Bicycle", ("Body", "Head", "Seat", "Tier")),
        ("Boat", ("Body", "Sail")),
        ("Aeroplane", ("Head", "Body", "Engine", "Wing", "Tail")),
        ("Bottle", ("Mouth", "Body")),
    )
    for part in parts
)
"""Object class and part of each id from 0 to 39 (the data set spells Tyre "Tier")."""


def read_part_imagenet(root: Path, split: str, image_dir: Path | None = None) -> list[Scene]:
    """Scenes of ROOT/annotations/SPLIT/*.png with photographs in ROOT/images/SPLIT, in the order of their file names.

    Channel 0 (red) of an annotation holds the part id of each pixel, 40 = background. Ids of one class make one scene:
    two birds on a photograph are one object, as the annotation does not tell them apart.
    Raises DataError when there is nothing to read, a file cannot be read, or an id is unknown.
    """
    annotations = sorted((root / "annotations" / split).glob("*.png"))
    if not annotations:
        raise DataError(
            f"{root / 'annotations' / split} has no PNG", hint="see docs/data-formats.md, PartImageNet"
        )
    photos = {path.stem: path for path in sorted((image_dir or root / "images" / split).glob("*"))}
    return [scene for path in annotations for scene in _read_one(path, photos)]


def _read_one(path: Path, photos: dict[str, Path]) -> list[Scene]:
    """One scene an object class on the photograph."""
    pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise DataError(f"{path} cannot be read", hint="restore the file")
    if path.stem not in photos:
        raise DataError(
            f"{path} has no photograph of its name", hint="put it into images/ beside annotations/"
        )
    ids_hw = pixels if pixels.ndim == 2 else pixels[..., 2]
    parts: dict[str, dict[str, list[object]]] = {}
    for part_id in np.unique(ids_hw):
        if part_id == BACKGROUND:
            continue
        if part_id >= len(PARTS):
            raise DataError(
                f"{path} has the unknown part id {part_id}", hint="ids are 0 to 39, 40 = background"
            )
        object_class, part = PARTS[part_id]
        parts.setdefault(object_class, {})[part] = [encode(ids_hw == part_id)]
    return [
        Scene(photos[path.stem], object_class, dict(sorted(found.items())), has_whole=True, names_carry=True)
        for object_class, found in sorted(parts.items())
    ]
