"""Sends annotated masks to a worker, to be clicked on once with several sets of references, and waits for the IoUs.

A worker takes such a job only when nothing else waits, and gives it back as soon as something does.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any, ClassVar

from pydantic import Field

from refcut_backend.errors import RefCutError
from refcut_backend.queue.messages import (
    Finite,
    JobMessage,
    Packed,
    Pieces,
    Pixels,
    Text,
    known_code,
    pack_rle,
    read_message,
)
from refcut_backend.queue.prelabel_queue import PatientQueue
from refcut_backend.queue.rq_jobs import MEASURE_FUNCTION, MEASURE_QUEUE

Share = Annotated[Finite, Field(ge=0, le=1)]


@dataclass(frozen=True)
class MeasureJob(JobMessage):
    """A mask that somebody has annotated, and the sets of references to click on it with.

    Attributes:
        project_id: Label Studio's project.
        task_id: Label Studio's task.
        image_address: URL of the image, or the number of a hidden one (`images.hidden_urls`).
        target: The mask as Label Studio's brush RLE.
        width: Of the mask in pixels.
        height: Of the mask in pixels.
        sets: Rows of the reference table that a click uses together; an empty set is a click alone.
        pieces: As in `ClickJob`.
        format: Version of these fields.
    """

    NAME: ClassVar[str] = "a mask to measure references on"
    FORMAT: ClassVar[int] = 1

    project_id: int
    task_id: int
    image_address: str
    target: Packed
    width: Pixels
    height: Pixels
    sets: tuple[tuple[int, ...], ...]
    pieces: Pieces = "auto"
    format: int = FORMAT

    def to_json(self) -> dict[str, Any]:
        """Convert to JSON."""
        return vars(self) | {"target": pack_rle(self.target), "sets": [list(ids) for ids in self.sets]}


@dataclass(frozen=True)
class MeasuredSet:
    """What one click with a set of references gave.

    Attributes:
        iou: IoU of its mask with the annotated one; None if there is none.
        problem: Why there is none; "" if there is one, or if a reference of the set shows this very photograph.
    """

    iou: Share | None
    problem: Text = ""


@dataclass(frozen=True)
class MeasureAnswer:
    """What a worker measured before it had to yield.

    Attributes:
        measured: One entry for each of the job's first sets. The others are to be asked for again.
        image: Digest of the pixels (`images.decode.pixels_digest`); "" if nothing was measured.
        model_version: Weights that computed the masks.
        error_code: Reason code if nothing more will come.
        error_message: The reason, for people.
    """

    measured: tuple[MeasuredSet, ...] = ()
    image: Text = ""
    model_version: Text = ""
    error_code: str | None = None
    error_message: Text = ""

    @classmethod
    def refused(cls, error: RefCutError) -> MeasureAnswer:
        """Make an answer without figures, with the reason."""
        return cls(error_code=error.code, error_message=str(error))

    def to_json(self) -> dict[str, Any]:
        """Convert to JSON."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: object) -> MeasureAnswer:
        """Read what `to_json` made. A reason code of a later version becomes `error`.

        Raises:
            MessageError: If the answer cannot be read.
        """
        answer = read_message(cls, data, "a measurement")
        return replace(answer, error_code=known_code(answer.error_code))


class MeasureQueue(PatientQueue[MeasureJob, MeasureAnswer]):
    """The queue of masks to measure references on."""

    NAME = MEASURE_QUEUE
    FUNCTION = MEASURE_FUNCTION
    DOING = "measured references"

    def _read(self, payload: Any) -> MeasureAnswer:
        return MeasureAnswer.from_json(payload)
