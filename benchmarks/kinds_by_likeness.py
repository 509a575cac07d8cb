"""Things without names, grouped into kinds by what they look like: `python -m benchmarks.kinds_by_likeness KINDS OUT`.

A training needs two photographs of the same kind of thing, one as the reference of the other. Sets of salient things
have masks of very many kinds, but no names. Their frozen features tell which are alike: flowers, road signs, birds on
water, standing animals. KINDS holds `salient_things` and `salient_scenes`, as `benchmarks.kind_sets` makes them. OUT gets
`all.json` and `images/` (docs/data-formats.md): the photographs with a thing that has company, named by its kind.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from scipy.cluster.hierarchy import fcluster, linkage  # type: ignore[import-untyped]

from benchmarks.part_sets import Labelled, make_set
from model.checkpoints.weights import load_network
from model.data.annotated_objects import AnnotatedObject, read_annotated_objects
from model.data.feature_cache import encode
from model.predictor_config import serving_settings
from model.runtime.base import NetworkStages
from model.runtime.select import with_runtime
from model.types import BoolMask

SETS = ("salient_things", "salient_scenes")
LARGEST_DISTANCE = 0.36
"""Mean cosine distance up to which groups of things are joined. Chosen by eye: from .4 on one kind takes in another."""
SIZE_PX = 336
SMALLEST_PATCHES = 2.0
"""A thing that covers less has no features of its own."""


@dataclass(frozen=True)
class Thing:
    """One thing on one photograph.

    Attributes:
        photograph: Number of the photograph.
        mask_hw: Its mask (H, W).
        features: Mean of the frozen features inside it, float32 (D,); None for a thing too small to tell.
    """

    photograph: int
    mask_hw: BoolMask
    features: NDArray[np.float32] | None


def patches_of(network: NetworkStages, photograph: AnnotatedObject) -> NDArray[np.float32]:
    """Frozen features of the patches of a whole photograph, float32 (N, D)."""
    pixels = cv2.resize(photograph.image(), (SIZE_PX, SIZE_PX), interpolation=cv2.INTER_AREA)
    return encode(network, pixels.astype(np.uint8)).astype(np.float32)


def shares_of(mask_hw: BoolMask, patches: int) -> NDArray[np.float32]:
    """How much of each patch of a photograph a mask covers, float32 (patches,)."""
    grid = round(patches**0.5)
    shares = cv2.resize(mask_hw.astype(np.float32), (grid, grid), interpolation=cv2.INTER_AREA)
    return np.asarray(shares, np.float32).reshape(-1)


def things_of(
    network: NetworkStages, photographs: Sequence[AnnotatedObject]
) -> tuple[list[Thing], NDArray[np.float32]]:
    """All things of some photographs, and the mean of the features of all patches, float32 (D,)."""
    things, means = [], []
    for number, photograph in enumerate(photographs):
        features = patches_of(network, photograph)
        means.append(features.mean(axis=0))
        for rle in (rle for rles in photograph.part_rles.values() for rle in rles):
            mask_hw = coco_mask.decode(rle).astype(bool)
            shares = shares_of(mask_hw, len(features))
            large = shares.sum() >= SMALLEST_PATCHES
            things.append(Thing(number, mask_hw, shares @ features / shares.sum() if large else None))
    return things, np.mean(means, axis=0)


def kinds_of(features: NDArray[np.float32], largest_distance: float = LARGEST_DISTANCE) -> list[int]:
    """Group vectors by mean cosine distance (average linkage).

    Args:
        features: One vector a thing, float32 (things, D), without what all have in common.
        largest_distance: Mean distance up to which two groups are joined.

    Returns:
        The number of each thing's kind, from 1; 0 for a thing that is like no other.
    """
    kinds = fcluster(linkage(features, "average", "cosine"), largest_distance, "distance").tolist()
    sizes = Counter(kinds)
    return [kind if sizes[kind] > 1 else 0 for kind in kinds]


def named(
    photographs: Sequence[AnnotatedObject], things: Sequence[Thing], kinds: Sequence[int]
) -> Iterator[Labelled]:
    """The photographs with a thing that has company. Whatever else is masked there has a name of its own.

    Args:
        photographs: All photographs.
        things: All things.
        kinds: Number of the kind of each thing; 0 for none.
    """
    masks: dict[int, list[tuple[str, BoolMask]]] = {}
    for number, (thing, kind) in enumerate(zip(things, kinds, strict=True)):
        name = f"kind_{kind}" if kind else f"alone_{number}"
        masks.setdefault(thing.photograph, []).append((name, thing.mask_hw))
    for number, pieces in masks.items():
        if any(name.startswith("kind_") for name, _ in pieces):
            yield Labelled(photographs[number].image_path.stem, photographs[number].image(), pieces)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command; see the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kinds", type=Path, metavar="KINDS")
    parser.add_argument("out", type=Path, metavar="OUT")
    arguments = parser.parse_args(argv)
    photographs = [
        photograph
        for name in SETS
        for photograph in read_annotated_objects(
            arguments.kinds / name / "all.json", arguments.kinds / name / "images", grouping="photo"
        )
    ]
    network = load_network()
    things, common = things_of(with_runtime(network, serving_settings(network.config), "auto"), photographs)
    features = {
        number: thing.features - common for number, thing in enumerate(things) if thing.features is not None
    }
    found = dict(zip(features, kinds_of(np.stack(list(features.values()))), strict=True))
    kinds = [found.get(number, 0) for number in range(len(things))]
    print(make_set(named(photographs, things, kinds), "thing", arguments.out))


if __name__ == "__main__":
    main()
