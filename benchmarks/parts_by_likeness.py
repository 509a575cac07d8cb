"""Parts that nobody marked: `python -m benchmarks.parts_by_likeness OUT SET ... [--parts N]`.

The frozen features of all things of one kind, grouped inside their masks, give parts that carry over between photographs:
heads, legs, handles, petals. They teach that a click on one place can mean a part or the whole thing, and that the
reference decides. Each SET is a folder with `all.json` and `images/` (docs/data-formats.md) of named things, such as
those of `benchmarks.kind_sets` and `benchmarks.kinds_by_likeness`. Photographs with one thing are taken. OUT gets the
same files, with up to N parts (2 or more) of each thing.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.cluster.vq import kmeans2  # type: ignore[import-untyped]

from benchmarks.kinds_by_likeness import patches_of, shares_of
from benchmarks.part_sets import Labelled, make_set
from model.checkpoints.weights import load_network
from model.data.annotated_objects import AnnotatedObject, read_annotated_objects
from model.predictor_config import serving_settings
from model.runtime.base import NetworkStages
from model.runtime.select import with_runtime
from model.types import BoolMask

FEWEST_THINGS = 3
"""Parts of a kind with fewer things do not carry over."""
FEWEST_PATCHES = 40
"""Of all things of a kind together."""
SMALLEST_THING_PATCHES = 12.0
INSIDE = 0.6
"""Patches that a mask covers by more are grouped."""
MOST_PATCHES = 60
"""Of one thing, so that a large one does not decide alone."""
DIRECTIONS = 24
"""Principal directions of a kind's features that are kept."""
STARTS = 4
BLUR = 0.6
"""Standard deviation, in patches, by which distances to groups are blurred: parts are pieces, not speckles."""
SMALLEST_SHARE = 0.06
"""A part that covers less of its thing is left to the others."""


@dataclass(frozen=True)
class SingleThing:
    """The only thing of a photograph.

    Attributes:
        photograph: Where it is.
        mask_hw: Its mask (H, W).
        features: Frozen features of all patches of the photograph, of length 1, float32 (N, D).
        shares: How much of each patch the mask covers, float32 (N,).
    """

    photograph: AnnotatedObject
    mask_hw: BoolMask
    features: NDArray[np.float32]
    shares: NDArray[np.float32]


def single_thing(network: NetworkStages, photograph: AnnotatedObject) -> SingleThing | None:
    """The thing of a photograph that shows one; None for one too small to have parts."""
    (mask_hw,) = photograph.masks().values()
    features = patches_of(network, photograph)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    shares = shares_of(mask_hw, len(features))
    if shares.sum() < SMALLEST_THING_PATCHES:
        return None
    return SingleThing(photograph, mask_hw, features, shares)


def distances_to_groups(things: Sequence[SingleThing], count: int) -> list[NDArray[np.float32]] | None:
    """Group the patches inside all things of one kind.

    Args:
        things: The things.
        count: Number of groups.

    Returns:
        For each thing the squared distance of each of its photograph's patches to each group, (N, count); None for a
        kind that shows too little.
    """
    rng = np.random.default_rng(0)
    chosen = []
    for thing in things:
        inside = np.flatnonzero(thing.shares > INSIDE)
        if len(inside) > MOST_PATCHES:
            inside = rng.choice(inside, MOST_PATCHES, replace=False)
        chosen.append(thing.features[inside])
    patches = np.concatenate(chosen)
    if len(patches) < FEWEST_PATCHES:
        return None
    mean = patches.mean(axis=0)
    _, _, directions = np.linalg.svd(patches - mean, full_matrices=False)
    kept = directions[:DIRECTIONS].T
    reduced = (patches - mean) @ kept
    runs = [kmeans2(reduced, count, iter=25, minit="++", rng=start) for start in range(STARTS)]
    centres, _ = min(runs, key=lambda run: float(((reduced - run[0][run[1]]) ** 2).sum()))
    own = [(thing.features - mean) @ kept for thing in things]
    return [((one[:, None] - centres) ** 2).sum(axis=-1) for one in own]


def parts_of(thing: SingleThing, distances: NDArray[np.float32]) -> list[tuple[int, BoolMask]]:
    """The parts of one thing: each pixel of its mask belongs to the nearest group that has enough of it.

    Args:
        thing: The thing.
        distances: Of its photograph's patches to each group, (N, groups).

    Returns:
        Number of the group and mask (H, W); empty if fewer than two groups are left.
    """
    height, width = thing.mask_hw.shape
    grid = round(len(distances) ** 0.5)
    blurred = [
        cv2.GaussianBlur(np.ascontiguousarray(one).reshape(grid, grid), (0, 0), BLUR) for one in distances.T
    ]
    at_pixels = np.stack(
        [cv2.resize(one, (width, height), interpolation=cv2.INTER_LINEAR) for one in blurred]
    )
    nearest = at_pixels.argmin(axis=0)
    areas = [int((thing.mask_hw & (nearest == group)).sum()) for group in range(len(at_pixels))]
    kept = [group for group, area in enumerate(areas) if area > SMALLEST_SHARE * thing.mask_hw.sum()]
    if len(kept) < 2:
        return []
    nearest = np.array(kept)[at_pixels[kept].argmin(axis=0)]
    return [(group, thing.mask_hw & (nearest == group)) for group in kept]


def labelled(
    network: NetworkStages, set_name: str, photographs: Sequence[AnnotatedObject], count: int
) -> Iterator[Labelled]:
    """The photographs of one set with the parts of their things."""
    by_name: dict[str, list[AnnotatedObject]] = defaultdict(list)
    for photograph in photographs:
        if photograph.has_single_annotation:
            by_name[next(iter(photograph.part_rles))].append(photograph)
    for name, own in sorted(by_name.items()):
        things = [thing for one in own if (thing := single_thing(network, one)) is not None]
        grouped = distances_to_groups(things, count) if len(things) >= FEWEST_THINGS else None
        if grouped is None:
            continue
        for thing, distances in zip(things, grouped, strict=True):
            masks = [(f"part_{group}", mask_hw) for group, mask_hw in parts_of(thing, distances)]
            if masks:
                image_rgb = thing.photograph.image()
                file_name = f"{set_name}_{thing.photograph.image_path.stem}"
                yield Labelled(file_name, image_rgb, masks, f"{set_name}_{name}")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command; see the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, metavar="OUT")
    parser.add_argument("sets", type=Path, nargs="+", metavar="SET")
    parser.add_argument("--parts", type=int, default=4, help="parts of each thing, at most")
    arguments = parser.parse_args(argv)
    if arguments.parts < 2:
        parser.error("--parts must be at least 2")
    network = load_network()
    stages = with_runtime(network, serving_settings(network.config), "auto")
    photographs = (
        one
        for folder in arguments.sets
        for one in labelled(
            stages,
            folder.name,
            read_annotated_objects(folder / "all.json", folder / "images", grouping="photo"),
            arguments.parts,
        )
    )
    print(make_set(photographs, "", arguments.out))


if __name__ == "__main__":
    main()
