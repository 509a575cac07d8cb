"""Masks as regions that Label Studio shows and stores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from refcut_backend.core.clicks import ClickedObject
from refcut_backend.core.label_config import Control


def brush_region(
    clicked: ClickedObject,
    control: Control,
    *,
    rle: Sequence[int],
    width: int,
    height: int,
    score: float,
    reference_versions: Sequence[str],
) -> dict[str, Any]:
    """A brush region as Label Studio 1.23 renders it (contract, section 3).

    `origin` keeps "prediction" as provenance, and `meta.text` names the references, both survive into the annotation.
    """
    said = ", ".join(reference_versions) if reference_versions else "none"
    return {
        "id": clicked.region_id,
        "from_name": control.name,
        "to_name": control.to_name,
        "type": "brushlabels",
        "original_width": width,
        "original_height": height,
        "image_rotation": 0,
        "score": round(score, 4),
        "origin": "prediction",
        "readonly": False,
        "meta": {"text": [f"RefCut reference: {said}"]},
        "value": {"format": "rle", "rle": list(rle), "brushlabels": [clicked.label]},
    }


def prediction(model_version: str, regions: Sequence[dict[str, Any]], score: float) -> dict[str, Any]:
    """One entry of `results` in the answer to /predict; no regions = nothing to show, and no error."""
    return {"model_version": model_version, "score": round(score, 4), "result": list(regions)}
