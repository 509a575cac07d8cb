"""The extra parameters that a project's owner can give in Label Studio, beside the backend's address."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from refcut_backend.core.reference_choice import Action, OwnerRule
from refcut_backend.errors import ConfigError

MAX_BYTES = 64 * 2**10
_HINT = "docs/references.md shows the form"

_Id = Annotated[int, Field(gt=0, lt=2**53)]
_Label = Annotated[str, Field(min_length=1, max_length=500)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Place(_Strict):
    task: _Id
    annotation: _Id | None = None


class _Disabled(_Strict):
    label: _Label
    task: _Id | None = None
    annotation: _Id | None = None


class _Known(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)

    references: dict[_Label, list[_Place]] = Field(default_factory=dict)
    pin: dict[_Label, list[_Place]] = Field(default_factory=dict)
    disable: list[_Label | _Disabled] = Field(default_factory=list)


@dataclass(frozen=True)
class ExtraParams:
    """What the owner says about references, and the keys that mean nothing here."""

    rules: tuple[OwnerRule, ...] = ()
    unknown_keys: tuple[str, ...] = ()


def read_extra_params(said: object) -> ExtraParams:
    """The `extra_params` of /setup: an object, or the same as JSON text; nothing and "" are no parameters.

    Raises ConfigError that says what is wrong and never repeats the values.
    """
    given = _as_object(said)
    try:
        known = _Known.model_validate(given)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"extra parameters: {place}: {first['msg']}", hint=_HINT) from None
    unknown = sorted(key for key in given if key not in _Known.model_fields)
    return ExtraParams(tuple(_rules(known)), tuple(key[:100] for key in unknown[:20]))


def as_text(said: object) -> str:
    """One text for the same parameters, however they were sent."""
    return said if isinstance(said, str) else json.dumps(said, sort_keys=True)


def _as_object(said: object) -> dict[str, Any]:
    if said is None or said == "":
        return {}
    if len(as_text(said)) > MAX_BYTES:
        raise ConfigError(f"extra parameters are longer than {MAX_BYTES} characters", hint=_HINT)
    if isinstance(said, str):
        try:
            said = json.loads(said)
        except (ValueError, RecursionError):
            raise ConfigError("extra parameters are no JSON", hint=_HINT) from None
    if said is None:
        return {}
    if not isinstance(said, dict):
        raise ConfigError("extra parameters are no JSON object", hint=_HINT)
    return said


def _rules(known: _Known) -> list[OwnerRule]:
    rules = [
        OwnerRule(action, label, place.task, place.annotation)
        for action, named in ((Action.ADD, known.references), (Action.PIN, known.pin))
        for label, places in named.items()
        for place in places
    ]
    for off in known.disable:
        rules.append(
            OwnerRule(Action.DISABLE, off)
            if isinstance(off, str)
            else OwnerRule(Action.DISABLE, off.label, off.task, off.annotation)
        )
    return list(dict.fromkeys(rules))
