"""The click context of a request: what lies on the canvas of the label that was clicked."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from refcut_backend.errors import BadRequestError
from refcut_backend.label_studio.prompts import Dot, PercentBox, read_box, read_dot

REGION_ID_PREFIX = "rc-"
MAX_CLICKS = 200


@dataclass(frozen=True)
class ClickContext:
    """Dots or boxes of one label, in the order of their creation; one of the two is empty.

    to_name: the image tag that they lie on.
    """

    label: str
    to_name: str
    dots: tuple[Dot, ...] = ()
    boxes: tuple[PercentBox, ...] = ()

    @property
    def ids(self) -> tuple[str, ...]:
        """Ids of what lies on this canvas: requests that share one are about the same object, others never are."""
        return (*(dot.id for dot in self.dots), *(box.id for box in self.boxes))

    def key(self) -> str:
        """The same for the same context, and for no other: 16 hex digits."""
        return hashlib.sha256(repr(self).encode()).hexdigest()[:16]


def read_context(regions: Sequence[dict[str, Any]]) -> ClickContext | None:
    """A click context (`params.context.result`); None when it holds neither dot nor box.

    Label Studio sends regions of one kind, one label and one image, in the order of their creation (contract, section 3,
    rule 1). Should there be others, the newest decides. Raises BadRequestError for what is no click list.
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
    """Raises BadRequestError when one object has more clicks than anyone needs."""
    if clicks > MAX_CLICKS:
        raise BadRequestError(
            f"{clicks} clicks on one object", hint=f"accept or delete it; {MAX_CLICKS} is the limit"
        )


def _kind(region: dict[str, Any]) -> tuple[str, str, str]:
    return str(region["type"]), str(region.get("to_name", "")), _label(region)


def _is_dot(region: dict[str, Any]) -> bool:
    """A keypoint result may also be a second label on an accepted mask: it repeats the mask and has no position."""
    return region.get("type") == "keypointlabels" and "rle" not in _value(region)


def _is_box(region: dict[str, Any]) -> bool:
    """All rectangles of a label come along, whoever drew them: those that we gave as answers are no question."""
    ours = str(region.get("id")).startswith(REGION_ID_PREFIX)
    return region.get("type") == "rectanglelabels" and "rle" not in _value(region) and not ours


def _value(region: dict[str, Any]) -> dict[str, Any]:
    value = region.get("value")
    return value if isinstance(value, dict) else {}


def _label(region: dict[str, Any]) -> str:
    value = _value(region)
    labels = value.get(str(region["type"])) or value.get("labels")
    if not isinstance(labels, list) or not labels:
        raise BadRequestError("a click carries no label", hint="choose a label before clicking")
    return str(labels[0])
