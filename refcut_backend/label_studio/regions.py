"""Converts between Label Studio's regions and masks: brush strokes, polygons and rectangles, in both directions.

`Region` reads a region of an annotation as a mask. `mask_regions` writes a mask as the regions of a prediction.
"""

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
from refcut_backend.label_studio.label_config import TAGS, Control, ProjectControls, image_of_item
from refcut_backend.label_studio.polygons import Outline, OutlineSettings, mask_outlines

UNFORESEEN = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
"""What reading an annotation may raise if it has a form that `check_result` does not know."""


def check_result(result: Sequence[Any]) -> None:
    """Checks that the items of an annotation have the form that Label Studio's editor gives them.

    Label Studio stores whatever its API is given. An item of another form may be a part of any mask in the annotation, so
    none of them can be used.

    Raises:
        BadMaskError: An item has another form. The message names the item, not its content.
    """
    for number, item in enumerate(result, start=1):
        if not isinstance(item, dict):
            raise BadMaskError(f"item {number} of its result is not an object", hint=_REPAIR)
        for key in ("type", "from_name", "to_name"):
            if not isinstance(item.get(key), str | None):
                raise BadMaskError(f"'{key}' of item {number} of its result is not text", hint=_REPAIR)
        if not isinstance(item.get("value"), dict | None):
            raise BadMaskError(f"'value' of item {number} of its result is not an object", hint=_REPAIR)


def count_mask_regions(result: Sequence[dict[str, Any]], controls: ProjectControls) -> int:
    """Returns the number of an annotation's regions that were drawn with a tool for masks."""
    return sum(is_mask_region(item, controls) for item in result)


def is_mask_region(item: dict[str, Any], controls: ProjectControls) -> bool:
    """Whether an item of a `result` was drawn with a tool for masks; rectangles of a smart tool are prompts."""
    mask_tools = {control.name for control in controls.masks}
    return item.get("type") in REGION_KINDS and item.get("from_name") in mask_tools


def second_labels(result: Sequence[dict[str, Any]], controls: ProjectControls) -> list[dict[str, Any]]:
    """Returns the labels of click and box tools that Label Studio stored with masks, as items of a `result`.

    Label Studio gives a suggestion that is accepted the label that is chosen at that moment, of whichever tool. So a mask
    that is accepted while a label for clicks is chosen has that label as a second one: an item with the mask's id that
    repeats the mask's value.
    """
    masks = {str(item.get("id")) for item in result if is_mask_region(item, controls)}
    prompt_tools = {control.name for control in (*controls.clicks, *controls.boxes)}
    return [item for item in result if item.get("from_name") in prompt_tools and str(item.get("id")) in masks]


MAX_MASK_PIXELS = 100_000_000
MAX_EDGE_PX = 1_000_000
"""Up to this edge, a corner at MAX_PERCENT in fractions of a pixel still fits into the integers that OpenCV uses."""
MAX_POINTS = 100_000
MAX_PERCENT = 1000.0
"""A corner farther outside the image than this is an error, not a slip of the hand."""
_SUBPIXEL_BITS = 4
_DRAW_AGAIN = "draw the region again"
_REPAIR = "Label Studio's API was given it: correct it there, or delete the annotation"

Corners = NDArray[np.float64]


@dataclass(frozen=True)
class Region:
    """A region that can be a mask.

    Attributes:
        kind: Label Studio's type: "brushlabels", "polygonlabels" or "rectanglelabels".
        labels: Labels of the region.
        to_name: Name of the image that it is on (`image_name`).
        width: Width in pixels of its image, as the browser shows it.
        height: Height in pixels of its image, as the browser shows it.
        role: The choice that was made for it: "Reference", "Negative reference" or None.
        value: Its `value` as Label Studio sent it.
    """

    kind: str
    labels: tuple[str, ...]
    to_name: str
    width: int
    height: int
    role: str | None
    value: dict[str, Any]

    def mask_hw(self) -> NDArray[np.bool_]:
        """Returns the region as a mask (height, width). Raises BadMaskError if its value is damaged."""
        return _TO_MASK[self.kind](self)


