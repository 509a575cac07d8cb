"""Regions of an annotation as masks, whichever tool they were drawn with."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from refcut_backend.errors import BadMaskError
from refcut_backend.label_studio import brush_rle
from refcut_backend.label_studio.label_config import TAGS, Control, ProjectControls
from refcut_backend.label_studio.polygons import Outline, OutlineSettings, mask_outlines


def count_mask_regions(result: Sequence[dict[str, Any]], controls: ProjectControls) -> int:
    """How many of an annotation's regions were drawn with a tool that takes masks."""
    return sum(_is_mask(item, controls) for item in result)


def _is_mask(item: dict[str, Any], controls: ProjectControls) -> bool:
    """Rectangles of the smart tool are prompts and no masks."""
    mask_tools = {control.name for control in controls.masks}
    return item.get("type") in REGION_KINDS and item.get("from_name") in mask_tools


MAX_MASK_PIXELS = 100_000_000
MAX_EDGE_PX = 1_000_000
"""Up to here a corner as far outside as MAX_PERCENT, in fractions of a pixel, is a number that OpenCV can take."""
MAX_POINTS = 100_000
MAX_PERCENT = 1000.0
"""Farther outside the image than this, a corner is not a slip of the hand but nonsense."""
_SUBPIXEL_BITS = 4
_DRAW_AGAIN = "draw the region again"

Corners = NDArray[np.float64]


@dataclass(frozen=True)
class Region:
    """A region that can be a mask. width, height: of its image in pixels, as the browser shows it."""

    kind: str
    labels: tuple[str, ...]
    to_name: str
    width: int
    height: int
    role: str | None
    value: dict[str, Any]

    def mask_hw(self) -> NDArray[np.bool_]:
        """The region as a mask (H, W). Raises BadMaskError when it cannot be one."""
        return _DRAWN[self.kind](self)


def read_region(item: dict[str, Any], role: str | None) -> Region | None:
    """A result as a region; None for results of other kinds. Raises BadMaskError when label or size are missing."""
    kind = item.get("type")
    if not isinstance(kind, str) or kind not in _DRAWN:
        return None
    try:
        height, width = int(item["original_height"]), int(item["original_width"])
        labels = item["value"][kind]
    except (KeyError, TypeError, ValueError, OverflowError):
        raise BadMaskError("a region lacks its labels or its image's size", hint=_DRAW_AGAIN) from None
    if not isinstance(labels, list):
        raise BadMaskError("a region's labels are not a list", hint=_DRAW_AGAIN)
    if min(height, width) < 1 or max(height, width) > MAX_EDGE_PX or height * width > MAX_MASK_PIXELS:
        raise BadMaskError(f"a region claims an image of {width} x {height} px", hint=_DRAW_AGAIN)
    return Region(
        kind, tuple(map(str, labels)), str(item.get("to_name", "")), width, height, role, item["value"]
    )


def _brush(region: Region) -> NDArray[np.bool_]:
    return brush_rle.decode(region.value.get("rle", ()), region.height, region.width)


def _polygon_mask(region: Region) -> NDArray[np.bool_]:
    points = region.value.get("points")
    if not isinstance(points, Sequence) or not 3 <= len(points) <= MAX_POINTS:
        raise BadMaskError(f"a polygon needs 3 to {MAX_POINTS} points", hint=_DRAW_AGAIN)
    return _filled(_pixels(points, region), region)


def _rectangle_mask(region: Region) -> NDArray[np.bool_]:
    """x, y: the corner that the rectangle turns about, clockwise by `rotation` degrees on the image."""
    value = region.value
    try:
        numbers = [float(value[name]) for name in ("x", "y", "width", "height")]
        turn = math.radians(float(value.get("rotation") or 0.0))
    except (KeyError, TypeError, ValueError):
        raise BadMaskError("a rectangle lacks place or size", hint=_DRAW_AGAIN) from None
    if not math.isfinite(turn):
        raise BadMaskError("a rectangle's rotation is no angle", hint=_DRAW_AGAIN)
    # Turned in pixels: percent of width and of height are different lengths.
    (left, top), (width, height) = _pixels([numbers[:2], numbers[2:]], region)
    along = np.array([math.cos(turn), math.sin(turn)]) * width
    across = np.array([-math.sin(turn), math.cos(turn)]) * height
    corner = np.array([left, top])
    return _filled(np.array([corner, corner + along, corner + along + across, corner + across]), region)


