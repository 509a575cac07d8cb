"""The Target Disassembly dataset of the RefCut paper: one folder an object, its photograph beside one mask a tag."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from model.data.scenes import Scene
from model.errors import DataError
from model.masks import encode

PHOTO_ENDINGS = {".jpg", ".jpeg"}


def read_tda(subset: Path) -> list[Scene]:
    """Scenes of one subset (part or object disassembly), in the order of their folders and file names.

    Layout (docs/data-formats.md): SUBSET/OBJECT/PHOTO.jpg with its masks beside it, PNGs whose non-zero pixels belong to
    the tag. With one photograph in a folder a mask is called TAG.png or PHOTO_TAG.png; with several, PHOTO_TAG.png.
    A number after the tag ("wheel_2") is another piece of it. The object's class, within which references are looked
    for, is the folder's name without a number at its end ("scissors_03" is "scissors").
    Raises DataError when a folder has no photograph, a photograph no mask, or a file cannot be read.
    """
    folders = sorted(path for path in subset.iterdir() if path.is_dir()) if subset.is_dir() else []
    if not folders:
        raise DataError(f"{subset} has no folder of an object", hint="see docs/data-formats.md, TDA")
    return [scene for folder in folders for scene in _read_folder(folder)]


def _read_folder(folder: Path) -> list[Scene]:
    files = sorted(folder.iterdir())
    photos = [path for path in files if path.suffix.lower() in PHOTO_ENDINGS]
    if not photos:
        raise DataError(f"{folder} has no photograph", hint="expected a .jpg beside the masks")
    masks: dict[Path, dict[str, list[Any]]] = defaultdict(lambda: defaultdict(list))
    for path in (path for path in files if path.suffix.lower() == ".png"):
        photo, tag = _owner(path, photos)
        masks[photo][tag].append(_read_mask(path))
    for photo in photos:
        if photo not in masks:
            raise DataError(f"{photo} has no mask", hint=f"expected {photo.stem}_TAG.png beside it")
    object_class = _without_number(folder.name)
    return [
        Scene(photo, object_class, dict(sorted(masks[photo].items())), has_whole=True, names_carry=True)
        for photo in photos
    ]


def _owner(mask: Path, photos: list[Path]) -> tuple[Path, str]:
    """The photograph that a mask belongs to, and its tag."""
    named = [photo for photo in photos if mask.stem.startswith(f"{photo.stem}_")]
    if named:
        photo = max(named, key=lambda path: len(path.stem))
        return photo, _without_number(mask.stem.removeprefix(f"{photo.stem}_"))
    if len(photos) > 1:
        raise DataError(f"{mask} belongs to none of the photographs beside it", hint="call it PHOTO_TAG.png")
    return photos[0], _without_number(mask.stem)


def _without_number(name: str) -> str:
    """ "wheel_2" and "wheel 2" are "wheel"; a name that is only a number stays nothing."""
    return re.sub(r"[_\- ]?\d+$", "", name)


def _read_mask(path: Path) -> dict[str, Any]:
    pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise DataError(f"{path} cannot be read", hint="restore the file")
    colours = pixels[..., :3] if pixels.ndim == 3 else pixels[..., None]
    return encode(np.asarray(colours.any(axis=2), bool))
