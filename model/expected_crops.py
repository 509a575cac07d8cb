"""Crops in which a reference lets its label be expected, so that they can be encoded before the first click.

A first click on something small is answered by two looks: at the whole image, and at a crop around the first mask
(`model.predictor`). Encoding that crop is most of what such a click costs. But where the label is, the reader often knows
without a click. The second look takes a crop that was expected, if it is about the one that the first mask asks for:

    whole image, reference -> reader, without a click -> places -> boxes -> expected crops, encoded when a task is opened
    first click            -> first mask -> its crop  -> the expected crop next to it, or itself

The crops depend on image and reference alone. So an answer is the same whether or not they were encoded beforehand.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from model.masks import bounding_box
from model.transforms import box_overlap, expanded_box
from model.types import BoolMask, Box

EXPECTED = 0.5
"""A patch belongs to the label if the reader's probability is larger."""
EXPECTED_PIECES = 1
"""Crops of single pieces, the largest ones, beside the crop of all places together."""
NEXT_TO = 0.7
"""Overlap (`model.transforms.box_overlap`) from which on an expected crop takes the place of another one. This and the
two numbers above were chosen on the development share and on faces."""


def expected_crops(
    probability_hw: NDArray[np.float32],
    image_size: tuple[int, int],
    *,
    largest_share: float,
    expansion: float,
    min_crop_px: int,
) -> tuple[Box, ...]:
    """Find the crops of an image in which a label is expected.

    Args:
        probability_hw: Probability of each patch of the whole image, float32 (rows, columns).
        image_size: Height and width of the image in pixels.
        largest_share: A box of at least this share of the image, in height or in width, gets no crop: masks of that size
            are looked at once.
        expansion: Size of a crop, relative to its box.
        min_crop_px: Smallest side of a crop, in image pixels.

    Returns:
        The crop of all places, then those of the largest pieces; empty if nothing is expected.
    """
    places_hw = np.asarray(probability_hw > EXPECTED)
    boxes = [_in_pixels(box, places_hw.shape, image_size) for box in _boxes(places_hw)]
    height, width = image_size
    small = [b for b in boxes if b.height < largest_share * height and b.width < largest_share * width]
    crops = [expanded_box(box, height, width, expansion=expansion, min_crop_px=min_crop_px) for box in small]
    return tuple(dict.fromkeys(crops))


def _boxes(places_hw: BoolMask) -> list[Box]:
    """Boxes of all places and of the largest pieces."""
    if not places_hw.any():
        return []
    count, _, stats, _ = cv2.connectedComponentsWithStats(places_hw.astype(np.uint8), connectivity=8)
    pieces = [] if count == 2 else sorted(stats[1:].tolist(), key=lambda piece: -piece[cv2.CC_STAT_AREA])
    return [
        bounding_box(places_hw),
        *(
            Box(top, top + height - 1, left, left + width - 1)
            for left, top, width, height, _ in pieces[:EXPECTED_PIECES]
        ),
    ]


def _in_pixels(box: Box, grid: tuple[int, ...], image_size: tuple[int, int]) -> Box:
    """A box of patches in pixels of the image."""
    down, across = image_size[0] / grid[0], image_size[1] / grid[1]
    return Box(
        int(box.row_min * down),
        min(image_size[0] - 1, int(np.ceil((box.row_max + 1) * down)) - 1),
        int(box.col_min * across),
        min(image_size[1] - 1, int(np.ceil((box.col_max + 1) * across)) - 1),
    )


def crop_next_to(wanted: Box, within: Box, crops: Sequence[Box]) -> Box:
    """Choose the crop for a second look.

    Args:
        wanted: The crop that the first mask asks for.
        within: Box around the first mask; a crop that cuts it off is not taken.
        crops: Expected crops.

    Returns:
        The expected crop that overlaps most with the wanted one; that itself if none is next to it.
    """
    near = [crop for crop in crops if crop.covers(within) and box_overlap(crop, wanted) >= NEXT_TO]
    return max(near, key=lambda crop: box_overlap(crop, wanted), default=wanted)
