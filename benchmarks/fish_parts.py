"""Catfish for `benchmarks.forgetting`: `python -m benchmarks.fish_parts CHECKOUT OUT`.

CHECKOUT: of github.com/Zhanglab-abe/Catfish-Segment (2040cfb; 72 fish on a steel table with label images; no licence
stated for them, so the photographs are not part of this repository). OUT gets `team.json` (50 photographs to annotate),
`fresh.json` (22 that no training sees) and `images/`, in the form of docs/data-formats.md. The model that ships has seen
no fish. A fish has a head, a body, fins (one mask) and a tail.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.part_sets import Labelled, make_set, masks_of_values, read_pixels
from model.masks import evenly_spaced

PARTS = {2: "head", 3: "body", 4: "fins", 5: "tail"}
TEAM = 50


def labelled(checkout: Path, names: Sequence[str]) -> Iterator[Labelled]:
    """Photographs with their parts. The folder "training" has turned and recoloured copies of those of "test"."""
    for name in names:
        values = checkout / "Data/annotations/test" / f"{name}.png"
        yield Labelled(
            name,
            read_pixels(checkout / "Data/images/test" / f"{name}.jpg"),
            masks_of_values(values, PARTS),
        )


def main(argv: Sequence[str] | None = None) -> None:
    """Convert the checkout that the command line names."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkout", type=Path, metavar="CHECKOUT")
    parser.add_argument("out", type=Path, metavar="OUT")
    arguments = parser.parse_args(argv)
    names = sorted(path.stem for path in (arguments.checkout / "Data/images/test").glob("*.jpg"))
    team = evenly_spaced(names, TEAM)
    for split, chosen in (("team", team), ("fresh", [name for name in names if name not in team])):
        made = make_set(labelled(arguments.checkout, chosen), "catfish", arguments.out, f"{split}.json")
        print(split, made)


if __name__ == "__main__":
    main()
