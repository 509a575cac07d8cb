"""Groups of two crops for training: targets on one crop, and the reference on the other that names them (RefCut 3.3).

Each crop of a group is the reference of the other, so one pass of the encoder serves six targets:

    crop 0: targets 0 1 2   <- their reference is crop 1
    crop 1: targets 3 4 5   <- their reference is crop 0

`model.data.target_sampling` chooses the targets by piece; here they become masks, references, clicks and boxes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from model.data.annotated_objects import AnnotatedObject
from model.data.augment import Augmentation, Crop, augment_zoomed
from model.data.click_sampling import NO_BOX, NO_CLICK, first_click, jittered_box
from model.data.pasting import HOST, PASTED, pasted_questions, shows_both
from model.data.pieces import Photograph
from model.data.target_sampling import CropParts, Question, TargetKind, TargetShares, pick, questions
from model.masks import union
from model.types import BoolMask, RgbImage

TARGETS_PER_CROP = 3
CROPS_PER_GROUP = 2
ATTEMPTS, ZOOMED_ATTEMPTS, RICH_ATTEMPTS = 6, 4, 2
"""Crops are drawn again until both show a part of one name, the last times without zoom, and the first times until they
show two if the photographs do: with one part there are no pairs and no nested targets."""


@dataclass(frozen=True)
class PairSettings(TargetShares):
    """How often each kind of target, reference, click and box is drawn, 0 to 1.

    Attributes:
        no_reference: The target has no reference.
        only_positive: The reference has a positive mask only.
        only_negative: The reference has a negative mask only.
        some_negatives: The negative mask has only some of the other parts, as if a team had labelled only some.
        neighbour_negative: Of these, how often a part that touches the positive mask is among them at least.
        no_click: The target has no click, only its reference; never where only a click says which piece is meant.
        box: The target has a box.
        box_and_click: Of the targets with a box, how many have their click, too.
        pasted: Where objects are whole and there is something to paste: both photographs get a pasted object that touches
            theirs (`model.data.pasting`). The sampler does it more often where only one thing
            is labelled.
        zoom: A crop is zoomed in on a part.
        zoom_both: Of the groups with such a crop, how many have both crops zoomed in on that part, as the predictor
            compares a crop with a close-up of a reference. In the others the reference shows the whole object.
        same_photo: The reference is another crop of the same image (always so if names have no meaning on other images).
    """

    single: float = 0.45
    connected_pair: float = 0.25
    nested_things: float = 0.35
    no_reference: float = 0.18
    only_positive: float = 0.14
    only_negative: float = 0.08
    some_negatives: float = 0.25
    neighbour_negative: float = 0.7
    no_click: float = 0.05
    box: float = 0.12
    box_and_click: float = 0.35
    pasted: float = 0.0
    zoom: float = 0.4
    zoom_both: float = 0.0
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
        boxes: Box of each target as (row_min, col_min, row_max, col_max) in pixels of its crop, both ends inclusive
            (6, 4); -1 for none.
    """

    images: NDArray[np.uint8]
    targets: NDArray[np.bool_]
    target_crop: NDArray[np.int64]
    positive: NDArray[np.float32]
    negative: NDArray[np.float32]
    clicks_rc: NDArray[np.float32]
    boxes: NDArray[np.float32]


