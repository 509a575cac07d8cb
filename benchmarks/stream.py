"""What annotators click on the demo photographs: the same clicks in every run.

Each annotator goes through parts of cars whose masks are known, a few clicks a part. A part's first dot lies in the
middle of its mask; the following ones alternate between its inside and its surroundings, as corrections do.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from model.robot_clicker import deepest_point

DEMO = Path(__file__).parents[1] / "label_studio_demo"
MASKS = Path(__file__).parents[1] / "tests" / "fixtures" / "demo_masks"
LABELS = {"wheel": "Wheel", "hood": "Hood", "front_door": "Door", "back_door": "Door"}
CLICKS_A_PART = 3


@dataclass(frozen=True)
class StreamClick:
    """One request: a photograph, and all dots that are on its canvas by then."""

    task: int
    photograph: str
    dots: tuple[dict[str, Any], ...]


def clicks_of(annotator: int) -> Iterator[StreamClick]:
    """Clicks without end. Annotators begin at different parts and never share a dot's id."""
    parts = sorted(MASKS.glob("*.png"))
    random = np.random.default_rng(annotator)
    number = annotator
    while True:
        path = parts[number % len(parts)]
        photograph, label = _split(path.stem)
        dots: tuple[dict[str, Any], ...] = ()
        for x, y, positive in _points(path, random):
            click_id = f"{annotator}-{number}-{len(dots)}"
            dots = (*dots, _dot(click_id, x, y, LABELS[label], positive))
            yield StreamClick(1 + number % len(parts), photograph, dots)
        number += 1


def _split(name: str) -> tuple[str, str]:
    label = next(label for label in LABELS if name.endswith(f"_{label}"))
    return name.removesuffix(f"_{label}"), label


def _points(path: Path, random: np.random.Generator) -> Iterator[tuple[float, float, bool]]:
    """Percent of width and height, and whether the dot belongs to the part."""
    pixels = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    assert pixels is not None, path
    mask_hw = np.asarray(pixels) > 127
    around_hw = cv2.dilate(mask_hw.astype(np.uint8), np.ones((31, 31), np.uint8)).astype(bool) & ~mask_hw
    yield *_percent(deepest_point(mask_hw), mask_hw), True
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
