"""Masks as regions that Label Studio shows and stores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from refcut_backend.core import brush_rle
from refcut_backend.core.label_config import TAGS, Control
from refcut_backend.core.polygons import Outline, OutlineSettings, mask_outlines


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
