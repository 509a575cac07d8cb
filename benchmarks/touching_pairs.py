"""Pairs of things that touch, in the layout of the Target Disassembly dataset (object disassembly).

    python -m benchmarks.touching_pairs --data DATA --out OUT
    python -m model evaluate --data tda_od:OUT/unseen,name=touching --out runs/touching

A click on one of two things that touch may mean this thing or both. The paper's own photographs cannot be had, so
`touching_pairs.json` lists pairs in other sets: a person or animal and what it holds, rides, stands or lies on (`unseen`
and `real`), and animals that are pasted onto things with soft edges (`pasted`). `thing_sets.SOURCES` names the files of
these sets in DATA (docs/data-formats.md). `--choose` makes the list anew.

The photographs of `unseen` belong to a val split, so no network is trained on them. Those of the other lists serve as
training data, too: `--leave-out DATA/near_copies.json` adds them to those that trainings leave out, and a network that
was trained on them must not be measured on the pairs.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.random import Generator, default_rng

from benchmarks.thing_sets import Sets, Thing
from model.images import read_image
from model.masks import bounding_box
from model.types import BoolMask, RgbImage

LIST_FILE = Path(__file__).with_suffix(".json")
PHOTOGRAPH_SETS, CUT_OUT_SET, UNSEEN_SET = ("coco_mini", "coco_tiny"), "animals7", "coco_panoptic100"
UNSEEN = "unseen"
"""Name of the list whose photographs no training sees."""
ALIVE = frozenset(("person", "bird", "cat", "dog", "sheep", "cow", "elephant", "bear", "zebra", "giraffe"))
CARRIERS = ("couch", "bed", "bench", "car", "dining table", "chair", "truck", "bus", "boat", "suitcase")
"""Things that animals are pasted onto."""
MIN_SHARE = 0.005
"""Smallest share of the photograph that a thing has."""
MIN_CONTACT, MAX_OVERLAP = 0.5, 0.1
"""Of the smaller thing: length of the shared border in sides of a square of its area, and overlap as a share of it."""
PHOTOGRAPHS_OF_A_CLASS = (2, 8)
"""A class has a reference on another photograph, and none has most of the list."""
PASTED_CLASSES, PAIRS_OF_A_CLASS = 15, 4
HIDDEN_SHARE = (0.1, 0.6)
"""Share of a carrier that a pasted animal hides."""
TRIES = 60
EDGE_PX = 1.2
"""Standard deviation of the blur of a cut-out's edge."""


@dataclass(frozen=True)
class Place:
    """Where a cut-out is pasted.

    Attributes:
        scale: Factor of its size.
        row: Top row of its box on the photograph.
        col: Left column of its box on the photograph.
    """

    scale: float
    row: int
    col: int


@dataclass(frozen=True)
class Pair:
    """Two things that touch. The second one is pasted onto the first one's photograph if it has a place."""

    first: Thing
    second: Thing
    place: Place | None = None

    @property
    def object_class(self) -> str:
        """Names of both things."""
        return "+".join(sorted((self.first.name, self.second.name)))


def choose(sets: Sets, near_copies: Path, rng: Generator) -> dict[str, list[Pair]]:
    """Choose the pairs of all lists."""
    photographs = list(sets.without(near_copies))
    return {
        UNSEEN: choose_real(sets, list(sets.things.items()), (UNSEEN_SET,)),
        "real": choose_real(sets, photographs, PHOTOGRAPH_SETS),
        "pasted": choose_pasted(sets, photographs, rng),
    }


def choose_real(
    sets: Sets, photographs: Sequence[tuple[tuple[str, str], list[Thing]]], sources: Sequence[str]
) -> list[Pair]:
    """Pairs of something alive and another thing that share a border: one on a photograph, of its rarest class."""
    found: dict[str, dict[tuple[str, str], Pair]] = defaultdict(dict)
    for photograph, things in photographs:
        if photograph[0] not in sources:
            continue
        masks = {thing: sets.mask(thing) for thing in things}
        large = [thing for thing, mask in masks.items() if mask.mean() >= MIN_SHARE]
        pairs = [
            Pair(*pair)
            for pair in combinations(large, 2)
            if pair[0].name != pair[1].name and ALIVE & {thing.name for thing in pair}
        ]
        for pair in pairs:
            if _touch(masks[pair.first], masks[pair.second]):
                found[pair.object_class].setdefault(photograph, pair)
    least, most = PHOTOGRAPHS_OF_A_CLASS
    used: set[tuple[str, str]] = set()
    chosen: list[Pair] = []
    for _, of_class in sorted(found.items(), key=lambda item: (len(item[1]), item[0])):
        free = {photograph: pair for photograph, pair in sorted(of_class.items()) if photograph not in used}
        if len(free) >= least:
            taken = list(free)[:most]
            used.update(taken)
            chosen += [free[photograph] for photograph in taken]
    return sorted(chosen, key=lambda pair: pair.object_class)


