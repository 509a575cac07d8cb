"""Measures what references are worth: one click in the middle of an annotated mask, once per set of references."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from model.masks import deepest_point, intersection_over_union
from model.types import Click
from refcut_backend.errors import BadMaskError
from refcut_backend.images.address import TaskImage
from refcut_backend.images.decode import fitted_mask, pixels_digest
from refcut_backend.inference.engine import ClickEngine, PreparedImage
from refcut_backend.inference.frames import mask_of_click
from refcut_backend.label_studio import brush_rle
from refcut_backend.queue.measure_queue import MeasureAnswer, MeasuredSet, MeasureJob
from refcut_backend.queue.messages import Pieces

SLICE_S = 8.0
"""Seconds after which no further set is begun. The caller gets the figures so far and requests the rest again."""


class ReferenceMeasurer:
    """Measures with the engine of a worker process. Not thread-safe."""

    def __init__(self, engine: ClickEngine, clock: Callable[[], float] = time.monotonic) -> None:
        """Prepare measurements.

        Args:
            engine: Opens images and references, apart from those that are clicked on.
            clock: Seconds, for the time slice.
        """
        self._engine = engine
        self._clock = clock

    def measure(self, job: MeasureJob, should_yield: Callable[[], bool]) -> MeasureAnswer:
        """Measure the sets of a job until the time slice ends; at least one unless something more urgent waits.

        Args:
            job: The annotated mask, its image and the sets.
            should_yield: Asked before each click and during downloads; true ends the measurement.

        Returns:
            The figures of the first sets.

        Raises:
            RefCutError: If image or mask cannot be read, or the network's output is not finite.
        """
        started = self._clock()
        target_hw = brush_rle.decode(job.target, job.height, job.width)
        where = TaskImage(job.project_id, job.task_id, job.image_address)
        measured: list[MeasuredSet] = []
        image = version = ""
        for ids in job.sets:
            if measured and self._clock() - started > SLICE_S:
                break
            prepared = self._engine.prepare(where, ids, should_yield)
            if prepared is None or should_yield() or version not in ("", prepared.model.version):
                break
            version = prepared.model.version
            image = image or pixels_digest(prepared.image.pixels)
            measured.append(self._measured(prepared, ids, target_hw, job.pieces))
        return MeasureAnswer(tuple(measured), image, version)

    def _measured(
        self, prepared: PreparedImage, ids: Sequence[int], target_hw: NDArray[np.bool_], pieces: Pieces
    ) -> MeasuredSet:
        used = prepared.references
        if used.left_out:
            return MeasuredSet(None, used.left_out[0].problem)
        if len(used.versions) < len(ids):
            return MeasuredSet(None, "it was deleted meanwhile")
        if prepared.shows_itself:
            return MeasuredSet(None)
        clicks = [_first_click(target_hw, prepared)]
        result = prepared.predictor.predict(clicks)
        self._engine.check_output(result.probability_hw)
        mask_hw = mask_of_click(
            result,
            clicks if used.drops_specks(pieces) else None,
            (prepared.height, prepared.width),
            prepared.model.settings.threshold,
        )
        return MeasuredSet(round(intersection_over_union(target_hw, mask_hw), 4))


def _first_click(target_hw: NDArray[np.bool_], prepared: PreparedImage) -> Click:
    """A click in the middle of the mask, as the robot annotator does; in the frame at which clicks are computed."""
    if target_hw.shape != (prepared.height, prepared.width):
        raise BadMaskError(
            f"a mask of {target_hw.shape[1]} x {target_hw.shape[0]} px lies on an image of "
            f"{prepared.width} x {prepared.height} px",
            hint="was the image replaced? Draw the region again",
        )
    fitted_hw = fitted_mask(target_hw, *prepared.image.pixels.shape[:2])
    if not fitted_hw.any():
        raise BadMaskError("a mask is too small for a click", hint="draw the region again")
    row, col = deepest_point(fitted_hw)
    return Click(float(row), float(col))
