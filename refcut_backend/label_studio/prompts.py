"""Reads the annotator's prompts, keypoints (clicks) and rectangles (boxes), from regions as Label Studio sends them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from refcut_backend.errors import BadRequestError

MAX_ID_LENGTH = 100
FAR_PERCENT = 1e6
"""Coordinates farther outside the image are moved here, so that all arithmetic stays finite."""


@dataclass(frozen=True)
class PercentClick:
    """A click with a known polarity.

    Attributes:
        x_percent: Percent of the image's width, 0..100.
        y_percent: Percent of the image's height, 0..100.
        positive: Whether the clicked place belongs to the object.
        id: Label Studio's id of the keypoint.
    """

    x_percent: float
    y_percent: float
    positive: bool
    id: str = ""


@dataclass(frozen=True)
class Dot:
    """A keypoint as it lies on the canvas.

    Attributes:
        id: Label Studio's id of the keypoint.
        x_percent: Percent of the image's width, 0..100.
        y_percent: Percent of the image's height, 0..100.
        positive: None if Label Studio has forgotten it, as in a draft after a reload.
    """

    id: str
    x_percent: float
    y_percent: float
    positive: bool | None

    def as_click(self, known: bool | None = None) -> PercentClick:
        """Returns the click with its own polarity, or else the known one, or else positive."""
        polarity = known if self.positive is None else self.positive
        return PercentClick(self.x_percent, self.y_percent, polarity is not False, self.id)


def read_dot(region: dict[str, Any]) -> Dot:
    """Reads a keypoint region. A position outside the image is moved to its edge.

    Raises:
        BadRequestError: The region has no position.
    """
    x, y = read_numbers(region, ("x", "y"), "a click")
    x, y = into_image(x), into_image(y)
    is_positive = region.get("is_positive")
    return Dot(prompt_id(region, x, y), x, y, is_positive if isinstance(is_positive, bool) else None)


def read_numbers(region: dict[str, Any], keys: tuple[str, ...], what: str) -> list[float]:
    """Reads finite numbers from a region's value.

    Args:
        region: The region.
        keys: Keys of the numbers.
        what: Name of the region for the message, such as "a click".

    Raises:
        BadRequestError: A number is missing or not finite.
    """
    try:
        numbers = [float(region["value"][key]) for key in keys]
    except (KeyError, TypeError, ValueError, OverflowError):
        numbers = [math.nan]
    if not all(map(math.isfinite, numbers)):
        raise BadRequestError(
            f"{what} has no position", hint=f"{', '.join(keys)} must be percent of the image"
        )
    return [min(max(number, -FAR_PERCENT), FAR_PERCENT) for number in numbers]


def prompt_id(region: dict[str, Any], x_percent: float, y_percent: float) -> str:
    """Returns Label Studio's id of a keypoint or box; if it has none, an id made of its position in percent."""
    return str(region.get("id") or f"at-{x_percent:.3f}-{y_percent:.3f}")[:MAX_ID_LENGTH]


def into_image(percent: float) -> float:
    """Limits a percentage to 0..100."""
    return min(max(percent, 0.0), 100.0)


def to_pixel(percent: float, length_px: int) -> float:
    """Converts a percentage of an edge to a position in pixels, 0..length_px - 1."""
    return min(percent / 100 * length_px, length_px - 1.0)


@dataclass(frozen=True)
class PercentBox:
    """An axis-parallel rectangle: edges in percent of the image's width and height, 0..100; `id` is Label Studio's."""

    left: float
    top: float
    right: float
    bottom: float
    id: str = ""

    def holds(self, x_percent: float, y_percent: float) -> bool:
        """Whether a position lies inside, border included."""
        return self.left <= x_percent <= self.right and self.top <= y_percent <= self.bottom


def read_box(region: dict[str, Any]) -> PercentBox:
    """Reads a rectangle region. A rotated one becomes its bounding box; the part outside the image is cut off.

    Label Studio rotates clockwise, in degrees, about the upper left corner, in pixels. Percent of the width and percent
    of the height are different lengths, so the image's aspect ratio matters.

    Raises:
        BadRequestError: The region is not a rectangle.
    """
    x, y, width, height = read_numbers(region, ("x", "y", "width", "height"), "a box")
    cos, sin = _rotation(region["value"].get("rotation"))
    aspect = _aspect(region)
    corners = [
        (x + right * cos - down * sin / aspect, y + right * aspect * sin + down * cos)
        for right in (0.0, width)
        for down in (0.0, height)
    ]
    columns, rows = ([into_image(corner[axis]) for corner in corners] for axis in (0, 1))
    return PercentBox(min(columns), min(rows), max(columns), max(rows), prompt_id(region, x, y))


def _rotation(degrees: object) -> tuple[float, float]:
    """Returns cosine and sine of an angle; those of 0 if it is not a number."""
    is_angle = isinstance(degrees, int | float) and math.isfinite(degrees)
    angle = math.radians(degrees) if is_angle else 0.0  # type: ignore[arg-type]
    return math.cos(angle), math.sin(angle)


def _aspect(region: dict[str, Any]) -> float:
    """Returns the image's width divided by its height; 1 if Label Studio does not send its size."""
    width, height = (region.get(f"original_{edge}") for edge in ("width", "height"))
    known = isinstance(width, int) and isinstance(height, int) and 0 < width < 2**20 and 0 < height < 2**20
    return width / height if known else 1.0  # type: ignore[operator]
