"""The RefCut paper's training samples (3.3; facts: section 4): parts of an object, and another object that says which.

The target is 1 to all parts of the object, merged. The reference is another object of the class with the same parts:
those are its positive mask, its other parts the negative one. One in four has only one of the two masks.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from model.data.augment import Augmentation, Crop
from model.data.click_sampling import sample_points
from model.data.pair_sampling import patch_shares, whole_crop
from model.data.scenes import Scene
from model.masks import union
from model.types import BoolMask

ONLY_POSITIVE, ONLY_NEGATIVE = 0.125, 0.125
KEPT_SHARE = 0.01
"""A reference's view is drawn again until its positive mask keeps so much of its area."""
MIN_TARGET_PX = 80
"""A target's view is drawn again until so much of it is seen (SimpleClick's smallest object)."""
TRIES = 10


@dataclass(frozen=True)
class Sample:
    """A target and its reference. S = view size, N = patches of a view.

    image, reference_image: (S, S, 3) uint8. target: (S, S) bool. positive, negative: (N,) float32, share of each patch
    of the reference inside its masks, all zero where there is none. clicks: (48, 3), see `first_points`.
    """

    image: NDArray[np.uint8]
    reference_image: NDArray[np.uint8]
    target: BoolMask
    positive: NDArray[np.float32]
    negative: NDArray[np.float32]
    clicks: NDArray[np.float32]


class ReferenceFinder:
    """Which objects can serve as a reference for which parts of which class."""

    def __init__(self, scenes: Sequence[Scene]) -> None:
        self._with_part: dict[tuple[str, str], set[int]] = defaultdict(set)
        self._scenes = scenes
        for number, scene in enumerate(scenes):
            for part in scene.part_rles if scene.names_carry else ():
                self._with_part[scene.object_class, part].add(number)

    def find(self, scene: Scene, names: Sequence[str], rng: Generator) -> Scene | None:
        """Another photograph's object of the class with these parts; None where there is none."""
        found = set.intersection(*(self._with_part[scene.object_class, name] for name in names))
        places = sorted(n for n in found if self._scenes[n].image_path != scene.image_path)
        return self._scenes[places[rng.integers(len(places))]] if places else None


def sample_pair(
    scene: Scene,
    finder: ReferenceFinder,
    size_px: int,
    grid: int,
    make_view: Augmentation,
    no_reference: float,
    rng: Generator,
) -> Sample:
    """A random target on the object, its reference, and its first clicks.

    no_reference: share of samples whose reference is left out on purpose; it is missing too where no other object
    has the parts.
    """
    parts = sorted(scene.part_rles)
    names = [str(n) for n in rng.choice(parts, size=rng.integers(1, len(parts) + 1), replace=False)]
    view = _view(scene, names, MIN_TARGET_PX, 0.0, size_px, make_view, rng)
    shown = [name for name in names if name in view.masks]
    target = union(view.masks[name] for name in shown)
    others = [mask for name, mask in view.masks.items() if name not in shown]
    reference = finder.find(scene, shown, rng)
    absent = np.zeros(grid * grid, np.float32)
    positive: NDArray[np.float32] = absent
    negative: NDArray[np.float32] = absent
    reference_image = view.image
    if reference is not None and rng.random() >= no_reference:
        there = _view(reference, shown, 1, KEPT_SHARE, size_px, make_view, rng)
        reference_image = there.image
        inside, outside = _masks(there, shown, rng)
        positive, negative = patch_shares(inside, grid), patch_shares(outside, grid)
    empty = np.zeros_like(target)
    return Sample(
        view.image,
        reference_image,
        target,
        positive,
        negative,
        sample_points(target, union(others) if others else empty, rng),
    )


def _view(
    scene: Scene,
    names: Sequence[str],
    min_px: int,
    min_share: float,
    size_px: int,
    make_view: Augmentation,
    rng: Generator,
) -> Crop:
    """A view on which enough of the named parts is seen; after some tries the whole photograph, squashed."""
    image, masks = scene.image(), scene.masks()
    whole_px = float(union(masks[name] for name in names).sum())
    for _ in range(TRIES):
        view = make_view(image, masks, size_px, rng, None)
        seen = [view.masks[name] for name in names if name in view.masks]
        if seen and union(seen).sum() >= max(min_px, min_share * whole_px):
            return view
    view = whole_crop(image, masks, size_px)
    if any(name in view.masks for name in names):
        return view
    return whole_crop(image, {name: masks[name] for name in names}, size_px)


def _masks(there: Crop, names: Sequence[str], rng: Generator) -> tuple[BoolMask, BoolMask]:
    """Positive and negative mask of a reference; now and then only one of them, where there are two."""
    positive = union(mask for name, mask in there.masks.items() if name in names)
    others = [mask for name, mask in there.masks.items() if name not in names]
    empty = np.zeros_like(positive)
    negative = union(others) & ~positive if others else empty
    draw = rng.random()
    if draw < ONLY_POSITIVE:
        return positive, empty
    if draw < ONLY_POSITIVE + ONLY_NEGATIVE and negative.any():
        return empty, negative
    return positive, negative