def _pixels(points_percent: Sequence[Any], region: Region) -> Corners:
    """Points in percent (N, 2) as x, y in pixels of the image."""
    try:
        percent = np.asarray(points_percent, np.float64)
    except (TypeError, ValueError):
        raise BadMaskError("a region's points are not numbers", hint=_DRAW_AGAIN) from None
    if percent.ndim != 2 or percent.shape[1] != 2 or not (np.abs(percent) <= MAX_PERCENT).all():
        raise BadMaskError("a region's points do not lie on its image", hint=_DRAW_AGAIN)
    pixels: Corners = percent / 100 * np.array([region.width, region.height])
    return pixels


def _filled(corners_xy: Corners, region: Region) -> NDArray[np.bool_]:
    mask = np.zeros((region.height, region.width), np.uint8)
    # OpenCV's coordinates are those of pixel centres.
    fixed = np.round((corners_xy - 0.5) * 2**_SUBPIXEL_BITS).astype(np.int32)
    cv2.fillPoly(mask, [fixed], 1, shift=_SUBPIXEL_BITS)
    return mask > 0


_DRAWN: dict[str, Callable[[Region], NDArray[np.bool_]]] = {
    "brushlabels": _brush,
    "polygonlabels": _polygon_mask,
    "rectanglelabels": _rectangle_mask,
}
REGION_KINDS = frozenset(_DRAWN)


@dataclass(frozen=True)
class GivenMask:
    """A mask as a worker gave it: brush RLE of an image of that size, and what it was made with."""

    width: int
    height: int
    rle: Sequence[int]
    score: float
    reference_versions: Sequence[str]


def mask_regions(
    region_id: str, label: str, control: Control, given: GivenMask, settings: OutlineSettings
) -> list[dict[str, Any]]:
    """A mask as what its control takes (contract, section 3); none for an empty mask.

    A brush mask is one region. A polygon has neither holes nor gaps: holes are filled, and each piece of the mask is a
    region of its own, the largest with the object's id, the others with -2, -3, ... after it. A rectangle is one region
    round the pieces that are no specks.

    `origin` keeps "prediction" as provenance, and `meta.text` names the references; both survive into the annotation.
    """
    if not given.rle:
        return []
    if control.kind == "brush":
        values = [{"format": "rle", "rle": list(given.rle)}]
    else:
        outlines = mask_outlines(brush_rle.decode(given.rle, given.height, given.width), settings)
        values = [_polygon(o) for o in outlines] if control.kind == "polygon" else [_rectangle(outlines)]
    return [
        _region(piece_id(region_id, number), label, control, given, value)
        for number, value in enumerate(values, start=1)
    ]


def piece_id(region_id: str, number: int) -> str:
    """Id of a mask's piece, counted from 1."""
    return region_id if number == 1 else f"{region_id}-{number}"


def prediction(model_version: str, regions: Sequence[dict[str, Any]], score: float) -> dict[str, Any]:
    """One entry of `results` in the answer to /predict; no regions = nothing to show, and no error."""
    return {"model_version": model_version, "score": round(score, 4), "result": list(regions)}


def _region(
    region_id: str, label: str, control: Control, given: GivenMask, value: dict[str, Any]
) -> dict[str, Any]:
    region_type = TAGS[control.kind].lower()  # type: ignore[index]
    said = ", ".join(given.reference_versions) if given.reference_versions else "none"
    return {
        "id": region_id,
        "from_name": control.name,
        "to_name": control.to_name,
        "type": region_type,
        "original_width": given.width,
        "original_height": given.height,
        "image_rotation": 0,
        "score": round(given.score, 4),
        "origin": "prediction",
        "readonly": False,
        "meta": {"text": [f"RefCut reference: {said}"]},
        "value": {**value, region_type: [label]},
    }


def _polygon(outline: Outline) -> dict[str, Any]:
    return {"points": outline.round(4).tolist(), "closed": True}


def _rectangle(outlines: Sequence[Outline]) -> dict[str, Any]:
    corners = np.concatenate(list(outlines))
    (left, top), (right, bottom) = corners.min(axis=0), corners.max(axis=0)
    box = {"x": left, "y": top, "width": right - left, "height": bottom - top}
    return {key: round(float(number), 4) for key, number in box.items()} | {"rotation": 0}
