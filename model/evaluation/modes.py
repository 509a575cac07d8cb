"""The modes of an evaluation: which reference a sample gets, how many, of which quality, and how precise the clicks are.

Some modes begin with a mask that a reference gives without a click (`FirstMask`); clicks then refine it. A mode is
written as a name such as `right+refs2` or `none+jitter` (`Mode.parse`); `MODE_GROUPS` names sets of modes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from model.types import BoolMask, RgbImage

ReferenceKind = Literal["right", "none", "positive", "negative", "wrong"]
FirstMask = Literal["alone", "nearest", "prototype"]
"""A mask before the first click: "alone" is the network's own without a click, and clicks refine it with the reference.
"nearest" and "prototype" match frozen features (`model.evaluation.first_masks`); clicks refine it without a reference.
"""

MODE_GROUPS: dict[str, tuple[str, ...]] = {
    "table2": ("right", "none", "alone", "nearest", "prototype"),
    "table3": ("right", "none", "positive", "negative"),
    "references": ("right", "right+refs2", "right+refs4", "right+refs8"),
    "figure5": tuple(
        f"{kind}{change}"
        for kind in ("right", "positive", "negative")
        for change in (
            "",
            *(f"+polygon{vertices}" for vertices in (32, 16, 8, 4)),
            *(f"+scale{scale}" for scale in ("0.75", "0.5", "0.35", "0.25")),
        )
    ),
    "hand": ("right+jitter", "none+jitter"),
}
MODE_GROUPS["all"] = tuple(
    dict.fromkeys(
        name
        for group in ("table2", "table3", "references", "figure5", "hand")
        for name in (*MODE_GROUPS[group], "wrong")
    )
)


@dataclass(frozen=True)
class Mode:
    """One way of running a sample.

    Attributes:
        name: The name that it was parsed from.
        reference: "right" is the paper's (both masks); "positive" and "negative" leave the other mask out; "wrong" shows
            other parts of the reference object than the target's; "none" is clicks alone.
        references: Number of references that are pooled (fewer if the set has fewer).
        polygon_vertices: Reference masks are redrawn as polygons with at most this number of corners per connected
            piece; None leaves them as they are.
        scale: Reference images are shrunk by this factor and placed on a plain background of the old size.
        jitter: Clicks fall beside the middle of the error, as people's do.
        first_mask: Mask before the first click; None begins without.

    Example:
        >>> Mode.parse("right+refs2").references
        2
        >>> Mode.parse("alone").reference
        'right'
    """

    name: str
    reference: ReferenceKind
    references: int = 1
    polygon_vertices: int | None = None
    scale: float = 1.0
    jitter: bool = False
    first_mask: FirstMask | None = None

    @classmethod
    def parse(cls, text: str) -> Mode:
        """Parse the name of a mode.

        Args:
            text: A reference kind or a first mask, then any of `+refsN`, `+polygonN`, `+scaleF` and `+jitter`.

        Raises:
            ValueError: If the name is unknown or a value is out of range.
        """
        kind, *changes = text.split("+")
        kinds = (*get_args(ReferenceKind), *get_args(FirstMask))
        if kind not in kinds:
            raise ValueError(f"unknown mode {text!r}: it must start with one of {', '.join(kinds)}")
        given = dict(_parse_change(text, change) for change in changes)
        references, vertices = int(given.get("refs", 1)), given.get("polygon")
        scale = given.get("scale", 1.0)
        if not 0 < scale <= 1 or references < 1 or (vertices is not None and vertices < 4):
            raise ValueError(f"mode {text!r}: refs from 1, polygon from 4, scale in (0, 1]")
        if kind == "none" and set(given) - {"jitter"}:
            raise ValueError(f"mode {text!r}: without a reference there is nothing to change about it")
        return cls(
            name=text,
            reference="right" if kind in get_args(FirstMask) else kind,  # type: ignore[arg-type]
            references=references,
            polygon_vertices=None if vertices is None else int(vertices),
            scale=scale,
            jitter="jitter" in given,
            first_mask=kind if kind in get_args(FirstMask) else None,  # type: ignore[arg-type]
        )


def parse_modes(names: list[str]) -> list[Mode]:
    """Parse names of modes and of groups (`MODE_GROUPS`); each mode is returned once.

    Raises:
        ValueError: If a name is unknown.
    """
    spelled = dict.fromkeys(name for text in names for name in MODE_GROUPS.get(text, (text,)))
    return [Mode.parse(name) for name in spelled]


def _parse_change(mode: str, change: str) -> tuple[str, float]:
    if change == "jitter":
        return change, 1.0
    found = re.fullmatch(r"(refs|polygon)(\d+)|(scale)(\d*\.?\d+)", change)
    if found is None:
        raise ValueError(f"mode {mode!r}: unknown change {change!r} (refsN, polygonN, scaleF, jitter)")
    return found[1] or found[3], float(found[2] or found[4])


def as_polygons(mask_hw: BoolMask, max_vertices: int) -> BoolMask:
    """Redraw a mask as one filled polygon per connected piece; holes are filled.

    Args:
        mask_hw: The mask (H, W).
        max_vertices: Most corners of a polygon, from 4.
    """
    contours, _ = cv2.findContours(mask_hw.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    drawn = np.zeros(mask_hw.shape, np.uint8)
    for contour in contours:
        cv2.fillPoly(drawn, [_simplified(np.asarray(contour, np.int32), max_vertices)], 1)
    return drawn > 0


def _simplified(contour: NDArray[np.int32], max_vertices: int) -> NDArray[np.int32]:
    """Search the Douglas-Peucker polygon that is closest to a contour (N, 1, 2) with few enough corners."""
    low, high = 0.0, cv2.arcLength(contour, True)
    best = cv2.approxPolyDP(contour, high, True)
    for _ in range(16):
        middle = (low + high) / 2
        polygon = cv2.approxPolyDP(contour, middle, True)
        if len(polygon) <= max_vertices:
            best, high = polygon, middle
        else:
            low = middle
    if len(best) < 3 <= len(contour):
        best = cv2.boxPoints(cv2.minAreaRect(contour)).round()[:, None]
    return np.asarray(best, np.int32)


def shrunk_image(image: RgbImage, scale: float) -> RgbImage:
    """Shrink an image onto the middle of a background of its mean colour.

    Args:
        image: RGB (H, W, 3).
        scale: Factor in (0, 1].

    Returns:
        RGB (H, W, 3) of the same size.
    """
    ground = np.empty_like(image)
    ground[:] = image.reshape(-1, 3).mean(axis=0).round().astype(np.uint8)
    height, width = image.shape[:2]
    size = max(1, round(width * scale)), max(1, round(height * scale))
    top, left = (height - size[1]) // 2, (width - size[0]) // 2
    ground[top : top + size[1], left : left + size[0]] = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return ground


def shrunk_mask(mask_hw: BoolMask, scale: float) -> BoolMask:
    """Shrink a mask (H, W) as `shrunk_image` does its image.

    A pixel is inside if it is covered by half or more. A mask that covers no pixel by half keeps the pixels that it
    covers most.
    """
    height, width = mask_hw.shape
    size = max(1, round(width * scale)), max(1, round(height * scale))
    top, left = (height - size[1]) // 2, (width - size[0]) // 2
    small = cv2.resize(mask_hw.astype(np.float32), size, interpolation=cv2.INTER_AREA)
    out = np.zeros_like(mask_hw)
    if mask_hw.any():
        out[top : top + size[1], left : left + size[0]] = small >= min(0.5, float(small.max()))
    return out
