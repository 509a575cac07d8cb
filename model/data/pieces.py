"""The pieces of a photograph: what is labelled separately, and what lies apart though it is labelled at once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import cv2
import numpy as np

from model.data.annotated_objects import AnnotatedObject
from model.masks import bounding_box, decode, union
from model.types import BoolMask, RgbImage

LARGE_AREA = 0.2
"""A connected area of a part is a piece of its own from this share of the part on."""


@dataclass(frozen=True)
class Photograph:
    """An image with its labelled pieces, each under a key of its own.

    Attributes:
        image: RGB (H, W, 3), uint8.
        masks: Masks (H, W) by key, each with at least one pixel.
        names: Name of the part that a piece belongs to, by key.
        objects: Object that a piece belongs to, by key, where one was pasted in (`model.data.pasting`).
    """

    image: RgbImage
    masks: dict[str, BoolMask]
    names: dict[str, str]
    objects: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, annotated_object: AnnotatedObject, *, separate: bool) -> Photograph:
        """Read an image and decode its pieces.

        Args:
            annotated_object: The image and its annotations; each annotation of a part is a piece.
            separate: Whether an annotation with two or more large separate areas counts as that many pieces, as where a
                set labels both shoes at once.

        Raises:
            DataError: If the image cannot be read.
        """
        masks: dict[str, BoolMask] = {}
        names: dict[str, str] = {}
        for name, rles in annotated_object.part_rles.items():
            for rle in rles:
                mask = decode(rle)
                for piece in separate_areas(mask) if separate else [mask]:
                    if piece.any():
                        key = f"{name}\0{len(masks)}" if name in masks else name
                        masks[key], names[key] = piece, name
        return cls(annotated_object.image(), masks, names)

    def keys_of(self, name: str) -> list[str]:
        """Keys of the pieces of a part."""
        return [key for key, own in self.names.items() if own == name]

    def union(self, keys: Iterable[str]) -> BoolMask:
        """The pixels (H, W) of some pieces."""
        height, width, _ = self.image.shape
        return union([self.masks[key] for key in keys], (height, width))


def separate_areas(mask_hw: BoolMask) -> list[BoolMask]:
    """Split a mask into its large connected areas. Smaller areas stay with the nearest large one.

    Args:
        mask_hw: Mask (H, W).

    Returns:
        Masks (H, W) that make up `mask_hw`; `mask_hw` itself where it has fewer than two large areas.
    """
    if not mask_hw.any():
        return [mask_hw]
    cut = bounding_box(mask_hw).slices
    inside = np.ascontiguousarray(mask_hw[cut]).view(np.uint8)
    _, labels, stats, centres = cv2.connectedComponentsWithStats(inside, connectivity=8)
    areas = stats[:, cv2.CC_STAT_AREA].astype(float)
    areas[0] = 0
    large = np.flatnonzero(areas >= LARGE_AREA * areas.sum())
    if len(large) < 2:
        return [mask_hw]
    distance = np.linalg.norm(centres[:, None] - centres[None, large], axis=2)
    owner = large[distance.argmin(axis=1)]
    owner[large] = large
    owner[0] = 0
    pieces = []
    for number in large:
        piece = np.zeros_like(mask_hw)
        piece[cut] = owner[labels] == number
        pieces.append(piece)
    return pieces
