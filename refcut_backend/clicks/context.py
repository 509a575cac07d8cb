"""Reads the click context of a request: the dots or boxes of the clicked label that lie on the canvas."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from refcut_backend.errors import BadRequestError, OrientationError
from refcut_backend.label_studio.label_config import image_of_item
from refcut_backend.label_studio.prompts import Dot, PercentBox, read_box, read_dot

REGION_ID_PREFIX = "rc-"
"""Ids of the regions that we return begin with it; Label Studio's own ids do not."""
MAX_CLICKS = 200
"""Highest number of clicks on one object."""


@dataclass(frozen=True)
class ClickContext:
    """Dots or boxes of one label, in the order of their creation.

    Attributes:
        label: The clicked label.
        to_name: Name of the image that they lie on (`image_name`).
        dots: Clicks; empty if there are boxes.
        boxes: Rectangles; empty if there are dots.
    """

    label: str
    to_name: str
    dots: tuple[Dot, ...] = ()
    boxes: tuple[PercentBox, ...] = ()

    @property
    def ids(self) -> tuple[str, ...]:
        """Ids of the dots or boxes. Requests that share an id are about the same object; others never are."""
        return (*(dot.id for dot in self.dots), *(box.id for box in self.boxes))

    def key(self) -> str:
        """Return 16 hex digits that identify this context (a hash of all of its values)."""
        return hashlib.sha256(repr(self).encode()).hexdigest()[:16]


def read_context(regions: Sequence[dict[str, Any]]) -> ClickContext | None:
    """Read a click context.

    Label Studio sends regions of one kind, one label and one image tag, in the order of their creation (contract, section
    3, rule 1). If the tag has several pages, those on the page of the newest count.

    Args:
        regions: The request's `params.context.result`.

    Returns:
        The context; None if it contains neither a dot nor a box.

    Raises:
        BadRequestError: If a region has no label or no valid position, or there are too many.
    """
    prompts = [region for region in regions if _is_dot(region) or _is_box(region)]
    if not prompts:
        return None
    check_count(len(prompts))
    kind = _kind(prompts[-1])
    same = [region for region in prompts if _kind(region) == kind]
    region_type, to_name, label = kind
    if region_type == "rectanglelabels":
        boxes = {box.id: box for box in map(read_box, same)}
        return ClickContext(label, to_name, boxes=tuple(boxes.values()))
    dots = {dot.id: dot for dot in map(read_dot, same)}
    return ClickContext(label, to_name, dots=tuple(dots.values()))


def check_count(clicks: int) -> None:
    """Check the number of clicks on one object.

    Raises:
        BadRequestError: If there are more than `MAX_CLICKS`.
    """
    if clicks > MAX_CLICKS:
        raise BadRequestError(
            f"{clicks} clicks on one object", hint=f"accept or delete it; {MAX_CLICKS} is the limit"
        )


def check_shown_size(regions: Sequence[dict[str, Any]], width: int, height: int) -> None:
    """Check that the browser shows an image the way in which it was decoded.

    Args:
        regions: The request's `params.context.result`. The newest prompt tells the size that the browser shows.
        width: Width of the decoded image in pixels.
        height: Its height.

    Raises:
        OrientationError: If width and height have changed places. Other sizes are not compared: a task's image may have
            been replaced.
    """
    prompts = [region for region in regions if _is_dot(region) or _is_box(region)]
    if not prompts or width == height:
        return
    shown = (prompts[-1].get("original_width"), prompts[-1].get("original_height"))
    if shown == (height, width):
        raise OrientationError(
            f"the browser shows the image with {height} x {width} pixels, decoded it has {width} x {height}",
            hint="save it upright and without its orientation mark, and import it again",
        )


_MASK_KEYS = frozenset({"rle", "points", "height"})
"""Keys in the value of brush masks, polygons and rectangles that a dot lacks."""


def _kind(region: dict[str, Any]) -> tuple[str, str, str]:
    return str(region["type"]), image_of_item(region), _label(region)


def _is_dot(region: dict[str, Any]) -> bool:
    """A keypoint region may also be a second label on an accepted mask: it then repeats the mask's value."""
    return region.get("type") == "keypointlabels" and not _MASK_KEYS & _value(region).keys()


def _is_box(region: dict[str, Any]) -> bool:
    """A request repeats all rectangles of a label, also those that were our answers: these are not prompts."""
    ours = str(region.get("id")).startswith(REGION_ID_PREFIX)
    return (
        region.get("type") == "rectanglelabels" and not {"rle", "points"} & _value(region).keys() and not ours
    )


def _value(region: dict[str, Any]) -> dict[str, Any]:
    value = region.get("value")
    return value if isinstance(value, dict) else {}


def _label(region: dict[str, Any]) -> str:
    value = _value(region)
    labels = value.get(str(region["type"])) or value.get("labels")
    if not isinstance(labels, list) or not labels:
        raise BadRequestError("a click carries no label", hint="choose a label before clicking")
    return str(labels[0])
