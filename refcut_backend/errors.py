"""Errors that reach an engineer or an annotator: a short code, what is wrong, and what to do."""

from __future__ import annotations

CANNOT_START = 3
"""Exit status of a worker that has said in one line why it cannot work: starting it again would not help. Python's own
status after a crash is 1, and a worker that crashed is replaced."""

START_AGAIN = 4
"""Exit status of a worker that ran out of memory too often: a fresh process is the cure."""


class RefCutError(Exception):
    """Base of every expected error. `code` goes into the `X-RefCut-Reason` header and the log."""

    code = "error"

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(f"{message}; {hint}" if hint else message)
        self.message = message
        self.hint = hint


class ConfigError(RefCutError):
    """A setting is missing, wrong, or does not fit another one."""

    code = "config"


class LabelConfigError(RefCutError):
    """The project's label config lacks what clicks need."""

    code = "label_config"


class BadRequestError(RefCutError):
    """A request is not of the form that Label Studio sends."""

    code = "bad_request"


class NoPositiveClickError(RefCutError):
    """All clicks take away, and there is nothing yet to take away from."""

    code = "no_positive_click"


class NoObjectError(RefCutError):
    """A click of the label that takes away found no object that it could belong to."""

    code = "no_object"


class BadMaskError(RefCutError):
    """A mask cannot be decoded, or is larger than it says."""

    code = "bad_mask"


class ImageError(RefCutError):
    """A task's image cannot be had or cannot be read."""

    code = "image"


class TooLargeError(ImageError):
    """More bytes were sent than are read."""


class AddressRefusedError(ImageError):
    """A server that must not be asked: it lies in a private network, and nobody vouches for it."""

    code = "address_refused"


class LabelStudioError(RefCutError):
    """Label Studio cannot be reached, or answers what it should not."""

    code = "label_studio"


class TokenError(LabelStudioError):
    """Label Studio does not take the token, or there is none."""

    code = "token"


class NotConnectedError(RefCutError):
    """The project is not known yet: Label Studio has not called /setup."""

    code = "not_connected"


class NoReferenceError(RefCutError):
    """Nothing says what any of the labels means."""

    code = "no_reference"


class ClickTimeoutError(RefCutError):
    """No worker answered within the deadline."""

    code = "timeout"


class QueueUnavailableError(RefCutError):
    """Redis cannot be reached."""

    code = "unavailable"


class DatabaseFailsError(RefCutError):
    """The database cannot be read, or does not take what must be stored."""

    code = "database"


class BusyError(RefCutError):
    """Too many clicks wait already."""

    code = "busy"


class SupersededError(RefCutError):
    """A newer click on the same object has taken this one's place."""

    code = "superseded"


class WorkerLostError(RefCutError):
    """The worker that held the click died or has not been heard of."""

    code = "worker_lost"


class OutOfMemoryError(RefCutError):
    """The worker had no memory for this click, even with empty caches."""

    code = "oom"


class ModelOutputError(RefCutError):
    """The network gave numbers that are no mask."""

    code = "model_output"


class RefusedJobError(RefCutError):
    """A job in Redis asks for something that workers do not do."""

    code = "refused_job"


class WorkersGivenUpError(RefCutError):
    """Workers die before they are ready, or have said that they cannot start."""

    code = "workers_given_up"


class ModelStoreError(RefCutError):
    """A version of the model is not there, damaged, or another project's; or the store cannot be written."""

    code = "model_store"
