"""Requests recorded from Label Studio 1.23.2, and annotations made in their form."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refcut_backend.label_studio import brush_rle

REPOSITORY = Path(__file__).parents[2]
FIXTURES = REPOSITORY / "tests" / "fixtures"
LABEL_CONFIG = (REPOSITORY / "label_config" / "clicks_brush.xml").read_text()
PROJECT = {"id": 7, "label_config": LABEL_CONFIG}


def recorded(name: str) -> Any:
    """A recording as it was written."""
    return json.loads((FIXTURES / "label_studio_1_23" / f"{name}.json").read_text())


def backend_request(name: str, path: str) -> Any:
    """Body of the first request to `path` in an `api_*` recording."""
    return next(r["body"] for r in recorded(name)["backend_requests"] if r["path"] == path)


def brush_result(region_id: str, label: str, mask_hw: NDArray[np.bool_]) -> dict[str, Any]:
    """A brush region as a submitted annotation holds it."""
    return {
        "id": region_id,
        "type": "brushlabels",
        "from_name": "brush",
        "to_name": "image",
        "original_width": mask_hw.shape[1],
        "original_height": mask_hw.shape[0],
        "image_rotation": 0,
        "value": {"format": "rle", "rle": brush_rle.encode(mask_hw), "brushlabels": [label]},
    }


def role_result(region: dict[str, Any], role: str) -> dict[str, Any]:
    """The second result that Label Studio adds for a per-region choice: the same id, the RLE once more."""
    value = {"format": "rle", "rle": region["value"]["rle"], "choices": [role]}
    return {**region, "type": "choices", "from_name": "refcut_role", "value": value}


def second_label_result(region: dict[str, Any], label: str) -> dict[str, Any]:
    """The second result that Label Studio adds if a label for clicks is chosen when a mask is accepted."""
    value = {key: kept for key, kept in region["value"].items() if key != region["type"]}
    return {
        **region,
        "type": "keypointlabels",
        "from_name": "click",
        "value": {**value, "keypointlabels": [label]},
    }


def click_result(
    click_id: str, x: float, y: float, label: str, *, positive: bool | None = True
) -> dict[str, Any]:
    """A dot as the editor sends it; positive=None as after a reload, when the flag is lost."""
    dot: dict[str, Any] = {
        "id": click_id,
        "type": "keypointlabels",
        "from_name": "click",
        "to_name": "image",
        "original_width": 640,
        "original_height": 420,
        "value": {"x": x, "y": y, "width": 0.39, "keypointlabels": [label]},
    }
    return dot if positive is None else {**dot, "is_positive": positive}


def box_result(
    box_id: str,
    x: Any,
    y: Any,
    width: Any,
    height: Any,
    label: str,
    *,
    size: tuple[Any, Any] = (640, 420),
    rotation: Any = 0,
) -> dict[str, Any]:
    """A rectangle as the smart tool sends it. Not recorded: made after Label Studio's `RectRegion.serialize`."""
    return {
        "id": box_id,
        "type": "rectanglelabels",
        "from_name": "box",
        "to_name": "image",
        "original_width": size[0],
        "original_height": size[1],
        "image_rotation": 0,
        "value": {
            "x": x,
            "y": y,
            "width": width,
            "height": height,
            "rotation": rotation,
            "rectanglelabels": [label],
        },
    }
