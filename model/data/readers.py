"""Readers of public data sets: the RefCut paper's TDA, PartImageNet and PASCAL-Part. All return `AnnotatedObject`s.

`SetDescription` parses and reads a data set named on the command line, such as `tda:data/part_disassembly,name=TDA`.
The layouts are described in docs/data-formats.md.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from scipy.io import loadmat  # type: ignore[import-untyped]
from scipy.io.matlab import MatReadError  # type: ignore[import-untyped]

from model.data.annotated_objects import AnnotatedObject, read_annotated_objects
from model.errors import DataError
from model.masks import encode

PHOTO_ENDINGS = {".jpg", ".jpeg"}


def read_tda(subset: Path) -> list[AnnotatedObject]:
    """Read a subset (part or object disassembly) of the Target Disassembly dataset of the RefCut paper.

    The layout is SUBSET/OBJECT/PHOTO.jpg with its masks beside it: PNGs whose non-zero pixels belong to a tag. If a
    folder has one photograph, a mask is named TAG.png or PHOTO_TAG.png; if it has several, PHOTO_TAG.png. A number
    after the tag ("wheel_2") makes it another piece of the same tag. The class of the object, within which references
    are found, is the name of the folder without a number at its end ("scissors_03" is "scissors").

    Args:
        subset: Folder of the subset.

    Returns:
        Annotated objects in the order of their folders and file names.

    Raises:
        DataError: If a folder has no photograph, a photograph has no mask, or a file cannot be read.
    """
    folders = sorted(path for path in subset.iterdir() if path.is_dir()) if subset.is_dir() else []
    if not folders:
        raise DataError(f"{subset} has no folder of an object", hint="see docs/data-formats.md, TDA")
    return [annotated_object for folder in folders for annotated_object in _read_folder(folder)]


def _read_folder(folder: Path) -> list[AnnotatedObject]:
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
        AnnotatedObject(
            photo, object_class, dict(sorted(masks[photo].items())), has_whole=True, names_carry=True
        )
        for photo in photos
    ]


def _owner(mask: Path, photos: list[Path]) -> tuple[Path, str]:
    """Find the photograph that a mask file belongs to, and its tag."""
    named = [photo for photo in photos if mask.stem.startswith(f"{photo.stem}_")]
    if named:
        photo = max(named, key=lambda path: len(path.stem))
        return photo, _without_number(mask.stem.removeprefix(f"{photo.stem}_"))
    if len(photos) > 1:
        raise DataError(f"{mask} belongs to none of the photographs beside it", hint="call it PHOTO_TAG.png")
    return photos[0], _without_number(mask.stem)


def _without_number(name: str) -> str:
    """Remove a number at the end: "wheel_2" and "wheel 2" become "wheel"; "2" becomes empty."""
    return re.sub(r"[_\- ]?\d+$", "", name)


def _read_mask(path: Path) -> dict[str, Any]:
    pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise DataError(f"{path} cannot be read", hint="restore the file")
    colours = pixels[..., :3] if pixels.ndim == 3 else pixels[..., None]
    return encode(np.asarray(colours.any(axis=2), bool))


WORDNET_ID = re.compile(r"n\d{8}(?=_)")
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


def read_part_imagenet(root: Path, split: str, image_dir: Path | None = None) -> list[AnnotatedObject]:
    """Read a split of PartImageNet: ROOT/annotations/SPLIT/*.png with images in ROOT/images/SPLIT.

    The red channel of an annotation holds the part id of each pixel; 40 is background. Ids of one class make one
    annotated object: two birds on an image are one object, because the annotation does not separate them.

    Ids name 11 kinds of objects, but the data set has 158 categories; a reference in the RefCut paper is of the same
    category. It is the WordNet id with which the names of files begin (`n02101006_27.JPEG`). Files with other names have
    the kind alone.

    Args:
        root: Folder of the data set.
        split: Name of the split.
        image_dir: Folder of the images; None takes ROOT/images/SPLIT.

    Returns:
        Annotated objects in the order of their file names.

    Raises:
        DataError: If there is nothing to read, a file cannot be read, or an id is unknown.
    """
    annotations = sorted((root / "annotations" / split).glob("*.png"))
    if not annotations:
        raise DataError(
            f"{root / 'annotations' / split} has no PNG", hint="see docs/data-formats.md, PartImageNet"
        )
    photos = {path.stem: path for path in sorted((image_dir or root / "images" / split).glob("*"))}
    return [
        annotated_object for path in annotations for annotated_object in _read_part_imagenet(path, photos)
    ]


def _read_part_imagenet(path: Path, photos: dict[str, Path]) -> list[AnnotatedObject]:
    """One annotated object per object class on the image."""
    pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise DataError(f"{path} cannot be read", hint="restore the file")
    if path.stem not in photos:
        raise DataError(
            f"{path} has no photograph of its name", hint="put it into images/ beside annotations/"
        )
    ids_hw = pixels if pixels.ndim == 2 else pixels[..., 2]
    category = WORDNET_ID.match(path.stem)
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
        AnnotatedObject(
            photos[path.stem],
            f"{object_class} {category[0]}" if category else object_class,
            dict(sorted(found.items())),
            has_whole=True,
            names_carry=True,
        )
        for object_class, found in sorted(parts.items())
    ]


def read_pascal_part(
    root: Path, list_file: Path | None = None, image_dir: Path | None = None
) -> list[AnnotatedObject]:
    """Read PASCAL-Part: ROOT/Annotations_Part/*.mat with images in ROOT/JPEGImages.

    Each object with at least one part counts. Objects without parts (boats, chairs, ...) are left out.

    Args:
        root: Folder of the data set.
        list_file: Names (without ending) of the images to take, one per line, as in ImageSets/Main/*.txt; None takes all.
        image_dir: Folder of the images; None takes ROOT/JPEGImages.

    Returns:
        Annotated objects in the order of their file names.

    Raises:
        DataError: If there is nothing to read, or a file has another form.
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
    return [
        annotated_object
        for path in paths
        for annotated_object in _read_pascal_part(path, image_dir or root / "JPEGImages")
    ]


def _read_pascal_part(path: Path, image_dir: Path) -> list[AnnotatedObject]:
    """One annotated object per object, in the order of the file."""
    try:
        annotation = loadmat(path, squeeze_me=True, struct_as_record=False)["anno"]
        objects = [
            (str(getattr(one, "class")), np.atleast_1d(one.parts))
            for one in np.atleast_1d(annotation.objects)
        ]
        annotated_objects = []
        for object_class, parts in objects:
            rles: dict[str, list[Any]] = {}
            for part in parts:
                rles.setdefault(str(part.part_name), []).append(encode(np.atleast_2d(part.mask) > 0))
            if rles:
                annotated_objects.append((object_class, rles))
    except (OSError, KeyError, AttributeError, ValueError, TypeError, MatReadError) as error:
        raise DataError(
            f"{path} is not a PASCAL-Part annotation ({type(error).__name__}: {error})",
            hint="restore the file",
        ) from error
    return [
        AnnotatedObject(
            image_dir / f"{path.stem}.jpg",
            object_class,
            dict(sorted(rles.items())),
            has_whole=True,
            names_carry=True,
        )
        for object_class, rles in annotated_objects
    ]


READERS = ("coco", "part_imagenet", "pascal_part", "tda", "tda_od")
"""Formats that can be named on the command line. `tda_od` is the layout of `tda`, for sets of things that touch."""
OPTIONS = {
    "coco": {"images", "grouping"},
    "part_imagenet": {"split", "images"},
    "pascal_part": {"list", "images"},
    "tda": set[str](),
    "tda_od": set[str](),
}
"""Options that each reader accepts besides the path and `name`."""
HINT = (
    f"[{'|'.join(READERS)}:]PATH[,name=N][,images=DIR][,grouping=object|photo|regions][,split=S][,list=FILE]"
)


@dataclass(frozen=True)
class SetDescription:
    """A data set named on the command line.

    Attributes:
        name: Name of the set in results.
        reader: Name in `READERS`.
        path: File or folder to read.
        options: Values of the reader's options (`OPTIONS`).

    Example:
        >>> description = SetDescription.parse("tda:data/parts,name=TDA")
        >>> description.name, description.reader
        ('TDA', 'tda')
    """

    name: str
    reader: str
    path: Path
    options: dict[str, str]

    @classmethod
    def parse(cls, text: str) -> SetDescription:
        """Parse the description of a data set.

        Args:
            text: READER:PATH,option=value,... The reader defaults to coco, the name to the last two parts of the path.

        Raises:
            DataError: If the text cannot be understood.
        """
        head, *given = text.split(",")
        reader, separator, path = head.partition(":")
        if not separator or reader not in READERS:
            reader, path = "coco", head
        options = dict(option.partition("=")[::2] for option in given)
        name = options.pop("name", "-".join([*Path(path).resolve().parts[-2:-1], Path(path).stem]))
        unknown = set(options) - OPTIONS[reader]
        if unknown or not path or not all(options.values()):
            raise DataError(
                f"data set {text!r} cannot be understood ({', '.join(sorted(unknown))})", hint=HINT
            )
        return cls(name, reader, Path(path), options)

    def read(self) -> list[AnnotatedObject]:
        """Read the annotated objects in the order of their file names.

        Raises:
            DataError: If the files cannot be read or have another form.
        """
        images = Path(self.options["images"]) if "images" in self.options else None
        if self.reader == "coco":
            grouping = self.options.get("grouping", "object")
            if grouping not in ("object", "photo", "regions"):
                raise DataError(f"unknown grouping {grouping!r}", hint="object, photo or regions")
            return read_annotated_objects(self.path, images or self.path.parent / "images", grouping=grouping)
        if self.reader == "part_imagenet":
            return read_part_imagenet(self.path, self.options.get("split", "val"), images)
        if self.reader == "pascal_part":
            listed = Path(self.options["list"]) if "list" in self.options else None
            return read_pascal_part(self.path, listed, images)
        return read_tda(self.path)
