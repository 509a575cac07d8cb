"""PASCAL-Part: one MATLAB file of objects and their parts a photograph of PASCAL VOC 2010."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from scipy.io import loadmat  # type: ignore[import-untyped]
from scipy.io.matlab import MatReadError  # type: ignore[import-untyped]

from model.data.scenes import Scene
from model.errors import DataError
from model.masks import encode


def read_pascal_part(root: Path, list_file: Path | None = None, image_dir: Path | None = None) -> list[Scene]:
    """Scenes of ROOT/Annotations_Part/*.mat with photographs in ROOT/JPEGImages, in the order of their file names.

    list_file: names (without ending) of the photographs to take, one a line, as ImageSets/Main/*.txt; None takes all.
    Each object with at least one part is a scene; objects without parts (boats, chairs, ...) are left out.
    Raises DataError when there is nothing to read or a file is not of that form.
    """
    folder = root / "Annotations_Part"
    paths = sorted(folder.glob("*.mat"))
    if list_file is not None:
        wanted = {line.split()[0] for line in list_file.read_text().splitlines() if line.strip()}
        paths = [path for path in paths if path.stem in wanted]
    if not paths:
        raise DataError(
            f"{folder} has no .mat file that is wanted", hint="see docs/data-formats.md, PASCAL-Part"
        )
    return [scene for path in paths for scene in _read_one(path, image_dir or root / "JPEGImages")]


def _read_one(path: Path, image_dir: Path) -> list[Scene]:
    """One scene an object, in the file's order."""
    try:
        annotation = loadmat(path, squeeze_me=True, struct_as_record=False)["anno"]
        objects = [
            (str(getattr(one, "class")), np.atleast_1d(one.parts))
            for one in np.atleast_1d(annotation.objects)
        ]
        scenes = []
        for object_class, parts in objects:
            rles: dict[str, list[Any]] = {}
            for part in parts:
                rles.setdefault(str(part.part_name), []).append(encode(np.atleast_2d(part.mask) > 0))
            if rles:
                scenes.append((object_class, rles))
    except (OSError, KeyError, AttributeError, ValueError, TypeError, MatReadError) as error:
        raise DataError(
            f"{path} is not a PASCAL-Part annotation ({type(error).__name__}: {error})",
            hint="restore the file",
        ) from error
    return [
        Scene(
            image_dir / f"{path.stem}.jpg",
            object_class,
            dict(sorted(rles.items())),
            has_whole=True,
            names_carry=True,
        )
        for object_class, rles in scenes
    ]
