"""An annotator's clicks as Label Studio sends them, made plain."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from refcut_backend.errors import BadRequestError

MAX_CLICKS = 200


@dataclass(frozen=True)
class PercentClick:
    """One click. x and y are percent of the image's width and height, inside 0..100."""

    x_percent: float
    y_percent: float
    positive: bool


@dataclass(frozen=True)
class ClickedObject:
    """Everything that a click request says about one object.

    region_id: id of the mask to return. One an object, the same for all its clicks: Label Studio replaces an accepted
        region that has the same id (contract, section 3, rules 4 and 6).
    width, height: size of the image as the browser sees it, EXIF orientation applied; 0 = not said.
    click_ids: ids of the dots, in the order of the clicks.
    """

    label: str
    to_name: str
    region_id: str
    clicks: tuple[PercentClick, ...]
    width: int
    height: int
    click_ids: tuple[str, ...] = ()

    def clicks_json(self) -> list[dict[str, Any]]:
        """The clicks as plain JSON for a job."""
        return [asdict(click) for click in self.clicks]


def read_clicks(regions: Sequence[dict[str, Any]]) -> ClickedObject | None:
    """The object that a click context (`params.context.result`) asks for; None when it holds no click.

    Label Studio sends all dots of one label in the order of their creation. A dot without `is_positive` (a draft after a
    reload) counts as positive. Raises BadRequestError for what is no click list.
    """
    dots = [region for region in regions if _is_dot(region)]
    if not dots:
        return None
    if len(dots) > MAX_CLICKS:
        raise BadRequestError(
            f"{len(dots)} clicks on one object", hint=f"accept or delete it; {MAX_CLICKS} is the limit"
        )
    last = dots[-1]
    label = _label(last)
    same = [dot for dot in dots if _label(dot) == label and dot.get("to_name") == last.get("to_name")]
    return ClickedObject(
        label=label,
        to_name=str(last.get("to_name", "")),
        region_id=f"rc-{same[0].get('id', '')}",
        clicks=tuple(_click(dot) for dot in same),
        width=_size(last.get("original_width")),
        height=_size(last.get("original_height")),
        click_ids=tuple(str(dot["id"]) for dot in same if dot.get("id")),
    )


def _is_dot(region: dict[str, Any]) -> bool:
    """A keypoint result may also be a second label on an accepted mask: it repeats the mask and has no position."""
    return region.get("type") == "keypointlabels" and "rle" not in (region.get("value") or {})


def _label(dot: dict[str, Any]) -> str:
    try:
        value = dot["value"]
        return str((value.get("keypointlabels") or value["labels"])[0])
    except (KeyError, IndexError, TypeError, AttributeError):
        raise BadRequestError("a click carries no label", hint="choose a label before clicking") from None


def _click(dot: dict[str, Any]) -> PercentClick:
    try:
        x, y = float(dot["value"]["x"]), float(dot["value"]["y"])
    except (KeyError, TypeError, ValueError):
        raise BadRequestError(
            "a click has no position", hint="x and y must be percent of the image"
        ) from None
    if not (math.isfinite(x) and math.isfinite(y)):
        raise BadRequestError(
            "a click's position is not a number", hint="x and y must be percent of the image"
        )
    return PercentClick(min(max(x, 0.0), 100.0), min(max(y, 0.0), 100.0), dot.get("is_positive") is not False)


def _size(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**20 else 0


def to_pixel(percent: float, length_px: int) -> float:
    """A percentage of an edge as the pixel that it falls on (float, 0 .. length - 1)."""
    return min(percent / 100 * length_px, length_px - 1.0)
