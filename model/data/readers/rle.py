"""Masks as the COCO run lengths in which scenes keep them."""

from __future__ import annotations

from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from model.array_types import BoolMask


def encode(mask_hw: BoolMask) -> dict[str, Any]:
    """A mask (H, W) as compressed COCO RLE; `counts` is text, so that it can be written as JSON."""
    rle = coco_mask.encode(np.asfortranarray(mask_hw.astype(np.uint8)))
    return {"size": [int(side) for side in rle["size"]], "counts": rle["counts"].decode()}


def decode(rle: dict[str, Any]) -> BoolMask:
    """The mask (H, W) of an RLE."""
    return coco_mask.decode(rle).astype(bool)  # type: ignore[no-any-return]
