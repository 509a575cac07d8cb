"""Every reason code that a person may see, with its meaning and its remedy: add a new code here.

A code travels in the header `X-RefCut-Reason`, in log lines, in metrics and in `/status`. `refcut reasons` prints the
table of `docs/label-studio.md`, and a test keeps the two equal.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

CANNOT_START = 3
"""Exit status of a worker that cannot work and has logged why; the supervisor does not start it again. A crash of Python
itself has status 1, and a worker that crashed is replaced."""

START_AGAIN = 4
"""Exit status of a worker that ran out of memory too often; the supervisor replaces it by a fresh process."""


@dataclass(frozen=True)
class Reason:
    """A reason code that is no failure: there is an answer, but no mask.

    Attributes:
        code: The short word in headers, logs and metrics.
        meaning: What happened, for an annotator or the owner of a project.
        remedy: What to do about it; empty when there is nothing to do.
    """

    code: str
    meaning: str
    remedy: str = ""


WITHOUT_ERROR = (
    Reason("no_clicks", "nothing to do: Label Studio sends an empty list after a submit"),
    Reason("empty_mask", "no pixel is left after this click", "remove a negative click"),
    Reason(
        "prelabel_off",
        "a prediction without a click was requested, but pre-labelling is off",
        "`REFCUT_PRELABEL=open` or `batch`, or `refcut prelabel`, see [pre-labelling](prelabelling.md)",
    ),
    Reason(
        "prelabel_open_only",
        "many tasks were requested at once, but only single tasks are pre-labelled",
        "`REFCUT_PRELABEL=batch`, see [pre-labelling](prelabelling.md)",
    ),
)
"""Reasons without an exception of their own."""


class RefCutError(Exception):
    """Base of every expected error.

    Attributes:
        code: The reason code, see `Reason.code`.
        meaning: The code's meaning, for the documented table.
        remedy: The code's remedy, for the documented table.
        message: What went wrong this time.
        hint: What to do about it this time; may be empty.
    """

    code: str = "error"
    meaning: ClassVar[str] = "an unexpected failure in a worker"
    remedy: ClassVar[str] = "report it with the traceback in the worker's log"

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(f"{message}; {hint}" if hint else message)
        self.message = message
        self.hint = hint


class ConfigError(RefCutError):
    """A setting is missing or invalid, or contradicts another one."""

    code = "config"
    meaning = "a setting is missing or invalid"
    remedy = "the message names the setting; [settings](settings.md) explains it"


class LabelConfigError(RefCutError):
    """The project's label config lacks a control that clicks need."""

    code = "label_config"
    meaning = "no control of the label config takes masks of the clicked label"
    remedy = "list the same labels in all controls"


class BadRequestError(RefCutError):
    """A request does not have the form that Label Studio sends."""

    code = "bad_request"
    meaning = "Label Studio does not send requests of this form"
    remedy = "the log names the field"


class NoPositiveClickError(RefCutError):
    """All clicks are negative, and there is no mask yet to take them away from."""

    code = "no_positive_click"
    meaning = "all clicks are negative, and there is no mask yet"
    remedy = "begin with a click without Alt"


class NoObjectError(RefCutError):
    """A click of the label for negative clicks belongs to no object."""

    code = "no_object"
    meaning = "a dot of the label *Negative*, *Smaller* or *Larger* belongs to no object"
    remedy = "click an object of another label first"


class BadMaskError(RefCutError):
    """A mask cannot be decoded, or does not have the size that it declares."""

    code = "bad_mask"
    meaning = "a mask cannot be decoded, or has the wrong size"
    remedy = "draw the region again; the log says what is wrong with it"


class ImageError(RefCutError):
    """A task's image cannot be fetched or decoded."""

    code = "image"
    meaning = "the image cannot be fetched or decoded"
    remedy = "the log says why and names the setting"


class OrientationError(ImageError):
    """The browser shows an image turned by a quarter against the decoded one, so no mask can fit both."""

    code = "orientation"
    meaning = (
        "the annotator's browser turns the image by its orientation mark, or does not, unlike this backend"
    )
    remedy = (
        "save the image upright and without the mark (`mogrify -auto-orient -strip`), and import it again"
    )


class TooLargeError(ImageError):
    """A response has more bytes than the limit allows."""


class AddressRefusedError(ImageError):
    """The image is on a server in a private network that no setting allows."""

    code = "address_refused"
    meaning = "the image lies in a private network"
    remedy = "`REFCUT_IMAGE_HOSTS`, if the backend may fetch from that host"


class LabelStudioError(RefCutError):
    """Label Studio cannot be reached, or its response is not usable."""

    code = "label_studio"
    meaning = "Label Studio cannot be reached, or is overloaded"
    remedy = "`LABEL_STUDIO_HOST`, `REFCUT_LABEL_STUDIO_URL`"


class TokenError(LabelStudioError):
    """Label Studio refuses the token, or there is no token."""

    code = "token"
    meaning = "Label Studio refuses the token"
    remedy = "`REFCUT_ACCESS_TOKEN`, a personal access token"


class NotConnectedError(RefCutError):
    """The project is unknown, because Label Studio has not called /setup for it."""

    code = "not_connected"
    meaning = "Label Studio has not called /setup for this project"
    remedy = "open Settings > Model once"


