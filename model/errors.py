"""Errors that a person can act on: each says what is wrong and what to do about it."""

from __future__ import annotations

from collections.abc import Callable


class ModelError(Exception):
    """Base of every error that `model` raises on purpose.

    Args:
        message: What is wrong, without a full stop.
        hint: What to do about it; may be empty.

    Example:
        >>> from model import ModelError
        >>> str(ModelError("mask.png is missing", hint="check the path"))
        'mask.png is missing: check the path'
    """

    def __init__(self, message: str, *, hint: str) -> None:
        super().__init__(f"{message}: {hint}" if hint else message)
        self.message = message
        self.hint = hint

    def __reduce__(self) -> tuple[Callable[..., ModelError], tuple[type[ModelError], str, str]]:
        """Keeps the type of the error when it comes from another process."""
        return _again, (type(self), self.message, self.hint)


def _again(kind: type[ModelError], message: str, hint: str) -> ModelError:
    return kind(message, hint=hint)


class WeightsError(ModelError):
    """A weights file is missing, damaged, or of another kind."""


class RuntimeChoiceError(ModelError):
    """The chosen runtime cannot compute the network."""


class TrainingError(ModelError):
    """A training run cannot continue: there is not enough memory, or values are not finite."""


class DataError(ModelError):
    """A data set, image or mask cannot be used."""
