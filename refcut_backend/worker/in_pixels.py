"""Prompts in percent of an image, as Label Studio says them, to pixels of the working copy that the network sees."""

from __future__ import annotations

from collections.abc import Sequence

from model.transforms import Roi
from model.types import Click
from refcut_backend.label_studio.prompts import PercentBox, PercentClick, to_pixel


def clicks_in_pixels(clicks: Sequence[PercentClick], height: int, width: int) -> list[Click]:
    """Clicks on an image of that size."""
    return [
        Click(to_pixel(click.y_percent, height), to_pixel(click.x_percent, width), click.positive)
        for click in clicks
    ]


def box_in_pixels(box: PercentBox, height: int, width: int) -> Roi:
    """All pixels that a box covers half or more of; at least the one under its middle."""
    row, col = (
        int(to_pixel((start + end) / 2, length))
        for start, end, length in ((box.top, box.bottom, height), (box.left, box.right, width))
    )
    return Roi(
        min(row, round(box.top / 100 * height)),
        max(row, round(box.bottom / 100 * height) - 1),
        min(col, round(box.left / 100 * width)),
        max(col, round(box.right / 100 * width) - 1),
    )
