"""How far a training is, and how it ended: what `/status`, Prometheus and `refcut train --status` say."""

from __future__ import annotations

from enum import StrEnum


class Stage(StrEnum):
    """What a training is doing."""

    QUEUED = "queued"
    SNAPSHOT = "snapshot"
    TRAINING = "training"
    JUDGING = "judging"
    DONE = "done"
    FAILED = "failed"


ENDED = frozenset({Stage.DONE, Stage.FAILED})


class Outcome(StrEnum):
    """How a training ended.

    PROMOTED: the new model serves. KEPT: the one that served goes on serving, and the reason says why. FAILED: there is
    no new model.
    """

    PROMOTED = "promoted"
    KEPT = "kept"
    FAILED = "failed"


class AskedBy(StrEnum):
    """Who or what wanted a training."""

    ANNOTATIONS = "annotations"
    SCHEDULE = "schedule"
    BUTTON = "button"
    COMMAND = "command"
