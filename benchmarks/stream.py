"""What annotators click on the demo photographs: the same clicks in every run.

Each annotator goes through parts of cars whose masks are known, a few clicks each. A part's first dot lies in the middle
of its mask, with an offset of less than a pixel, so that no two annotators click alike; the following ones alternate
between its inside and its surroundings, as corrections do.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from model.masks import deepest_point
from refcut_backend.cli.demo import demo_mask

PARTS = tuple(
    (photograph, part)
    for photograph, parts in (
        ("car_parts_car118", ("back_door", "front_door", "hood", "wheel")),
        ("car_parts_te20", ("front_door", "hood", "wheel")),
        ("car_parts_te66", ("back_door", "front_door", "hood", "wheel")),
    )
    for part in parts
)
LABELS = {"wheel": "Wheel", "hood": "Hood", "front_door": "Door", "back_door": "Door"}
CLICKS_A_PART = 3


@dataclass(frozen=True)
class StreamClick:
    """One request: a photograph, and all dots that are on its canvas by then."""

    task: int
    photograph: str
    dots: tuple[dict[str, Any], ...]


def clicks_of(annotator: int) -> Iterator[StreamClick]:
    """Clicks without end. Annotators begin at different parts, and share neither a task nor a dot's id."""
    random = np.random.default_rng(annotator)
    for number in count(annotator):
        photograph, part = PARTS[number % len(PARTS)]
        dots: tuple[dict[str, Any], ...] = ()
        for x, y, positive in _points(demo_mask(photograph, part), random):
            click_id = f"{annotator}-{number}-{len(dots)}"
            dots = (*dots, _dot(click_id, x, y, LABELS[part], positive))
            yield StreamClick(1 + annotator * len(PARTS) + number % len(PARTS), photograph, dots)


def _points(mask_hw: NDArray[np.bool_], random: np.random.Generator) -> Iterator[tuple[float, float, bool]]:
    """Percent of width and height, and whether the dot belongs to the part."""
    around_hw = cv2.dilate(mask_hw.astype(np.uint8), np.ones((31, 31), np.uint8)).astype(bool) & ~mask_hw
    x, y = _percent(deepest_point(mask_hw), mask_hw)
    yield x + random.uniform(0, 0.1), y + random.uniform(0, 0.1), True
    for number in range(1, CLICKS_A_PART):
        inside = number % 2 == 0
        rows, cols = np.nonzero(mask_hw if inside else around_hw)
        chosen = random.integers(len(rows))
        yield *_percent((int(rows[chosen]), int(cols[chosen])), mask_hw), inside


def _percent(point: tuple[int, int], mask_hw: NDArray[np.bool_]) -> tuple[float, float]:
    return 100 * point[1] / mask_hw.shape[1], 100 * point[0] / mask_hw.shape[0]


def _dot(click_id: str, x: float, y: float, label: str, positive: bool) -> dict[str, Any]:
    return {
        "id": click_id,
        "type": "keypointlabels",
        "from_name": "click",
        "to_name": "image",
        "value": {"x": x, "y": y, "width": 0.39, "keypointlabels": [label]},
        "is_positive": positive,
    }
