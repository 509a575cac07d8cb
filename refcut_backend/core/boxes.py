"""Rectangles that annotators draw with the smart rectangle tool, made plain."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from refcut_backend.core.clicks import into_image, prompt_id, read_numbers


@dataclass(frozen=True)
class PercentBox:
    """An upright rectangle in percent of the image's width and height, inside 0..100; id is Label Studio's."""

    left: float
    top: float
    right: float
    bottom: float
    id: str = ""

    def holds(self, x_percent: float, y_percent: float) -> bool:
        """Whether a place lies inside, the border included."""
        return self.left <= x_percent <= self.right and self.top <= y_percent <= self.bottom


def read_box(region: dict[str, Any]) -> PercentBox:
    """A rectangle region; a rotated one becomes the upright rectangle round it, what lies outside the image is cut off.

    Label Studio rotates (degrees, clockwise) about the upper left corner, in pixels: percent of width and height are
    different lengths, so the shape of the image matters. Raises BadRequestError for what is no rectangle.
    """
    x, y, width, height = read_numbers(region, ("x", "y", "width", "height"), "a box")
    cos, sin = _turn(region["value"].get("rotation"))
    aspect = _aspect(region)
    corners = [
        (x + right * cos - down * sin / aspect, y + right * aspect * sin + down * cos)
        for right in (0.0, width)
        for down in (0.0, height)
    ]
    columns, rows = ([into_image(corner[axis]) for corner in corners] for axis in (0, 1))
    return PercentBox(min(columns), min(rows), max(columns), max(rows), prompt_id(region, x, y))


def _turn(degrees: object) -> tuple[float, float]:
    """Cosine and sine; of no turn for what is no angle."""
    turned = isinstance(degrees, int | float) and math.isfinite(degrees)
    angle = math.radians(degrees) if turned else 0.0  # type: ignore[arg-type]
    return math.cos(angle), math.sin(angle)


def _aspect(region: dict[str, Any]) -> float:
    """Width of the image over its height; 1 where Label Studio does not say."""
    width, height = (region.get(f"original_{edge}") for edge in ("width", "height"))
    known = isinstance(width, int) and isinstance(height, int) and 0 < width < 2**20 and 0 < height < 2**20
    return width / height if known else 1.0  # type: ignore[operator]
