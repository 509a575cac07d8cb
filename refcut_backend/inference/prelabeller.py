"""Looks for a task's labels on its images without a click, one label after another."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from model.proposals import Proposal, ProposalLimits, propose
from refcut_backend.errors import ModelOutputError
from refcut_backend.images.address import TaskImage
from refcut_backend.images.decode import full_size_mask
from refcut_backend.inference.engine import ClickEngine, View
from refcut_backend.label_studio import brush_rle
from refcut_backend.queue.messages import FoundLabel, FoundMask, LabelToFind, PrelabelAnswer, PrelabelJob

SLICE_S = 8.0
"""Afterwards no further label is begun: whoever asked gets what there is, and asks for the rest."""


class Prelabeller:
    """One per worker process, beside the clicks' engine; not for several threads at once."""

    def __init__(
        self,
        engine: ClickEngine,
        limits: ProposalLimits | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine = engine
        self._limits = limits
        self._clock = clock

    def look(self, job: PrelabelJob, should_yield: Callable[[], bool]) -> PrelabelAnswer:
        """What is found of the job's labels, as far as the turn allows; at least one label where nothing interrupts.

        is_turn_over: asked before each step of the network and all through downloads. Raises RefCutError when an image
        cannot be had, or the network's output is no mask.
        """
        started = self._clock()
        found: list[FoundLabel] = []
        version = ""
        for label in job.labels:
            if found and self._clock() - started > SLICE_S:
                break
            where = TaskImage(job.project_id, job.task_id, label.image_address)
            view = self._engine.view(where, label.reference_ids, should_yield)
            if view is None or version not in ("", view.model.version):
                break
            # Without any reference nothing says what the label means: it was taken back a moment ago.
            proposals = propose(view.predictor, self._limits, should_yield) if view.reference_versions else []
            if proposals is None:
                break
            version = view.model.version
            found.append(self._found(label, view, proposals))
        spent = {"total": round(1000 * (self._clock() - started), 1)}
        return PrelabelAnswer(tuple(found), version, milliseconds=spent)

    def _found(self, label: LabelToFind, view: View, proposals: list[Proposal]) -> FoundLabel:
        masks = []
        for proposal in proposals:
            probability_hw = proposal.result.probability_hw
            if not np.isfinite(probability_hw).all():
                self._engine.forget()
                raise ModelOutputError(
                    "the network's output is not a number",
                    hint="check the model's weights, or go back to another",
                )
            mask_hw = full_size_mask(probability_hw, view.height, view.width, view.model.settings.threshold)
            if mask_hw.any():
                masks.append(FoundMask(brush_rle.encode(mask_hw), round(proposal.score, 4)))
        return FoundLabel(
            label.label, label.to_name, view.width, view.height, tuple(masks), view.reference_versions
        )
