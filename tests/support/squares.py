"""A worker without a network: masks are squares round the clicks. And the editor's side of a conversation with it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refcut_backend.clicks.service import ClickReply, ClickRequest, ClickService
from refcut_backend.label_studio import brush_rle
from refcut_backend.queue.messages import ClickAnswer, ClickJob
from tests.support.recorded import LABEL_CONFIG

HEIGHT, WIDTH = 60, 100
REACH = 10


class SquareQueue:
    """Answers at once, and keeps the jobs. A click reaches REACH percent each way; a box is filled.

    There is one larger mask, in which a click reaches twice as far.
    """

    def __init__(self) -> None:
        self.jobs: list[ClickJob] = []
        self.fails_with: Exception | None = None

    def ask(self, job: ClickJob) -> ClickAnswer:
        self.jobs.append(ClickJob.from_json(job.to_json()))
        if self.fails_with is not None:
            raise self.fails_with
        mask_hw = square_mask(job)
        return ClickAnswer(
            width=WIDTH,
            height=HEIGHT,
            rle=brush_rle.encode(mask_hw) if mask_hw.any() else [],
            score=0.9,
            reference_versions=("v1",),
            extent=min(max(job.extent, 0), 1),
        )


def square_mask(job: ClickJob) -> NDArray[np.bool_]:
    """Return the mask (HEIGHT, WIDTH) that `SquareQueue` answers a job with."""
    rows, cols = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    y, x = 100 * rows / HEIGHT, 100 * cols / WIDTH
    mask_hw = np.zeros((HEIGHT, WIDTH), bool)
    if job.box is not None:
        box = job.box
        mask_hw |= (box.left <= x) & (x <= box.right) & (box.top <= y) & (y <= box.bottom)
    reach = 2 * REACH if job.extent > 0 else REACH
    for click in job.clicks:
        near = (abs(x - click.x_percent) <= reach) & (abs(y - click.y_percent) <= reach)
        mask_hw = mask_hw | near if click.positive else mask_hw & ~near
    return mask_hw


class Editor:
    """One task open in Label Studio, as far as requests and answers go."""

    def __init__(
        self,
        service: ClickService,
        *,
        task: int = 3,
        label_config: str = LABEL_CONFIG,
        data: dict[str, Any] | None = None,
    ) -> None:
        self.service = service
        self.task = task
        self.label_config = label_config
        self.data = data or {"image": "/data/upload/1/a.jpg", "second": "/data/upload/1/b.jpg"}

    def send(self, *regions: dict[str, Any], seen: Sequence[str] = ()) -> ClickReply:
        """What the backend answers to these regions of a label; `seen` are in the task's annotations or drafts."""
        return self.service.answer(
            ClickRequest(7, self.task, self.data, self.label_config, list(regions), frozenset(seen))
        )


def given(reply: ClickReply) -> dict[str, str]:
    """Region id to label."""
    found = {}
    for region in reply.prediction["result"]:
        (label,) = region["value"][region["type"]]
        found[region["id"]] = label
    assert len(found) == len(reply.prediction["result"]), "ids are unique"
    return found


def mask_of(reply: ClickReply, region_id: str) -> NDArray[np.bool_]:
    """A brush region's mask (H, W)."""
    region = next(r for r in reply.prediction["result"] if r["id"] == region_id)
    return brush_rle.decode(region["value"]["rle"], HEIGHT, WIDTH)