def _touch(first_hw: BoolMask, second_hw: BoolMask) -> bool:
    smaller = min(np.count_nonzero(first_hw), np.count_nonzero(second_hw))
    grown = cv2.dilate(first_hw.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    contact = np.count_nonzero(grown & second_hw & ~first_hw)
    overlap = np.count_nonzero(first_hw & second_hw)
    return bool(contact >= MIN_CONTACT * np.sqrt(smaller) and overlap <= MAX_OVERLAP * smaller)


def choose_pasted(
    sets: Sets, photographs: Sequence[tuple[tuple[str, str], list[Thing]]], rng: Generator
) -> list[Pair]:
    """Animals at random places on things. The same number of pairs of each class."""
    carriers: dict[str, list[Thing]] = defaultdict(list)
    cut_outs: dict[str, list[Thing]] = defaultdict(list)
    for (source, _), things in photographs:
        for thing in things:
            if source == CUT_OUT_SET and len(things) == 1 and _is_cut_out(sets.mask(thing)):
                cut_outs[thing.name].append(thing)
            elif source in PHOTOGRAPH_SETS and thing.name in CARRIERS and sets.mask(thing).mean() >= 0.05:
                carriers[thing.name].append(thing)
    classes = [
        (carrier, animal)
        for carrier in CARRIERS
        for animal in sorted(cut_outs)
        if len({thing.file_name for thing in carriers[carrier]}) >= PAIRS_OF_A_CLASS
    ]
    pairs: list[Pair] = []
    for number in rng.permutation(len(classes)):
        carrier, animal = classes[number]
        made = [
            pair
            for thing in _one_per_photograph(
                [carriers[carrier][n] for n in rng.permutation(len(carriers[carrier]))]
            )
            if (
                pair := _paste_somewhere(
                    sets, thing, cut_outs[animal][rng.integers(len(cut_outs[animal]))], rng
                )
            )
        ]
        if len(made) >= PAIRS_OF_A_CLASS:
            pairs += made[:PAIRS_OF_A_CLASS]
        if len(pairs) >= PASTED_CLASSES * PAIRS_OF_A_CLASS:
            break
    return pairs


def _one_per_photograph(things: Sequence[Thing]) -> list[Thing]:
    return list({(thing.source, thing.file_name): thing for thing in things}.values())


def _is_cut_out(mask_hw: BoolMask) -> bool:
    """Whether a thing is large, in one piece and wholly on its photograph."""
    inner = mask_hw[2:-2, 2:-2]
    count, _ = cv2.connectedComponents(mask_hw.astype(np.uint8), connectivity=8)
    return bool(mask_hw.mean() >= 0.08 and count == 2 and inner.sum() == mask_hw.sum())


def _paste_somewhere(sets: Sets, carrier: Thing, animal: Thing, rng: Generator) -> Pair | None:
    """The animal with its feet on the carrier, hiding some of it; None if there is no such place."""
    carrier_hw, animal_hw = sets.mask(carrier), sets.mask(animal)
    rows, cols = np.nonzero(carrier_hw)
    box = bounding_box(animal_hw)
    for _ in range(TRIES):
        scale = float(np.sqrt(rng.uniform(0.4, 1.0) * len(rows) / np.count_nonzero(animal_hw)))
        scale = round(min(scale, 1.5), 3)
        foot = rng.integers(len(rows))
        row, col = int(rows[foot] - scale * box.height), int(cols[foot] - scale * box.width / 2)
        place = Place(scale, row, col)
        if row < 0 or col < 0 or row + scale * box.height >= carrier_hw.shape[0] - 1:
            continue
        if col + scale * box.width >= carrier_hw.shape[1] - 1:
            continue
        pasted_hw = _placed(animal_hw, animal_hw, place, carrier_hw.shape)[0] > 0.5
        hidden = np.count_nonzero(pasted_hw & carrier_hw) / len(rows)
        if HIDDEN_SHARE[0] <= hidden <= HIDDEN_SHARE[1]:
            return Pair(carrier, animal, place)
    return None


def _placed(
    mask_hw: BoolMask, values: np.ndarray[Any, Any], place: Place, shape: tuple[int, ...]
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """The mask's box scaled and placed on a photograph of another size: soft mask (H, W), and values there."""
    box = bounding_box(mask_hw)
    size = max(1, round(place.scale * box.width)), max(1, round(place.scale * box.height))
    way = cv2.INTER_AREA if place.scale < 1 else cv2.INTER_LINEAR
    spot = np.s_[place.row : place.row + size[1], place.col : place.col + size[0]]
    soft = np.zeros(shape[:2], np.float32)
    soft[spot] = cv2.resize(mask_hw[box.slices].astype(np.float32), size, interpolation=way)
    placed = np.zeros((*shape[:2], *values.shape[2:]), np.float32)
    placed[spot] = cv2.resize(values[box.slices].astype(np.float32), size, interpolation=way)
    return soft, placed


def render(sets: Sets, pair: Pair) -> tuple[RgbImage | None, dict[str, BoolMask]]:
    """The photograph of a pair, None if it is the source's own, and the masks (H, W) of both things by name."""
    first_hw, second_hw = sets.mask(pair.first), sets.mask(pair.second)
    if pair.place is None:
        return None, {pair.first.name: first_hw, pair.second.name: second_hw & ~first_hw}
    photograph = read_image(sets.path(pair.first))
    soft, pixels = _placed(second_hw, read_image(sets.path(pair.second)), pair.place, photograph.shape)
    alpha = cv2.GaussianBlur(soft, (0, 0), EDGE_PX)[..., None]
    mixed = (alpha * pixels + (1 - alpha) * photograph).round().astype(np.uint8)
    pasted_hw = np.asarray(alpha[..., 0] > 0.5)
    return mixed, {pair.first.name: first_hw & ~pasted_hw, pair.second.name: pasted_hw}


def write(sets: Sets, pairs: Sequence[Pair], folder: Path) -> None:
    """Write pairs in the layout that `model.data.readers.read_tda` reads."""
    numbers: dict[str, int] = defaultdict(int)
    for pair in pairs:
        numbers[pair.object_class] += 1
        target = folder / f"{pair.object_class}_{numbers[pair.object_class]:02}"
        target.mkdir(parents=True, exist_ok=True)
        photograph, masks = render(sets, pair)
        if photograph is None:
            shutil.copyfile(sets.path(pair.first), target / "photo.jpg")
        else:
            pixels = cv2.cvtColor(photograph, cv2.COLOR_RGB2BGR)
            cv2.imwrite(str(target / "photo.jpg"), pixels, [cv2.IMWRITE_JPEG_QUALITY, 95])
        for name, mask_hw in masks.items():
            cv2.imwrite(str(target / f"{name}.png"), 255 * mask_hw.astype(np.uint8))


def read_list(path: Path) -> dict[str, list[Pair]]:
    """Read a list that `--choose` has written."""
    return {
        name: [
            Pair(
                Thing(**one["first"]), Thing(**one["second"]), Place(**one["place"]) if one["place"] else None
            )
            for one in pairs
        ]
        for name, pairs in json.loads(path.read_text())["lists"].items()
    }


def write_list(path: Path, lists: dict[str, list[Pair]], seed: int) -> None:
    """Write a list, one pair a line."""
    blocks = [
        f'"{name}": [\n' + ",\n".join(json.dumps(asdict(pair)) for pair in pairs) + "\n]"
        for name, pairs in lists.items()
    ]
    path.write_text(f'{{"seed": {seed}, "lists": {{\n' + ",\n".join(blocks) + "\n}}\n")


def leave_out(path: Path, lists: dict[str, list[Pair]]) -> None:
    """Add the photographs of all pairs to a list of `python -m model near-copies`, which trainings leave out."""
    excluded: dict[str, list[str]] = json.loads(path.read_text())
    trained_on = [pair for name, pairs in lists.items() if name != UNSEEN for pair in pairs]
    for thing in (thing for pair in trained_on for thing in (pair.first, pair.second)):
        excluded.setdefault(thing.source, []).append(thing.file_name)
    content = {source: sorted(set(names)) for source, names in excluded.items()}
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")


def main() -> None:
    """Write the photographs of the list, or a new list; see the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of the data")
    parser.add_argument("--out", type=Path, help="folder for the photographs and masks")
    parser.add_argument("--list", type=Path, default=LIST_FILE)
    parser.add_argument("--choose", action="store_true", help="make the list anew")
    parser.add_argument(
        "--near-copies", type=Path, help="for --choose: file of `python -m model near-copies`"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--leave-out",
        type=Path,
        help="file of `python -m model near-copies` that gets the listed photographs",
    )
    arguments = parser.parse_args()
    sets = Sets.read(arguments.data)
    if arguments.choose:
        if arguments.near_copies is None:
            parser.error("--choose needs --near-copies")
        write_list(
            arguments.list, choose(sets, arguments.near_copies, default_rng(arguments.seed)), arguments.seed
        )
    lists = read_list(arguments.list)
    if arguments.leave_out is not None:
        leave_out(arguments.leave_out, lists)
    for name, pairs in lists.items():
        print(f"{name}: {len(pairs)} pairs of {len({pair.object_class for pair in pairs})} classes")
        if arguments.out is not None:
            write(sets, pairs, arguments.out / name)


if __name__ == "__main__":
    main()
