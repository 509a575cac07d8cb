"""Clicks and boxes as short JSON lists, for the database."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from refcut_backend.label_studio.prompts import PercentBox, PercentClick


def clicks_to_json(clicks: Sequence[PercentClick]) -> list[list[Any]]:
    """[id, x, y, positive] each, in percent."""
    return [[click.id, click.x_percent, click.y_percent, click.positive] for click in clicks]


def clicks_from_json(rows: Sequence[Sequence[Any]]) -> tuple[PercentClick, ...]:
    """What `clicks_to_json` made."""
    return tuple(PercentClick(x, y, positive, id) for id, x, y, positive in rows)


def box_to_json(box: PercentBox | None) -> list[Any] | None:
    """[id, left, top, right, bottom] in percent."""
    return None if box is None else [box.id, box.left, box.top, box.right, box.bottom]


def box_from_json(row: Sequence[Any] | None) -> PercentBox | None:
    """What `box_to_json` made."""
    if row is None:
        return None
    id, left, top, right, bottom = row
    return PercentBox(left, top, right, bottom, id)
