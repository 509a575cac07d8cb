"""A robot that annotates photographs in Label Studio: clicks as the editor sends them, masks as it submits them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import httpx
import numpy as np

from model.data.annotated_objects import AnnotatedObject
from model.evaluation.robot_annotator import Clicker, annotate
from model.types import BoolMask, Box, Click, MaskResult
from refcut_backend.label_studio import brush_rle
from refcut_backend.label_studio.regions import BrushRegion

CONTENT_IOU = 0.85
MAX_CLICKS = 20
TRIES = 3
"""A click without an answer (a busy machine) is made again, as a person would."""


@dataclass(frozen=True)
class Annotated:
    """One mask. clicks: made for it. first_iou: after the first one. results: as Label Studio stores the region."""

    label: str
    clicks: int
    first_iou: float
    by_hand: bool
    results: list[dict[str, Any]]


class RobotAnnotator:
    """Annotates tasks by clicks.

    It accepts a mask at an IoU of .85. After 20 clicks it paints the mask by hand: it then submits the ground truth, as a
    careful annotator would.
    """

    def __init__(self, backend: httpx.Client, project_id: int, label_config: str) -> None:
        """Annotate tasks of one project.

        Args:
            backend: Client with the backend's address and credentials.
            project_id: Label Studio's id of the project.
            label_config: The project's labelling configuration (XML).
        """
        self._backend = backend
        self._project_id = project_id
        self._label_config = label_config
        self._numbers = count()

    def annotate(self, task: dict[str, Any], annotated_object: AnnotatedObject) -> list[Annotated]:
        """Annotate every label of an image.

        Args:
            task: The task as Label Studio's API returns it.
            annotated_object: The image with its true masks.
        """
        return [self._one(task, label, mask_hw) for label, mask_hw in annotated_object.masks().items()]

    def _one(self, task: dict[str, Any], label: str, target_hw: BoolMask) -> Annotated:
        answers = _BackendAnswers(self._ask, task, label, target_hw.shape, self._numbers)
        session = annotate(
            answers, target_hw, Clicker(target_hw), max_clicks=MAX_CLICKS, min_clicks=1, stop_iou=CONTENT_IOU
        )
        clicks, region = len(session.clicks), answers.region
        if region is not None and session.ious[-1] >= CONTENT_IOU:
            return Annotated(label, clicks, session.ious[0], False, [region])
        painted = BrushRegion(region["id"] if region else f"hand-{task['id']}-{label}", label, target_hw)
        return Annotated(label, clicks, session.ious[0], True, painted.results())

    def _ask(self, task: dict[str, Any], label: str, dots: list[dict[str, Any]]) -> dict[str, Any] | None:
        """The label's region in the answer; None for an empty mask. Raises RuntimeError without an answer."""
        body = {
            "tasks": [task],
            "project": str(self._project_id),
            "label_config": self._label_config,
            "params": {"login": None, "password": None, "context": {"result": dots}},
        }
        reason = ""
        for _ in range(TRIES):
            answer = self._backend.post("/predict", json=body)
            reason = answer.headers.get("X-RefCut-Reason", "")
            if answer.status_code == httpx.codes.OK and not reason:
                regions = answer.json()["results"][0]["result"]
                return next((one for one in regions if one["value"].get("brushlabels") == [label]), None)
        raise RuntimeError(f"a click was not answered: {reason}")


@dataclass
class _BackendAnswers:
    """Answers the clicks of one session over HTTP. region: the last answer, as Label Studio stores it."""

    ask: Callable[[dict[str, Any], str, list[dict[str, Any]]], dict[str, Any] | None]
    task: dict[str, Any]
    label: str
    shape_hw: tuple[int, ...]
    numbers: Iterator[int]
    dots: list[dict[str, Any]] = field(default_factory=list)
    region: dict[str, Any] | None = None

    def predict(self, clicks: Sequence[Click]) -> MaskResult:
        self.dots += [self._dot(click) for click in clicks[len(self.dots) :]]
        self.region = self.ask(self.task, self.label, self.dots)
        mask_hw = _mask(self.region, self.shape_hw)
        return MaskResult(mask_hw, mask_hw.astype(np.float32), Box.whole(*mask_hw.shape))

    def _dot(self, click: Click) -> dict[str, Any]:
        height, width = self.shape_hw
        at = {"x": 100 * (click.col + 0.5) / width, "y": 100 * (click.row + 0.5) / height, "width": 0.39}
        return {
            "id": f"robot{next(self.numbers)}",
            "type": "keypointlabels",
            "from_name": "click",
            "to_name": "image",
            "original_width": width,
            "original_height": height,
            "image_rotation": 0,
            "value": at | {"labels": [self.label], "keypointlabels": [self.label]},
            "is_positive": click.positive,
            "origin": "manual",
        }


def shifted(mask_hw: BoolMask, share: float = 1 / 3) -> BoolMask:
    """The mask moved right and down by a share of its own width and height; nothing of it leaves at the other side."""
    rows, cols = np.nonzero(mask_hw)
    down, right = (round(share * (int(np.ptp(axis)) + 1)) for axis in (rows, cols))
    moved = np.zeros_like(mask_hw)
    moved[down:, right:] = mask_hw[: mask_hw.shape[0] - down, : mask_hw.shape[1] - right]
    return moved


def _mask(region: dict[str, Any] | None, shape: tuple[int, ...]) -> BoolMask:
    if region is None:
        return np.zeros(shape, bool)
    return brush_rle.decode(region["value"]["rle"], region["original_height"], region["original_width"])
