"""`python -m model near-copies --train FILE... --val FILE... --out FILE`: photographs that must not be trained on.

Lists the photographs of training sets that are near copies of photographs in val splits.

The list is a JSON object: name of the set to the sorted file names to leave out. `exclude` of a training
configuration's source names such a file.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from model.cli.common import command_parser
from model.data.annotated_objects import is_development, read_annotated_objects
from model.data.near_copies import find_near_copies
from model.errors import DataError, ModelError


def part_file_photographs(part_file: Path, development_share: float | None = None) -> list[Path]:
    """The photographs of a part file, which lie in the folder images/ beside it.

    Args:
        part_file: COCO-style part file (docs/data-formats.md).
        development_share: Return only the photographs of this development share; None returns all.
    """
    annotated_objects = read_annotated_objects(part_file, part_file.parent / "images", grouping="photo")
    if development_share is not None:
        annotated_objects = [
            annotated_object
            for annotated_object in annotated_objects
            if is_development(annotated_object, development_share)
        ]
    return [annotated_object.image_path for annotated_object in annotated_objects]


def make_parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = command_parser("near-copies", __doc__)
    parser.add_argument("--train", type=Path, nargs="+", required=True, help="part files of training sets")
    parser.add_argument("--val", type=Path, nargs="+", required=True, help="part files of val splits")
    parser.add_argument(
        "--photographs", type=Path, nargs="*", default=[], help="folders of further photographs"
    )
    parser.add_argument(
        "--development", type=float, help="protect this development share of the training sets, too"
    )
    parser.add_argument("--out", type=Path, required=True, help="where the list is written")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Exits with status 2 and one line on stderr if a file cannot be read."""
    parser = make_parser()
    arguments = parser.parse_args(argv)
    try:
        protected = [path for file in arguments.val for path in part_file_photographs(file)]
        for folder in arguments.photographs:
            protected += sorted(path for path in folder.iterdir() if path.suffix in {".jpg", ".jpeg", ".png"})
        if arguments.development is not None:
            for file in arguments.train:
                protected += part_file_photographs(file, arguments.development)
        if not protected:
            raise DataError("there is nothing to protect", hint="check --val")
        excluded: dict[str, list[str]] = {}
        for file in arguments.train:
            copies = find_near_copies(part_file_photographs(file), protected)
            for copy in copies:
                print(
                    f"{copy.photograph} is a near copy of {copy.protected} ({copy.different_bits} bits differ, "
                    f"correlation {copy.correlation:.3f}{', mirrored' if copy.mirrored else ''})"
                )
            excluded[file.parent.name] = sorted({copy.photograph.name for copy in copies})
        arguments.out.write_text(json.dumps(excluded, indent=2, sort_keys=True) + "\n")
    except ModelError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
