"""Groups of two crops for training: targets on one crop, and the reference on the other that names them (RefCut 3.3).

Each crop of a group is the reference of the other, so one pass of the encoder serves six targets:

    crop 0: targets 0 1 2   <- their reference is crop 1
    crop 1: targets 3 4 5   <- their reference is crop 0
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from model.data.annotated_objects import AnnotatedObject
from model.data.augment import Augmentation, Crop, augment_zoomed
from model.masks import connected, deepest_point, union
from model.types import BoolMask, RgbImage

TARGETS_PER_CROP = 3
CROPS_PER_GROUP = 2


@dataclass(frozen=True)
class PairSettings:
    """Probabilities of the kinds of targets, references and clicks. What remains of the targets are unions of parts.

    Attributes:
        single: The target is one part.
        connected_pair: The target is two parts that touch.
        whole: The target is the whole object.
        no_reference: The target has no reference.
        only_positive: The reference has a positive mask only.
        only_negative: The reference has a negative mask only.
        some_negatives: The negative mask has only some of the other parts, as if a team had labelled only some.
        no_click: The target has no click, only its reference.
        shared_click: A crop's three targets are nested and share one click, so only the reference tells them apart.
        zoom: One of the two crops is zoomed in; never both, as the predictor's zoomed look meets a reference of the whole
            object.
        same_photo: The reference is another crop of the same image (always so if names have no meaning on other images).
    """

    single: float = 0.45
    connected_pair: float = 0.25
    whole: float = 0.15
    no_reference: float = 0.18
    only_positive: float = 0.14
    only_negative: float = 0.08
    some_negatives: float = 0.25
    no_click: float = 0.05
    shared_click: float = 0.5
    zoom: float = 0.4
    same_photo: float = 0.12


@dataclass(frozen=True)
class Group:
    """Two crops, each the reference of the other, with three targets on each. S px per side, N patches per crop.

    Attributes:
        images: The crops (2, S, S, 3), RGB, uint8.
        targets: The targets (6, S, S).
        target_crop: Index of the crop that each target is on (6,).
        positive: Share of each patch of the other crop inside the reference's positive mask (6, N), 0 to 1.
        negative: The same for the negative mask (6, N).
        clicks_rc: First click of each target as (row, column) in pixels of its crop (6, 2); (-1, -1) for none.
    """

    images: NDArray[np.uint8]
    targets: NDArray[np.bool_]
    target_crop: NDArray[np.int64]
    positive: NDArray[np.float32]
    negative: NDArray[np.float32]
    clicks_rc: NDArray[np.float32]


def sample_group(
    first: AnnotatedObject,
    second: AnnotatedObject,
    size_px: int,
    grid: int,
    settings: PairSettings,
    rng: Generator,
    augmentation: Augmentation = augment_zoomed,
) -> Group:
    """Make a group: crops of two annotated objects, with targets that are visible on both.

    Args:
        first: AnnotatedObject of the first crop.
        second: AnnotatedObject of the second crop; it shares a part name with `first`, and may be the same annotated
            object.
        size_px: Side of the crops.
        grid: Patches per side of a crop.
        settings: Probabilities.
        rng: Draws everything random.
        augmentation: Makes the crops.
    """
    photos = [(annotated_object.image(), annotated_object.masks()) for annotated_object in (first, second)]
    for attempt in range(6):
        crops = _make_crops(
            photos, size_px, rng, augmentation, zoom_share=settings.zoom if attempt < 4 else 0.0
        )
        common = sorted(set(crops[0].masks) & set(crops[1].masks))
        if common:
            break
    else:
        crops = [whole_crop(*photos[0], size_px)] * 2
        common = sorted(crops[0].masks)
    rows = [
        _target(crops[here], crops[1 - here], choice, grid, settings, rng)
        for here in (0, 1)
        for choice in _choices(crops[here], common, first.has_whole, settings, rng)
    ]
    return Group(
        images=np.stack([crop.image for crop in crops]),
        targets=np.stack([row[0] for row in rows]),
        target_crop=np.repeat(np.arange(CROPS_PER_GROUP), TARGETS_PER_CROP),
        positive=np.stack([row[1] for row in rows]),
        negative=np.stack([row[2] for row in rows]),
        clicks_rc=np.stack([row[3] for row in rows]),
    )


def _make_crops(
    photos: list[tuple[NDArray[np.uint8], dict[str, BoolMask]]],
    size_px: int,
    rng: Generator,
    augmentation: Augmentation,
    zoom_share: float,
) -> list[Crop]:
    shared = sorted(set(photos[0][1]) & set(photos[1][1]))
    zoomed: list[str | None] = [None] * CROPS_PER_GROUP
    if shared and rng.random() < CROPS_PER_GROUP * zoom_share:
        zoomed[rng.integers(CROPS_PER_GROUP)] = shared[rng.integers(len(shared))]
    return [
        augmentation(image, masks, size_px, rng, part)
        for (image, masks), part in zip(photos, zoomed, strict=True)
    ]


@dataclass(frozen=True)
class _Choice:
    """A target before its masks are made.

    Attributes:
        names: Parts that the target consists of.
        whole: Whether the target is everything visible, named or not.
        click_rc: First click (row, column) in pixels of the crop.
    """

    names: list[str]
    whole: bool
    click_rc: NDArray[np.float64]


def _choices(
    here: Crop, common: list[str], has_whole: bool, settings: PairSettings, rng: Generator
) -> list[_Choice]:
    """The three targets of a crop: independent ones, or nested ones that share a click."""
    if len(common) > 1 and rng.random() < settings.shared_click:
        part = common[rng.integers(len(common))]
        click_rc = first_click(here.masks[part], rng)
        larger = [part, _neighbour(here, part, common, rng) or common[common.index(part) - 1]]
        largest = common if has_whole else _some_with(part, common, rng)
        return [
            _Choice([part], False, click_rc),
            _Choice(larger, False, click_rc),
            _Choice(largest, has_whole, click_rc),
        ]
    choices = []
    for _ in range(TARGETS_PER_CROP):
        names, whole = _choose_parts(here, common, has_whole, settings, rng)
        target = union(here.masks[name] for name in (here.masks if whole else names))
        choices.append(_Choice(names, whole, first_click(target, rng)))
    return choices


def _neighbour(here: Crop, part: str, common: list[str], rng: Generator) -> str | None:
    """A part that touches `part` on this crop."""
    touching = [n for n in common if n != part and connected(here.masks[part], here.masks[n])]
    return touching[rng.integers(len(touching))] if touching else None


def _some_with(part: str, common: list[str], rng: Generator) -> list[str]:
    """Draw any number of parts that include `part`."""
    others = [name for name in common if name != part]
    return [part, *rng.choice(others, size=rng.integers(1, len(others) + 1), replace=False)]


def _target(
    here: Crop, there: Crop, choice: _Choice, grid: int, settings: PairSettings, rng: Generator
) -> tuple[BoolMask, NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Target (S, S), shares of the other crop's patches inside M+ and M- (N,), and the first click (2,)."""
    target = union(here.masks[name] for name in (here.masks if choice.whole else choice.names))
    positive = union(there.masks[name] for name in (there.masks if choice.whole else choice.names))
    others = [] if choice.whole else [name for name in there.masks if name not in choice.names]
    if len(others) > 1 and rng.random() < settings.some_negatives:
        others = list(rng.choice(others, size=rng.integers(1, len(others)), replace=False))
    negative = union(there.masks[n] for n in others) & ~positive if others else np.zeros_like(positive)
    chance = rng.random()
    if chance < settings.no_reference + settings.only_negative:
        positive = np.zeros_like(positive)
    if chance < settings.no_reference or settings.no_reference + settings.only_negative <= chance < (
        settings.no_reference + settings.only_negative + settings.only_positive
    ):
        negative = np.zeros_like(negative)
    named = positive.any() or negative.any()
    click_rc = np.full(2, -1.0) if named and rng.random() < settings.no_click else choice.click_rc
    return target, patch_shares(positive, grid), patch_shares(negative, grid), click_rc.astype(np.float32)