def read_region(item: dict[str, Any], role: str | None) -> Region | None:
    """Reads an item of a `result` as a region.

    Args:
        item: The item.
        role: The choice that was made for the region, if any.

    Returns:
        The region; None for items that are not brush, polygon or rectangle regions.

    Raises:
        BadMaskError: Labels or image size are missing or impossible.
    """
    kind = item.get("type")
    if not isinstance(kind, str) or kind not in _TO_MASK:
        return None
    try:
        height, width = int(item["original_height"]), int(item["original_width"])
        labels = item["value"][kind]
    except (KeyError, TypeError, ValueError, OverflowError):
        raise BadMaskError("a region lacks its labels or its image's size", hint=_DRAW_AGAIN) from None
    if not isinstance(labels, list):
        raise BadMaskError("a region's labels are not a list", hint=_DRAW_AGAIN)
    if min(height, width) < 1 or max(height, width) > MAX_EDGE_PX or height * width > MAX_MASK_PIXELS:
        raise BadMaskError("a region's image has an impossible size", hint=_DRAW_AGAIN)
    return Region(kind, tuple(map(str, labels)), image_of_item(item), width, height, role, item["value"])


def _brush(region: Region) -> NDArray[np.bool_]:
    return brush_rle.decode(region.value.get("rle", ()), region.height, region.width)


def _polygon_mask(region: Region) -> NDArray[np.bool_]:
    points = region.value.get("points")
    if not isinstance(points, Sequence) or not 3 <= len(points) <= MAX_POINTS:
        raise BadMaskError(f"a polygon needs 3 to {MAX_POINTS} points", hint=_DRAW_AGAIN)
    return _filled(_pixels(points, region), region)


def _rectangle_mask(region: Region) -> NDArray[np.bool_]:
    """The rectangle is rotated about its corner (x, y), clockwise by `rotation` degrees in the image."""
    value = region.value
    try:
        numbers = [float(value[name]) for name in ("x", "y", "width", "height")]
        angle = math.radians(float(value.get("rotation") or 0.0))
    except (KeyError, TypeError, ValueError, OverflowError):
        raise BadMaskError("a rectangle lacks its position or size", hint=_DRAW_AGAIN) from None
    if not math.isfinite(angle):
        raise BadMaskError("a rectangle's rotation is not a number", hint=_DRAW_AGAIN)
    # Rotated in pixels, because percent of the width and percent of the height are different lengths.
    (left, top), (width, height) = _pixels([numbers[:2], numbers[2:]], region)
    along = np.array([math.cos(angle), math.sin(angle)]) * width
    across = np.array([-math.sin(angle), math.cos(angle)]) * height
    corner = np.array([left, top])
    return _filled(np.array([corner, corner + along, corner + along + across, corner + across]), region)


def _pixels(points_percent: Sequence[Any], region: Region) -> Corners:
    """Converts points (N, 2) from percent to x, y in pixels of the image."""
    try:
        percent = np.asarray(points_percent, np.float64)
    except (TypeError, ValueError, OverflowError):
        raise BadMaskError("a region's points are not numbers", hint=_DRAW_AGAIN) from None
    if percent.ndim != 2 or percent.shape[1] != 2 or not (np.abs(percent) <= MAX_PERCENT).all():
        raise BadMaskError("a region's points do not lie on its image", hint=_DRAW_AGAIN)
    pixels: Corners = percent / 100 * np.array([region.width, region.height])
    return pixels


def _filled(corners_xy: Corners, region: Region) -> NDArray[np.bool_]:
    mask = np.zeros((region.height, region.width), np.uint8)
    # OpenCV's coordinates refer to pixel centres.
    fixed = np.round((corners_xy - 0.5) * 2**_SUBPIXEL_BITS).astype(np.int32)
    cv2.fillPoly(mask, [fixed], 1, shift=_SUBPIXEL_BITS)
    return mask > 0


_TO_MASK: dict[str, Callable[[Region], NDArray[np.bool_]]] = {
    "brushlabels": _brush,
    "polygonlabels": _polygon_mask,
    "rectanglelabels": _rectangle_mask,
}
REGION_KINDS = frozenset(_TO_MASK)


def joined_mask(regions: Sequence[Region], height: int, width: int) -> NDArray[np.bool_]:
    """Returns the union of regions as a mask (height, width); an empty mask for no region.

    Raises:
        BadMaskError: A region has another image size, or its value is damaged.
    """
    joined = np.zeros((height, width), bool)
    for region in regions:
        if (region.height, region.width) != (height, width):
            raise BadMaskError("regions of one annotation have different image sizes", hint="draw them again")
        joined |= region.mask_hw()
    return joined


