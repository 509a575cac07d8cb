"""Searches a task's images for its labels without a click, one label after another, for pre-labelling."""

from __future__ import annotations

import time
from collections.abc import Callable

from model.proposals import Proposal, ProposalLimits, propose
from refcut_backend.images.address import TaskImage
from refcut_backend.images.decode import full_size_mask
from refcut_backend.inference.engine import ClickEngine, PreparedImage
from refcut_backend.label_studio import brush_rle
from refcut_backend.queue.messages import FoundLabel, FoundMask, LabelToFind, PrelabelAnswer, PrelabelJob

SLICE_S = 8.0
"""Seconds after which no further label is started. The caller gets the labels so far and requests the rest again."""


class Prelabeller:
    """Searches with the engine of a worker process. Not thread-safe."""

    def __init__(
        self,
        engine: ClickEngine,
        limits: ProposalLimits | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare a search.

        Args:
            engine: Opens images and references.
            limits: Limits of the search; None for the defaults.
            clock: Seconds, for the time slice.
        """
        self._engine = engine
        self._limits = limits
        self._clock = clock

    def look(self, job: PrelabelJob, should_yield: Callable[[], bool]) -> PrelabelAnswer:
        """Search the labels of a job until the time slice ends; at least one label unless something more urgent waits.

        Args:
            job: The task, and per label its image and its references.
            should_yield: Asked before each step of the network and during downloads; true ends the search.

        Returns:
            The labels that were searched, with their masks.

        Raises:
            RefCutError: If an image cannot be read, or the network's output is not finite.
        """
        started = self._clock()
        found: list[FoundLabel] = []
        version = ""
        for label in job.labels:
            if found and self._clock() - started > SLICE_S:
                break
            where = TaskImage(job.project_id, job.task_id, label.image_address)
            image = self._engine.prepare(where, label.reference_ids, should_yield)
            if image is None or version not in ("", image.model.version):
                break
            # Without references there is nothing to search for: they were deleted a moment ago, or cannot be used.
            proposals = (
                propose(image.predictor, self._limits, should_yield) if image.reference_versions else []
            )
            if proposals is None:
                break
            version = image.model.version
            found.append(self._found(label, image, proposals))
        spent = {"total": round(1000 * (self._clock() - started), 1)}
        return PrelabelAnswer(tuple(found), version, milliseconds=spent)

    def _found(self, label: LabelToFind, image: PreparedImage, proposals: list[Proposal]) -> FoundLabel:
        masks = []
        for proposal in proposals:
            probability_hw = proposal.result.probability_hw
            self._engine.check_output(probability_hw)
            mask_hw = full_size_mask(
                probability_hw, image.height, image.width, image.model.settings.threshold
            )
            if mask_hw.any():
                masks.append(FoundMask(brush_rle.encode(mask_hw), round(proposal.score, 4)))
        return FoundLabel(
            label.label,
            label.to_name,
            image.width,
            image.height,
            tuple(masks),
            image.reference_versions,
            image.references.left_out,
        )
