"""Errors that a person can act on: what is wrong, and what to do about it."""

from __future__ import annotations

from collections.abc import Callable


class ModelError(Exception):
    """Base of every error that `model` raises on purpose."""

    def __init__(self, message: str, *, hint: str) -> None:
        super().__init__(f"{message}: {hint}" if hint else message)
        self.message = message
        self.hint = hint

    def __reduce__(self) -> tuple[Callable[..., ModelError], tuple[type[ModelError], str, str]]:
        """So that it arrives from a process of `--workers` as what it was there."""
        return _again, (type(self), self.message, self.hint)


def _again(kind: type[ModelError], message: str, hint: str) -> ModelError:
    return kind(message, hint=hint)


class WeightsError(ModelError):
    """A weights file is missing, damaged, or not what it should be."""


class RuntimeChoiceError(ModelError):
    """The network cannot be computed by the runtime that was asked for."""


class TrainingError(ModelError):
    """A training run cannot go on: no memory, or numbers that are none."""


class DataError(ModelError):
    """A data set, image or mask cannot be used."""
