"""What a submitted annotation teaches: one mask for each of its labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refcut_backend.label_studio.label_config import NEGATIVE_REFERENCE_CHOICE, ProjectControls
from refcut_backend.label_studio.prompts import to_pixel
from refcut_backend.label_studio.regions import Region, is_mask_region, joined_mask, read_region
from refcut_backend.references.parse import region_roles


@dataclass(frozen=True)
class LabelMask:
    """All of a label in one annotation on one image (H, W), as the browser shows it. region_ids: what it came from."""

    label: str
    mask_hw: NDArray[np.bool_]
    region_ids: tuple[str, ...]


def read_training_masks(
    result: Sequence[dict[str, Any]], controls: ProjectControls
) -> dict[str, list[LabelMask]]:
    """Image tag to the masks on it, one a label, by label. Labels that left the label config are left out, and so are
    regions marked "Negative reference": those show what the label does not mean.

    Raises BadMaskError when any region is damaged: a label with a piece missing would teach something false.
    """
    roles = region_roles(result, controls.roles)
    regions: dict[tuple[str, str], list[tuple[str, Region]]] = {}
    for item in result:
        region_id = str(item.get("id"))
        if not is_mask_region(item, controls) or roles.get(region_id) == NEGATIVE_REFERENCE_CHOICE:
            continue
        region = read_region(item, None)
        for label in region.labels if region is not None else ():
            if region is not None and controls.region_control(label, region.to_name) is not None:
                regions.setdefault((region.to_name, label), []).append((region_id, region))
    found: dict[str, list[LabelMask]] = {}
    for (to_name, label), drawn in sorted(regions.items()):
        regions_of_label = [region for _, region in drawn]
        height, width = regions_of_label[0].height, regions_of_label[0].width
        mask_hw = joined_mask(regions_of_label, height, width)
        if mask_hw.any():
            found.setdefault(to_name, []).append(LabelMask(label, mask_hw, tuple(id for id, _ in drawn)))
    return found


def click_sessions(
    region_ids: Sequence[str], clicks_of: Mapping[str, Sequence[Sequence[Any]]], height: int, width: int
) -> list[list[list[float]]]:
    """The logged clicks that regions came from: a session each, [row, column, 1 or 0] in pixels of an image of that
    size.

    clicks_of: region id as it was answered to [id, x, y, positive] in percent. A polygon's pieces (-2, -3, ... after the
    id) came from one session.
    """
    sessions: dict[str, list[list[float]]] = {}
    for region_id in region_ids:
        base, _, number = region_id.rpartition("-")
        answered = region_id if region_id in clicks_of else base if number.isdigit() else ""
        if clicks_of.get(answered):
            sessions[answered] = [
                [round(to_pixel(y, height), 2), round(to_pixel(x, width), 2), 1.0 if positive else 0.0]
                for _, x, y, positive in clicks_of[answered]
            ]
    return list(sessions.values())
