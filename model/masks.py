"""Masks: union, overlap, box, distance, pieces, and COCO run lengths, their form in files.

A mask is an array (H, W) of bool. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from model.types import BoolMask, Box, Click

Item = TypeVar("Item")


def union(masks: Iterable[BoolMask], size: tuple[int, int] | None = None) -> BoolMask:
    """The pixels that lie in any of the masks.

    Args:
        masks: Masks (H, W) of one size.
        size: Height and width of the result if there is no mask; without it, there must be one.

    Raises:
        ValueError: If there is neither a mask nor a size, or the masks differ in size.

    Example:
        >>> left, right = np.array([[True, False]]), np.array([[False, True]])
        >>> union([left, right])
        array([[ True,  True]])
    """
    all_masks = list(masks)
    if not all_masks and size is not None:
        return np.zeros(size, bool)
    joined: BoolMask = np.logical_or.reduce(all_masks)
    if joined.ndim != 2:
        raise ValueError("union needs a mask or a size")
    return joined


def intersection_over_union(first_hw: BoolMask, second_hw: BoolMask) -> float:
    """IoU of two masks (H, W) of one size, 0..1; 1.0 when both are empty.

    Example:
        >>> intersection_over_union(np.array([[True, True]]), np.array([[True, False]]))
        0.5
    """
    either = np.count_nonzero(first_hw | second_hw)
    return np.count_nonzero(first_hw & second_hw) / either if either else 1.0


def bounding_box(mask_hw: BoolMask) -> Box:
    """Smallest box around a mask (H, W) that is not empty."""
    rows, cols = np.flatnonzero(mask_hw.any(axis=1)), np.flatnonzero(mask_hw.any(axis=0))
    return Box(int(rows[0]), int(rows[-1]), int(cols[0]), int(cols[-1]))


def distance_inside(mask_hw: BoolMask) -> NDArray[np.float32]:
    """Distance of each pixel of a mask to the outside.

    Returns:
        Exact Euclidean distances (H, W) in pixels, 0 outside the mask. The image's border counts as outside.
    """
    padded = np.pad(mask_hw.astype(np.uint8), 1)
    return cv2.distanceTransform(padded, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]  # type: ignore[return-value]


def deepest_point(mask_hw: BoolMask) -> tuple[int, int]:
    """(row, column) of the pixel farthest from the mask's border; of several the first in row-major order."""
    distance = distance_inside(mask_hw)
    row, col = np.unravel_index(int(distance.argmax()), distance.shape)
    return int(row), int(col)


def connected(first_hw: BoolMask, second_hw: BoolMask) -> bool:
    """Whether two masks overlap or touch, diagonally too (8-neighbourhood)."""
    grown = cv2.dilate(first_hw.astype(np.uint8), np.ones((3, 3), np.uint8))
    return bool(np.any((grown > 0) & second_hw))


PIECE_SHARE = 0.1
"""A connected piece of a mask counts from this share of the largest piece on; smaller ones are specks."""
NEAR_SHARE = 0.2
"""A piece is near clicked ones up to this distance, in units of the square root of their area."""


def count_pieces(mask_hw: BoolMask) -> int:
    """Number of connected pieces (8-neighbourhood) of a mask (H, W) without specks (`PIECE_SHARE`).

    Example:
        >>> count_pieces(np.array([[True, False, True]]))
        2
    """
    _, _, stats, _ = cv2.connectedComponentsWithStats(mask_hw.astype(np.uint8), connectivity=8)
    areas = stats[1:, cv2.CC_STAT_AREA]
    return int((areas >= PIECE_SHARE * areas.max()).sum()) if len(areas) else 0


def clicked_pieces(mask_hw: BoolMask, clicks: Iterable[Click]) -> BoolMask:
    """A mask without the specks that nobody clicked on: small pieces away from the clicked ones.

    Args:
        mask_hw: Mask (H, W).
        clicks: Clicks within its frame. Negative ones do not count.

    Returns:
        The pieces (H, W) that were clicked on, those near them (`NEAR_SHARE`), and those that are no specks beside them
        (`PIECE_SHARE`); the whole mask if no positive click lies on it.

    Example:
        >>> mask_hw = np.ones((1, 20), bool)
        >>> mask_hw[0, 13:19] = False
        >>> clicked_pieces(mask_hw, [Click(0, 0)])[0, 10:]
        array([ True,  True,  True, False, False, False, False, False, False,
               False])
    """
    if not mask_hw.any():
        return mask_hw
    box = bounding_box(mask_hw)  # nothing outside it counts
    inner_hw = mask_hw[box.slices]
    count, piece_hw = cv2.connectedComponents(inner_hw.astype(np.uint8), connectivity=8)
    pixels = [(int(click.row), int(click.col)) for click in clicks if click.positive]
    clicked = {
        int(piece_hw[row - box.row_min, col - box.col_min]) for row, col in pixels if mask_hw[row, col]
    }
    if count <= 2 or not clicked:
        return mask_hw
    clicked_hw = np.isin(piece_hw, list(clicked))
    away_hw = cv2.distanceTransform((~clicked_hw).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    area_px = np.count_nonzero(clicked_hw)
    near = np.unique(piece_hw[inner_hw & (away_hw <= NEAR_SHARE * np.sqrt(area_px))])
    large = np.flatnonzero(np.bincount(piece_hw[inner_hw]) >= PIECE_SHARE * area_px)
    kept_hw = np.zeros_like(mask_hw)
    kept_hw[box.slices] = np.isin(piece_hw, np.union1d(near, large))
    return kept_hw


def evenly_spaced(items: Sequence[Item], limit: int | None) -> list[Item]:
    """At most `limit` items at equal steps through a sequence, in its order.

    Args:
        items: What to choose from: masks, samples, pairs.
        limit: How many to take; None takes all.

    Example:
        >>> evenly_spaced("abcdefghi", 3)
        ['b', 'e', 'h']
    """
    count = len(items) if limit is None else min(limit, len(items))
    return [items[int((number + 0.5) * len(items) / count)] for number in range(count)]


def encode(mask_hw: BoolMask) -> dict[str, Any]:
    """A mask as compressed COCO run lengths.

    Returns:
        `size` [H, W] and `counts`, which is text: the result can be written as JSON.
    """
    rle = coco_mask.encode(np.asfortranarray(mask_hw.astype(np.uint8)))
    return {"size": [int(side) for side in rle["size"]], "counts": rle["counts"].decode()}


def decode(rle: dict[str, Any]) -> BoolMask:
    """The mask (H, W) of COCO run lengths as `encode` makes them.

    Example:
        >>> mask_hw = np.eye(3, dtype=bool)
        >>> np.array_equal(decode(encode(mask_hw)), mask_hw)
        True
    """
    return coco_mask.decode(rle).astype(bool)  # type: ignore[no-any-return]