def _choose_parts(
    here: Crop, common: list[str], has_whole: bool, settings: PairSettings, rng: Generator
) -> tuple[list[str], bool]:
    """Draw the parts of an independent target, and whether it is the whole object."""
    chance = rng.random()
    if chance < settings.single or len(common) == 1:
        return [common[rng.integers(len(common))]], False
    if chance < settings.single + settings.connected_pair:
        first = common[rng.integers(len(common))]
        neighbour = _neighbour(here, first, common, rng)
        return ([first, neighbour] if neighbour else [first]), False
    if chance < settings.single + settings.connected_pair + settings.whole and has_whole:
        return common, True
    return list(rng.choice(common, size=rng.integers(2, len(common) + 1), replace=False)), False


def first_click(target_hw: BoolMask, rng: Generator) -> NDArray[np.float64]:
    """Draw where a person would click first: mostly near the middle of the largest piece, sometimes anywhere inside.

    Args:
        target_hw: The target (H, W), with at least one pixel.
        rng: Draws the pixel.

    Returns:
        (row, column) of a pixel of the target.
    """
    chance = rng.random()
    if chance < 0.45:
        point = np.asarray(deepest_point(target_hw), float)
        jittered = np.round(point + rng.normal(0, 0.01 * target_hw.shape[0], 2)).astype(int)
        jittered = jittered.clip(0, np.asarray(target_hw.shape) - 1)
        return jittered.astype(float) if target_hw[tuple(jittered)] else point
    if chance < 0.85:
        distance = cv2.distanceTransform(np.pad(target_hw.astype(np.uint8), 1), cv2.DIST_L2, 5)[1:-1, 1:-1]
        inside = np.argwhere(distance > distance.max() / 2)
    else:
        inside = np.argwhere(target_hw)
    pixel: NDArray[np.intp] = inside[rng.integers(len(inside))]
    return pixel.astype(float)


def patch_shares(mask_hw: BoolMask, grid: int) -> NDArray[np.float32]:
    """Compute how much of each patch a mask covers.

    Args:
        mask_hw: Square mask (S, S).
        grid: Patches per side.

    Returns:
        Covered share of each patch (grid * grid,), 0 to 1, row by row.

    Example:
        >>> patch_shares(np.array([[True, False], [True, True]]), 1).tolist()
        [0.75]
    """
    return cv2.resize(mask_hw.astype(np.float32), (grid, grid), interpolation=cv2.INTER_AREA).reshape(-1)  # type: ignore[return-value]


def whole_crop(image: RgbImage, masks: dict[str, BoolMask], size_px: int) -> Crop:
    """Squash a whole image to a square crop. At least the largest part keeps a pixel.

    Args:
        image: RGB (H, W, 3), uint8.
        masks: Masks (H, W) by name of the part.
        size_px: Side of the crop.
    """
    shape = (size_px, size_px)
    small = {
        n: cv2.resize(m.astype(np.uint8), shape, interpolation=cv2.INTER_NEAREST) > 0
        for n, m in masks.items()
    }
    seen = {name: mask for name, mask in small.items() if mask.any()}
    if not seen:
        largest = max(masks, key=lambda name: masks[name].sum())
        seen[largest] = cv2.resize(masks[largest].astype(np.float32), shape, interpolation=cv2.INTER_AREA) > 0
    return Crop(cv2.resize(image, shape, interpolation=cv2.INTER_AREA), seen)  # type: ignore[arg-type]
