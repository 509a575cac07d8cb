"""Turns a submitted annotation into training data: one mask per label and image, and the clicks that made it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refcut_backend.label_studio.label_config import NEGATIVE_REFERENCE_CHOICE, ProjectControls
from refcut_backend.label_studio.prompts import to_pixel
from refcut_backend.label_studio.regions import (
    Region,
    check_result,
    is_mask_region,
    joined_mask,
    read_region,
)
from refcut_backend.references.parse import region_roles


@dataclass(frozen=True)
class LabelMask:
    """Union of all regions of a label in one annotation on one image.

    Attributes:
        label: The label.
        mask_hw: Mask (H, W) in the pixels of the image in the browser.
        region_ids: Ids of the regions.
    """

    label: str
    mask_hw: NDArray[np.bool_]
    region_ids: tuple[str, ...]


def read_training_masks(
    result: Sequence[dict[str, Any]], controls: ProjectControls
) -> dict[str, list[LabelMask]]:
    """Read the masks of an annotation.

    Skipped are labels that are no longer in the label config, and regions marked "Negative reference", because these show
    what does not belong to the label.

    Args:
        result: The annotation's results, in Label Studio's format.
        controls: The controls of the label config for the annotation's task.

    Returns:
        Name of the image to its masks, one per label, sorted by label.

    Raises:
        BadMaskError: If any region is damaged, because a label with a missing piece would teach a wrong mask.
    """
    check_result(result)
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
            found.setdefault(to_name, []).append(
                LabelMask(label, mask_hw, tuple(region_id for region_id, _ in drawn))
            )
    return found


def click_sessions(
    region_ids: Sequence[str], clicks_of: Mapping[str, Sequence[Sequence[Any]]], height: int, width: int
) -> list[list[list[float]]]:
    """Find the logged clicks that regions came from.

    Args:
        region_ids: Ids of regions. The pieces of a polygon have the id of their object followed by -2, -3, ...
        clicks_of: Region id in the answer to its clicks [id, x, y, positive], x and y in percent of the image.
        height: Height of the image in pixels.
        width: Width of the image in pixels.

    Returns:
        One session per object: clicks [row, column, 1 for positive or 0] in pixels.
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
