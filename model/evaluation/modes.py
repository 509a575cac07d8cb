"""What a run is given beside its clicks: which reference, how many, how good, and how steady the hand is."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from model.types import BoolMask, RgbImage

ReferenceKind = Literal["right", "none", "positive", "negative", "wrong"]

MODE_GROUPS: dict[str, tuple[str, ...]] = {
    "table3": ("right", "none", "positive", "negative"),
    "references": ("right", "right+refs2", "right+refs4"),
    "figure5": (
        *(f"right+polygon{vertices}" for vertices in (32, 16, 8, 4)),
        *(f"right+scale{scale}" for scale in ("0.75", "0.5", "0.35", "0.25")),
    ),
    "hand": ("right+jitter", "none+jitter"),
}
MODE_GROUPS["all"] = tuple(
    dict.fromkeys(
        name
        for group in ("table3", "references", "figure5", "hand")
        for name in (*MODE_GROUPS[group], "wrong")
    )
)


@dataclass(frozen=True)
class Mode:
    """One way of running a sample.

    reference: "right" is the paper's (both masks); "positive" and "negative" leave the other mask out; "wrong" shows
        other parts of the reference object than those meant; "none" is clicks alone.
    references: how many are joined (fewer where the set has fewer).
    polygon_vertices: reference masks redrawn as polygons with at most so many corners a piece; None = as they are.
    scale: reference photographs shrunk by this factor onto a plain ground of the old size.
    jitter: clicks fall beside the middle of the error, as people's do.
    """

    name: str
    reference: ReferenceKind
    references: int = 1
    polygon_vertices: int | None = None
    scale: float = 1.0
    jitter: bool = False

    @classmethod
    def parse(cls, text: str) -> Mode:
        """A mode from its name: a reference kind, then `+refsN`, `+polygonN`, `+scaleF`, `+jitter` in any number.

        Raises ValueError for another name or a value out of range.
        """
        kind, *changes = text.split("+")
        if kind not in get_args(ReferenceKind):
            raise ValueError(
                f"unknown mode {text!r}: it must start with one of {', '.join(get_args(ReferenceKind))}"
            )
        given = dict(_parse_change(text, change) for change in changes)
        references, vertices = int(given.get("refs", 1)), given.get("polygon")
        scale = given.get("scale", 1.0)
        if not 0 < scale <= 1 or references < 1 or (vertices is not None and vertices < 4):
            raise ValueError(f"mode {text!r}: refs from 1, polygon from 4, scale in (0, 1]")
        if kind == "none" and set(given) - {"jitter"}:
            raise ValueError(f"mode {text!r}: without a reference there is nothing to change about it")
        return cls(
            name=text,
            reference=kind,  # type: ignore[arg-type]
            references=references,
            polygon_vertices=None if vertices is None else int(vertices),
            scale=scale,
            jitter="jitter" in given,
        )


def parse_modes(names: list[str]) -> list[Mode]:
    """Modes from names and names of groups (`MODE_GROUPS`), each once."""
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
    """A mask (H, W) redrawn as one filled polygon a piece; holes are filled.

    max_vertices: corners of a polygon at most, from 4.
    """
    contours, _ = cv2.findContours(mask_hw.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    drawn = np.zeros(mask_hw.shape, np.uint8)
    for contour in contours:
        cv2.fillPoly(drawn, [_simplified(np.asarray(contour, np.int32), max_vertices)], 1)
    return drawn > 0


def _simplified(contour: NDArray[np.int32], max_vertices: int) -> NDArray[np.int32]:
    """Douglas and Peucker's polygon of a contour (N, 1, 2) that is closest to it with few enough corners."""
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
    """A photograph (H, W, 3) made smaller in the middle of a plain ground of its mean colour and old size."""
    ground = np.empty_like(image)
    ground[:] = image.reshape(-1, 3).mean(axis=0).round().astype(np.uint8)
    height, width = image.shape[:2]
    size = max(1, round(width * scale)), max(1, round(height * scale))
    top, left = (height - size[1]) // 2, (width - size[0]) // 2
    ground[top : top + size[1], left : left + size[0]] = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return ground


def shrunk_mask(mask_hw: BoolMask, scale: float) -> BoolMask:
    """The mask (H, W) that belongs to `shrunk_image`. What covers less than half a pixel everywhere keeps its best."""
    height, width = mask_hw.shape
    size = max(1, round(width * scale)), max(1, round(height * scale))
    top, left = (height - size[1]) // 2, (width - size[0]) // 2
    small = cv2.resize(mask_hw.astype(np.float32), size, interpolation=cv2.INTER_AREA)
    out = np.zeros_like(mask_hw)
    if mask_hw.any():
        out[top : top + size[1], left : left + size[0]] = small >= min(0.5, float(small.max()))
    return out