class UnclearProjectError(RefCutError):
    """Several known projects fit what a request says about its project."""

    code = "project_unclear"
    meaning = "two Label Studios have a project of this number, and the request does not say which is meant"
    remedy = "`refcut projects list`; use a backend of its own for one of them"


class NoReferenceError(RefCutError):
    """No label of the request has a reference."""

    code = "no_reference"
    meaning = "no label has a reference, so nothing can be found without a click"
    remedy = "mark a region *Reference* and submit it, see [references](references.md)"


class ClickTimeoutError(RefCutError):
    """No worker answered by the deadline."""

    code = "timeout"
    meaning = "no worker answered within `REFCUT_CLICK_TIMEOUT_S`"
    remedy = "start a worker if none runs; if one runs, it is too slow: `refcut doctor` says how long a click takes"


class WorkerStartingError(RefCutError):
    """No worker answered by the deadline, and one is loading its model."""

    code = "starting"
    meaning = "the worker is still starting: it loads the model"
    remedy = "wait a moment and click again"


TOO_SLOW = "the machine is busy or too slow: use fewer workers or a GPU, or raise REFCUT_CLICK_TIMEOUT_S"
"""Hint of a timeout while a worker runs."""


class QueueUnavailableError(RefCutError):
    """Redis cannot be reached."""

    code = "unavailable"
    meaning = "Redis cannot be reached"
    remedy = "check that Redis is running"


class QueueNotWritableError(QueueUnavailableError):
    """Redis answers, but writes nothing: it has no memory left, is a replica, or cannot save to its disk."""

    code = "queue_not_writable"
    meaning = "Redis answers but cannot be written: no memory left, read-only, or its disk is full"
    remedy = "the log says which; `maxmemory` of Redis, its disk, and `REFCUT_REDIS_URL`"


class MessageError(RefCutError, ValueError):
    """A job or an answer in Redis cannot be read: another version wrote it, or somebody else."""

    code = "bad_message"
    meaning = "a job or an answer in Redis cannot be read"
    remedy = "run web servers and workers of one version; find out who else writes to this Redis"


class DatabaseFailsError(RefCutError):
    """The database cannot be read or written."""

    code = "database"
    meaning = "the database cannot be read or written"
    remedy = "check its disk, and `REFCUT_DATABASE_URL`"


class BusyError(RefCutError):
    """The workers have more clicks than they can answer in time."""

    code = "busy"
    meaning = "so many clicks are waiting that this one would not be answered soon"
    remedy = "click again; more workers (`REFCUT_WORKERS`)"


class SupersededError(RefCutError):
    """A newer click on the same object replaces this one."""

    code = "superseded"
    meaning = "a newer click on the same object replaced this one"
    remedy = ""


class WorkerLostError(RefCutError):
    """The worker that had the click died, or its heartbeat stopped."""

    code = "worker_lost"
    meaning = "the worker died while it computed the click"
    remedy = "click again; the worker's log says why"


class OutOfMemoryError(RefCutError):
    """The worker ran out of memory, even after it had emptied its caches."""

    code = "oom"
    meaning = "the worker ran out of memory, even with empty caches"
    remedy = "`REFCUT_FEATURE_CACHE_MAX_BYTES`, or fewer workers"


class ModelOutputError(RefCutError):
    """The network's output contains values that are not finite."""

    code = "model_output"
    meaning = "the network's output contains values that are not finite"
    remedy = "check the model's weights, or `refcut models rollback`"


class RefusedJobError(RefCutError):
    """A job in Redis names a function that workers do not run."""

    code = "refused_job"
    meaning = "a job in Redis names a function that workers do not run"
    remedy = "find out who else writes to this Redis"


class WorkersGivenUpError(RefCutError):
    """Workers die before they are ready, or report that they cannot start."""

    code = "workers_given_up"
    meaning = "workers die before they are ready"
    remedy = "the worker's log says why"


class ModelStoreError(RefCutError):
    """A model version is missing, damaged or of another project; or the model store cannot be written."""

    code = "model_store"
    meaning = "a model version is missing or damaged, or the model store cannot be written"
    remedy = "`REFCUT_MODEL_STORE`, `refcut models list`"


def all_reasons() -> list[Reason]:
    """Every reason code once, in the order in which this module defines them."""
    found = {reason.code: reason for reason in WITHOUT_ERROR}
    for error in _error_classes(RefCutError):
        # Subclasses elsewhere share a code with one of this module, or take over the code of a worker's answer.
        if error.__module__ == __name__ and error.code not in found:
            found[error.code] = Reason(error.code, error.meaning, error.remedy)
    return list(found.values())


def _error_classes(base: type[RefCutError]) -> Iterator[type[RefCutError]]:
    yield base
    for child in base.__subclasses__():
        yield from _error_classes(child)


def reasons_table() -> str:
    """A Markdown table with one row per reason code."""
    rows = ["| reason | what it means | what to do |", "| --- | --- | --- |"]
    rows += [f"| `{r.code}` | {r.meaning} | {r.remedy or '-'} |" for r in all_reasons()]
    return "\n".join(rows)
