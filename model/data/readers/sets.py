"""Data sets by name on a command line: which reader, which files, how its annotations group into objects."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from model.data.readers.part_imagenet import read_part_imagenet
from model.data.readers.pascal_part import read_pascal_part
from model.data.readers.tda import read_tda
from model.data.scenes import Scene, read_scenes
from model.errors import DataError

READERS = ("coco", "part_imagenet", "pascal_part", "tda")
OPTIONS = {
    "coco": {"images", "grouping"},
    "part_imagenet": {"split", "images"},
    "pascal_part": {"list", "images"},
    "tda": set[str](),
}
HINT = (
    f"[{'|'.join(READERS)}:]PATH[,name=N][,images=DIR][,grouping=object|photo|regions][,split=S][,list=FILE]"
)


@dataclass(frozen=True)
class SetDescription:
    """A data set to read. options: what its reader takes beside the path (`OPTIONS`); docs/data-formats.md."""

    name: str
    reader: str
    path: Path
    options: dict[str, str]

    @classmethod
    def parse(cls, text: str) -> SetDescription:
        """From READER:PATH,option=value,...; the reader defaults to coco, the name to the path's last two parts.

        Raises DataError when it cannot be understood.
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

    def read(self) -> list[Scene]:
        """Scenes in the order of their file names. Raises DataError when the files are not of that form."""
        images = Path(self.options["images"]) if "images" in self.options else None
        if self.reader == "coco":
            grouping = self.options.get("grouping", "object")
            if grouping not in ("object", "photo", "regions"):
                raise DataError(f"unknown grouping {grouping!r}", hint="object, photo or regions")
            return read_scenes(self.path, images or self.path.parent / "images", grouping=grouping)
        if self.reader == "part_imagenet":
            return read_part_imagenet(self.path, self.options.get("split", "val"), images)
        if self.reader == "pascal_part":
            listed = Path(self.options["list"]) if "list" in self.options else None
            return read_pascal_part(self.path, listed, images)
        return read_tda(self.path)
