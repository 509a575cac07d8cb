"""An annotator's clicks as Label Studio sends them, made plain."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from refcut_backend.errors import BadRequestError

MAX_ID_LENGTH = 100
FAR_PERCENT = 1e6
"""Nothing is drawn farther outside the image; up to here all arithmetic stays finite."""


@dataclass(frozen=True)
class PercentClick:
    """One click. x and y are percent of the image's width and height, inside 0..100; id is Label Studio's of the dot."""

    x_percent: float
    y_percent: float
    positive: bool
    id: str = ""


@dataclass(frozen=True)
class Dot:
    """A click as it lies on the canvas. positive: None when Label Studio has forgotten it (a draft after a reload)."""

    id: str
    x_percent: float
    y_percent: float
    positive: bool | None

    def as_click(self, known: bool | None = None) -> PercentClick:
        """With its polarity: as said, else as `known`, else positive."""
        polarity = known if self.positive is None else self.positive
        return PercentClick(self.x_percent, self.y_percent, polarity is not False, self.id)


def read_dot(region: dict[str, Any]) -> Dot:
    """A keypoint region; places outside the image are moved to its edge.

    Raises BadRequestError for what has no position.
    """
    x, y = read_numbers(region, ("x", "y"), "a click")
    x, y = into_image(x), into_image(y)
    said = region.get("is_positive")
    return Dot(prompt_id(region, x, y), x, y, said if isinstance(said, bool) else None)


def read_numbers(region: dict[str, Any], keys: tuple[str, ...], what: str) -> list[float]:
    """Finite numbers of a region's value. Raises BadRequestError when `what` lacks one."""
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
    """Label Studio gives every dot and box an id; for one without, its place must do."""
    return str(region.get("id") or f"at-{x_percent:.3f}-{y_percent:.3f}")[:MAX_ID_LENGTH]


def into_image(percent: float) -> float:
    """A percentage moved to the nearest one that lies on the image."""
    return min(max(percent, 0.0), 100.0)


def to_pixel(percent: float, length_px: int) -> float:
    """A percentage of an edge as the pixel that it falls on (float, 0 .. length - 1)."""
    return min(percent / 100 * length_px, length_px - 1.0)


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