@dataclass(frozen=True)
class GivenMask:
    """A mask as a worker returns it.

    Attributes:
        width: Width of the image in pixels.
        height: Height of the image in pixels.
        rle: Brush RLE of the mask; empty for an empty mask.
        score: The model's confidence, 0..1.
        reference_versions: Versions of the references that were used.
        references_left_out: One sentence for each reference that could not be used.
    """

    width: int
    height: int
    rle: Sequence[int]
    score: float
    reference_versions: Sequence[str]
    references_left_out: Sequence[str] = ()


def mask_regions(
    region_id: str, label: str, control: Control, given: GivenMask, settings: OutlineSettings
) -> list[dict[str, Any]]:
    """Converts a mask to regions of the kind that its control takes (contract, section 3).

    A brush mask becomes one region. Polygons have no holes: holes are filled, and each connected piece of the mask
    becomes a region, the largest with the object's id, the others with "-2", "-3", ... appended. A rectangle encloses all
    pieces except specks.

    The annotation keeps `origin`, which marks the region as a prediction, and `meta.text`, which names the references and
    says why one could not be used.

    Args:
        region_id: The object's id.
        label: Label of the regions.
        control: The control tag that takes the regions.
        given: The mask.
        settings: How closely outlines follow the mask.

    Returns:
        Items of a prediction's `result`; empty for an empty mask.
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


@dataclass(frozen=True)
class BrushRegion:
    """A region as an annotator paints it, with the controls of `label_config/clicks_brush.xml`.

    Attributes:
        id: Region id.
        label: Label of the region.
        mask_hw: Mask (H, W) in the pixels of the image.
        role: The per-region choice, such as "Reference"; None without one.
    """

    id: str
    label: str
    mask_hw: NDArray[np.bool_]
    role: str | None = None

    def results(self) -> list[dict[str, Any]]:
        """The results that Label Studio stores for the region: one, or two with the same id if it has a role."""
        height, width = self.mask_hw.shape
        common = {"id": self.id, "to_name": "image", "origin": "manual", "image_rotation": 0}
        common |= {"original_width": width, "original_height": height}
        value = {"format": "rle", "rle": brush_rle.encode(self.mask_hw)}
        region = common | {"from_name": "brush", "type": "brushlabels"}
        results = [region | {"value": value | {"brushlabels": [self.label]}}]
        if self.role is not None:
            # Label Studio's editor repeats the whole RLE here.
            choice = common | {"from_name": "refcut_role", "type": "choices"}
            results.append(choice | {"value": value | {"choices": [self.role]}})
        return results


def piece_id(region_id: str, number: int) -> str:
    """Returns the region id of a mask's piece, counted from 1."""
    return region_id if number == 1 else f"{region_id}-{number}"


def prediction(model_version: str, regions: Sequence[dict[str, Any]], score: float) -> dict[str, Any]:
    """Builds an entry of `results` in the answer to /predict. Without regions, Label Studio shows nothing."""
    return {"model_version": model_version, "score": round(score, 4), "result": list(regions)}


def _region(
    region_id: str, label: str, control: Control, given: GivenMask, value: dict[str, Any]
) -> dict[str, Any]:
    region_type = TAGS[control.kind].lower()  # type: ignore[index]
    versions = ", ".join(given.reference_versions) if given.reference_versions else "none"
    on_page = {} if control.page is None else {"item_index": control.page}
    return {
        **on_page,
        "id": region_id,
        "from_name": control.name,
        "to_name": control.image_tag,
        "type": region_type,
        "original_width": given.width,
        "original_height": given.height,
        "image_rotation": 0,
        "score": round(given.score, 4),
        "origin": "prediction",
        "readonly": False,
        "meta": {"text": [f"RefCut reference: {versions}", *_left_out(given)]},
        "value": {**value, region_type: [label]},
    }


def _left_out(given: GivenMask) -> list[str]:
    return [f"RefCut reference left out: {sentence}" for sentence in given.references_left_out]


def _polygon(outline: Outline) -> dict[str, Any]:
    return {"points": outline.round(4).tolist(), "closed": True}


def _rectangle(outlines: Sequence[Outline]) -> dict[str, Any]:
    corners = np.concatenate(list(outlines))
    (left, top), (right, bottom) = corners.min(axis=0), corners.max(axis=0)
    box = {"x": left, "y": top, "width": right - left, "height": bottom - top}
    return {key: round(float(number), 4) for key, number in box.items()} | {"rotation": 0}