def sample_group(
    first: AnnotatedObject,
    second: AnnotatedObject,
    size_px: int,
    grid: int,
    settings: PairSettings,
    rng: Generator,
    augmentation: Augmentation = augment_zoomed,
    targets: TargetKind | None = None,
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
        targets: What can be asked for. None takes it from `first`: regions, parts, or an object with its whole.
    """
    kind = targets or kind_of(first)
    separate = kind in ("object", "parts")
    photos = [Photograph.of(first, separate=separate)]
    photos.append(photos[0] if second is first else Photograph.of(second, separate=separate))
    return group_of(photos, size_px, grid, settings, rng, augmentation, kind)


def group_of(
    photos: list[Photograph],
    size_px: int,
    grid: int,
    settings: PairSettings,
    rng: Generator,
    augmentation: Augmentation,
    targets: TargetKind,
) -> Group:
    """Make a group: crops of two photographs, with targets that are visible on both.

    Args:
        photos: Two photographs that share a part name, or with the same two objects, one of them pasted.
        size_px: Side of the crops.
        grid: Patches per side of a crop.
        settings: Probabilities.
        rng: Draws everything random.
        augmentation: Makes the crops.
        targets: What can be asked for; not used for photographs with a pasted object.
    """
    rich = not photos[0].objects and len(set(photos[0].names.values()) & set(photos[1].names.values())) > 1
    for attempt in range(ATTEMPTS):
        zoom = settings.zoom * (attempt < ZOOMED_ATTEMPTS)
        crops = _make_crops(photos, size_px, rng, augmentation, zoom, settings.zoom_both)
        shared = _shown(photos[0], crops[0]) & _shown(photos[1], crops[1])
        if len(shared) > (rich and attempt < RICH_ATTEMPTS):
            break
    else:
        photos = [photos[0]] * CROPS_PER_GROUP
        crops = [whole_crop(photos[0].image, photos[0].masks, size_px)] * CROPS_PER_GROUP
    views = [_View.of(photo, crop, grid) for photo, crop in zip(photos, crops, strict=True)]
    rows = [
        row
        for here in range(CROPS_PER_GROUP)
        for row in _targets(views[here], views[1 - here], targets, grid, settings, rng)
    ]
    return Group(
        images=np.stack([crop.image for crop in crops]),
        targets=np.stack([row.target for row in rows]),
        target_crop=np.repeat(np.arange(CROPS_PER_GROUP), TARGETS_PER_CROP),
        positive=np.stack([row.positive for row in rows]),
        negative=np.stack([row.negative for row in rows]),
        clicks_rc=np.stack([row.click_rc for row in rows]),
        boxes=np.stack([row.box for row in rows]),
    )


def kind_of(annotated_object: AnnotatedObject) -> TargetKind:
    """What can be asked for on an annotated object of a set that does not say so."""
    if not annotated_object.names_carry:
        return "regions"
    return "object" if annotated_object.has_whole else "parts"


@dataclass(frozen=True)
class _View:
    """A crop, with the masks (S, S) of its pieces in the order of `parts`."""

    parts: CropParts
    masks: list[BoolMask]

    @classmethod
    def of(cls, photo: Photograph, crop: Crop, grid: int) -> _View:
        shown = crop.masks | crop.rests
        keys = [key for key in photo.masks if key in shown]
        shares = np.stack([patch_shares(shown[key], grid) for key in keys])
        objects = [photo.objects.get(key, "") for key in keys] if photo.objects else []
        names, visible = [photo.names[key] for key in keys], [key in crop.masks for key in keys]
        parts = CropParts(names, visible, shares, objects)
        return cls(parts, [shown[key] for key in keys])

    def union(self, pieces: Sequence[int]) -> BoolMask:
        height, width = self.masks[0].shape
        return union([self.masks[piece] for piece in pieces], (height, width))


def _shown(photo: Photograph, crop: Crop) -> set[str]:
    """What a crop shows: names of parts, or both objects where one is pasted."""
    if photo.objects:
        both = {HOST, PASTED} <= {photo.objects.get(key) for key in crop.masks}
        return {PASTED} if both else set()
    return {photo.names[key] for key in crop.masks}


def _make_crops(
    photos: list[Photograph],
    size_px: int,
    rng: Generator,
    augmentation: Augmentation,
    zoom_share: float,
    both_share: float,
) -> list[Crop]:
    shared = sorted(set(photos[0].names.values()) & set(photos[1].names.values()))
    zoomed: list[str | None] = [None] * CROPS_PER_GROUP
    if shared and rng.random() < CROPS_PER_GROUP * zoom_share:
        which = int(rng.integers(CROPS_PER_GROUP))
        name = pick(shared, rng)
        zoomed[which] = pick(photos[which].keys_of(name), rng)
        if both_share and rng.random() < both_share:
            zoomed[1 - which] = pick(photos[1 - which].keys_of(name), rng)
    return [
        augmentation(photo.image, photo.masks, size_px, rng, key)
        for photo, key in zip(photos, zoomed, strict=True)
    ]


@dataclass(frozen=True)
class _Row:
    """A target (S, S), shares of the other crop's patches inside M+ and M- (N,), first click (2,) and box (4,)."""

    target: BoolMask
    positive: NDArray[np.float32]
    negative: NDArray[np.float32]
    click_rc: NDArray[np.float32]
    box: NDArray[np.float32]


def _targets(
    here: _View, there: _View, kind: TargetKind, grid: int, settings: PairSettings, rng: Generator
) -> list[_Row]:
    """The three targets of a crop: independent ones, or nested ones that share a click."""
    if shows_both(here.parts) and shows_both(there.parts):
        asked = pasted_questions(here.parts, there.parts, TARGETS_PER_CROP, rng)
    else:
        asked = questions(here.parts, [there.parts], kind, TARGETS_PER_CROP, settings, rng)
    masks = [here.union(question.pieces) for question in asked]
    nested = [
        mask & here.union(question.click_on)
        for mask, question in zip(masks, asked, strict=True)
        if question.nested
    ]
    shared_hw = np.logical_and.reduce(nested) if nested else None
    shared = first_click(shared_hw, rng) if shared_hw is not None and shared_hw.any() else None
    rows = []
    for target, question in zip(masks, asked, strict=True):
        if question.nested and shared is not None:
            click_rc = shared
        else:
            inside = target & here.union(question.click_on)
            click_rc = first_click(inside if inside.any() else target, rng)
        positive, negative = _reference_masks(there, question, settings, rng)
        named = bool(positive.any() or negative.any())
        box: NDArray[np.float32] = NO_BOX
        if rng.random() < settings.box:
            seen = [piece for piece in question.pieces if here.parts.visible[piece]]
            box = jittered_box(here.union(seen), rng)
            click_rc = click_rc if rng.random() < settings.box_and_click else NO_CLICK
        elif named and not question.needs_click and rng.random() < settings.no_click:
            click_rc = NO_CLICK
        rows.append(
            _Row(
                target,
                patch_shares(positive, grid),
                patch_shares(negative, grid),
                click_rc.astype(np.float32),
                box,
            )
        )
    return rows


def _reference_masks(
    there: _View, question: Question, settings: PairSettings, rng: Generator
) -> tuple[BoolMask, BoolMask]:
    """Positive and negative mask (S, S) of the reference."""
    (meant,), (left_out,) = question.meant, question.open
    positive = there.union(meant)
    others = [piece for piece in range(len(there.masks)) if piece not in left_out]
    if len(others) > 1 and rng.random() < settings.some_negatives:
        others = _some(there.parts, meant, others, settings, rng)
    negative = there.union(others) & ~positive
    empty = np.zeros_like(positive)
    chance = rng.random() - settings.no_reference
    if chance < 0:
        return empty, empty
    if chance < settings.only_negative:
        return empty, negative
    if chance < settings.only_negative + settings.only_positive:
        return positive, empty
    return positive, negative


def _some(
    parts: CropParts, meant: list[int], others: list[int], settings: PairSettings, rng: Generator
) -> list[int]:
    """Some of the other parts; mostly one that touches what is meant is among them."""
    names = sorted({parts.names[piece] for piece in others})
    size = int(rng.integers(1, max(len(names), 2)))
    chosen = {str(name) for name in rng.choice(names, size=size, replace=False)}
    if rng.random() < settings.neighbour_negative:
        near = sorted({parts.names[piece] for piece in parts.touching(meant, others)})
        if near and not chosen & set(near):
            chosen.add(pick(near, rng))
    return [piece for piece in others if parts.names[piece] in chosen]


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
