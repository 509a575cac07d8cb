"""Training samples of the RefCut paper (3.3): a target on one object, and another object that serves as its reference.

The target is the union of some or all parts of the object. The reference is another object of the class with the same
parts: they are its positive mask, its other parts the negative mask. One reference in four has only one of the two masks.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from model.data.annotated_objects import AnnotatedObject
from model.data.augment import Augmentation, Crop
from model.data.click_sampling import sample_points
from model.data.pair_sampling import patch_shares, whole_crop
from model.masks import union
from model.types import BoolMask

ONLY_POSITIVE, ONLY_NEGATIVE = 0.125, 0.125
KEPT_SHARE = 0.01
"""A reference's crop is drawn again until its positive mask keeps this share of its area."""
MIN_TARGET_PX = 80
"""A target's crop is drawn again until at least this many of its pixels are visible (SimpleClick's smallest object)."""
TRIES = 10


@dataclass(frozen=True)
class Sample:
    """A target and its reference. S px per side, N patches per crop.

    Attributes:
        image: Crop with the target (S, S, 3), RGB, uint8.
        reference_image: Crop of the reference (S, S, 3); equal to `image` if there is no reference.
        target: The target (S, S).
        positive: Share of each patch of the reference inside its positive mask (N,), 0 to 1; all zero for no mask.
        negative: The same for the negative mask (N,).
        clicks: Click table (48, 3) of `model.data.click_sampling.sample_points`.
    """

    image: NDArray[np.uint8]
    reference_image: NDArray[np.uint8]
    target: BoolMask
    positive: NDArray[np.float32]
    negative: NDArray[np.float32]
    clicks: NDArray[np.float32]


class ReferenceFinder:
    """Finds objects that can serve as a reference, by class and parts."""

    def __init__(self, annotated_objects: Sequence[AnnotatedObject]) -> None:
        """Index the training annotated objects."""
        self._with_part: dict[tuple[str, str], set[int]] = defaultdict(set)
        self._annotated_objects = annotated_objects
        for number, annotated_object in enumerate(annotated_objects):
            for part in annotated_object.part_rles if annotated_object.names_carry else ():
                self._with_part[annotated_object.object_class, part].add(number)

    def find(
        self, annotated_object: AnnotatedObject, names: Sequence[str], rng: Generator
    ) -> AnnotatedObject | None:
        """Draw an object of the same class with the given parts on another image.

        Args:
            annotated_object: The object that needs a reference.
            names: At least one part.
            rng: Draws one of the candidates.

        Returns:
            An annotated object, or None if no other image has such an object.
        """
        found = set.intersection(*(self._with_part[annotated_object.object_class, name] for name in names))
        numbers = sorted(
            n for n in found if self._annotated_objects[n].image_path != annotated_object.image_path
        )
        return self._annotated_objects[numbers[rng.integers(len(numbers))]] if numbers else None


def sample_pair(
    annotated_object: AnnotatedObject,
    finder: ReferenceFinder,
    size_px: int,
    grid: int,
    augmentation: Augmentation,
    no_reference: float,
    rng: Generator,
) -> Sample:
    """Make a sample: a random target on an object, its reference, and its first clicks.

    Args:
        annotated_object: The object.
        finder: Finds the reference. If no other object has the parts, the sample has none.
        size_px: Side of the crops.
        grid: Patches per side of a crop.
        augmentation: Makes the crops.
        no_reference: Share of the samples whose reference is left out on purpose, 0 to 1.
        rng: Draws everything random.
    """
    parts = sorted(annotated_object.part_rles)
    names = [str(n) for n in rng.choice(parts, size=rng.integers(1, len(parts) + 1), replace=False)]
    crop = _make_crop(annotated_object, names, MIN_TARGET_PX, 0.0, size_px, augmentation, rng)
    shown = [name for name in names if name in crop.masks]
    target = union(crop.masks[name] for name in shown)
    others = [mask for name, mask in crop.masks.items() if name not in shown]
    reference = finder.find(annotated_object, shown, rng)
    absent = np.zeros(grid * grid, np.float32)
    positive: NDArray[np.float32] = absent
    negative: NDArray[np.float32] = absent
    reference_image = crop.image
    if reference is not None and rng.random() >= no_reference:
        there = _make_crop(reference, shown, 1, KEPT_SHARE, size_px, augmentation, rng)
        reference_image = there.image
        inside, outside = _masks(there, shown, rng)
        positive, negative = patch_shares(inside, grid), patch_shares(outside, grid)
    empty = np.zeros_like(target)
    return Sample(
        crop.image,
        reference_image,
        target,
        positive,
        negative,
        sample_points(target, union(others) if others else empty, rng),
    )


def _make_crop(
    annotated_object: AnnotatedObject,
    names: Sequence[str],
    min_px: int,
    min_share: float,
    size_px: int,
    augmentation: Augmentation,
    rng: Generator,
) -> Crop:
    """A crop that shows enough of the named parts; after some tries the whole image, squashed."""
    image, masks = annotated_object.image(), annotated_object.masks()
    whole_px = float(union(masks[name] for name in names).sum())
    for _ in range(TRIES):
        crop = augmentation(image, masks, size_px, rng, None)
        seen = [crop.masks[name] for name in names if name in crop.masks]
        if seen and union(seen).sum() >= max(min_px, min_share * whole_px):
            return crop
    crop = whole_crop(image, masks, size_px)
    if any(name in crop.masks for name in names):
        return crop
    return whole_crop(image, {name: masks[name] for name in names}, size_px)


def _masks(there: Crop, names: Sequence[str], rng: Generator) -> tuple[BoolMask, BoolMask]:
    """Positive and negative mask of a reference. If there are two, sometimes only one of them is kept."""
    positive = union(mask for name, mask in there.masks.items() if name in names)
    others = [mask for name, mask in there.masks.items() if name not in names]
    empty = np.zeros_like(positive)
    negative = union(others) & ~positive if others else empty
    chance = rng.random()
    if chance < ONLY_POSITIVE:
        return positive, empty
    if chance < ONLY_POSITIVE + ONLY_NEGATIVE and negative.any():
        return empty, negative
    return positive, negative
