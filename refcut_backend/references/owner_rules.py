"""What the owners of projects have said about references."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from sqlalchemy import Engine, Select, delete, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from refcut_backend.database import tables
from refcut_backend.errors import ConfigError
from refcut_backend.references.selection import Action, OwnerRule

ANY = 0
"""Task or annotation of a rule that holds for all of them."""


class Source(StrEnum):
    """Where an owner said it: there it must be taken back, too."""

    COMMAND = "command"
    EXTRA_PARAMS = "extra_params"


class OwnerRules:
    """Rules of all projects. They are kept when annotations are edited or deleted."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def of_project(self, project_id: int, source: Source | None = None) -> list[OwnerRule]:
        """All rules of a project, or those said in one place."""
        query = select(tables.OwnerRule).where(tables.OwnerRule.project_id == project_id)
        if source is not None:
            query = query.where(tables.OwnerRule.source == source)
        return self._rules(query.order_by(tables.OwnerRule.id))

    def of_label(self, project_id: int, label: str) -> list[OwnerRule]:
        """All rules of a project that speak of a label."""
        query = select(tables.OwnerRule).where(
            tables.OwnerRule.project_id == project_id, tables.OwnerRule.label == label
        )
        return self._rules(query)

    def added_labels(self, project_id: int, task_id: int, annotation_id: int) -> frozenset[str]:
        """Labels for which an annotation was named as the reference."""
        rules = [rule for rule in self.of_project(project_id) if rule.action is Action.ADD]
        return frozenset(rule.label for rule in rules if rule.covers(rule.label, task_id, annotation_id))

    def add(self, project_id: int, rule: OwnerRule) -> bool:
        """Stores what the command line said; returns False when it has said so before."""
        try:
            with Session(self._engine) as session, session.begin():
                session.add(_row(project_id, rule, Source.COMMAND))
        except IntegrityError:
            return False
        return True

    def remove(self, project_id: int, rules: Iterable[OwnerRule]) -> None:
        """Takes back what the command line said."""
        with Session(self._engine) as session, session.begin():
            for rule in rules:
                session.execute(
                    delete(tables.OwnerRule).where(
                        tables.OwnerRule.project_id == project_id,
                        tables.OwnerRule.source == Source.COMMAND,
                        tables.OwnerRule.action == rule.action,
                        tables.OwnerRule.label == rule.label,
                        tables.OwnerRule.task_id == (rule.task_id or ANY),
                        tables.OwnerRule.annotation_id == (rule.annotation_id or ANY),
                    )
                )

    def replace_extra_params(self, project_id: int, rules: Sequence[OwnerRule]) -> None:
        """Makes these the ones that the project's extra parameters say."""
        try:
            with Session(self._engine) as session, session.begin():
                session.execute(
                    delete(tables.OwnerRule).where(
                        tables.OwnerRule.project_id == project_id,
                        tables.OwnerRule.source == Source.EXTRA_PARAMS,
                    )
                )
                session.add_all([_row(project_id, rule, Source.EXTRA_PARAMS) for rule in rules])
        except IntegrityError:
            # Two pages opened at once: the other request has just stored the same rules.
            return

    def _rules(self, query: Select[tables.OwnerRule]) -> list[OwnerRule]:
        with Session(self._engine) as session:
            return [
                OwnerRule(Action(r.action), r.label, r.task_id or None, r.annotation_id or None)
                for r in session.scalars(query)
            ]


def _row(project_id: int, rule: OwnerRule, source: Source) -> tables.OwnerRule:
    return tables.OwnerRule(
        project_id=project_id,
        source=source.value,
        action=rule.action.value,
        label=rule.label,
        task_id=rule.task_id or ANY,
        annotation_id=rule.annotation_id or ANY,
    )


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
