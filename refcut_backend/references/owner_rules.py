"""Rules of the projects' owners: their storage, and how extra parameters are parsed into rules."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from sqlalchemy import Engine, Row, Select, bindparam, delete, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from refcut_backend.database import tables
from refcut_backend.errors import ConfigError
from refcut_backend.queue.messages import Pieces
from refcut_backend.references.selection import Action, OwnerRule

ANY = 0
"""Stored task or annotation id of a rule that applies to all of them."""


_OF_LABEL = select(
    tables.OwnerRule.action,
    tables.OwnerRule.label,
    tables.OwnerRule.task_id,
    tables.OwnerRule.annotation_id,
).where(tables.OwnerRule.project_id == bindparam("project_id"), tables.OwnerRule.label == bindparam("label"))
"""Built once, because every click runs it."""


class Source(StrEnum):
    """Where a rule was made. It can be withdrawn only there."""

    COMMAND = "command"
    EXTRA_PARAMS = "extra_params"


class OwnerRules:
    """Stores the rules of all projects. Rules stay when annotations are edited or deleted."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def of_project(self, project_id: int, source: Source | None = None) -> list[OwnerRule]:
        """Returns all rules of a project, or those from one source, oldest first."""
        query = select(tables.OwnerRule).where(tables.OwnerRule.project_id == project_id)
        if source is not None:
            query = query.where(tables.OwnerRule.source == source)
        return self._rules(query.order_by(tables.OwnerRule.id))

    def of_label(self, project_id: int, label: str) -> list[OwnerRule]:
        """Returns all rules of a project about a label."""
        with self._engine.connect() as connection:
            rows = connection.execute(_OF_LABEL, {"project_id": project_id, "label": label})
            return [_rule(row) for row in rows]

    def added_labels(self, project_id: int, task_id: int, annotation_id: int) -> frozenset[str]:
        """Returns the labels for which an ADD rule covers an annotation."""
        rules = [rule for rule in self.of_project(project_id) if rule.action is Action.ADD]
        return frozenset(rule.label for rule in rules if rule.covers(rule.label, task_id, annotation_id))

    def add(self, project_id: int, rule: OwnerRule) -> bool:
        """Stores a rule from the command line; returns False if it is already stored."""
        try:
            with Session(self._engine) as session, session.begin():
                session.add(_row(project_id, rule, Source.COMMAND))
        except IntegrityError:
            return False
        return True

    def remove(self, project_id: int, rules: Iterable[OwnerRule]) -> None:
        """Removes rules that were made on the command line."""
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

    def pieces(self, project_id: int, label: str) -> Pieces:
        """Returns which pieces of a label's masks stay: "auto" unless the extra parameters say so."""
        query = select(tables.LabelPieces.pieces).where(
            tables.LabelPieces.project_id == project_id, tables.LabelPieces.label == label
        )
        with self._engine.connect() as connection:
            return connection.scalar(query) or "auto"

    def replace_extra_params(self, project_id: int, given: ExtraParams) -> None:
        """Replaces everything that comes from a project's extra parameters."""
        try:
            with Session(self._engine) as session, session.begin():
                session.execute(
                    delete(tables.OwnerRule).where(
                        tables.OwnerRule.project_id == project_id,
                        tables.OwnerRule.source == Source.EXTRA_PARAMS,
                    )
                )
                session.execute(delete(tables.LabelPieces).where(tables.LabelPieces.project_id == project_id))
                session.add_all([_row(project_id, rule, Source.EXTRA_PARAMS) for rule in given.rules])
                session.add_all(
                    tables.LabelPieces(project_id=project_id, label=label, pieces=pieces)
                    for label, pieces in given.pieces.items()
                )
        except IntegrityError:
            # Two pages were opened at once, and the other request has just stored the same rules.
            return

    def _rules(self, query: Select[tables.OwnerRule]) -> list[OwnerRule]:
        with Session(self._engine) as session:
            return [_rule(row) for row in session.scalars(query)]


def _rule(row: tables.OwnerRule | Row[*tuple[Any, ...]]) -> OwnerRule:
    return OwnerRule(Action(row.action), row.label, row.task_id or None, row.annotation_id or None)


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


class _Selected(_Strict):
    task: _Id
    annotation: _Id | None = None


class _Disabled(_Strict):
    label: _Label
    task: _Id | None = None
    annotation: _Id | None = None


class _Known(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)

    references: dict[_Label, list[_Selected]] = Field(default_factory=dict)
    pin: dict[_Label, list[_Selected]] = Field(default_factory=dict)
    disable: list[_Label | _Disabled] = Field(default_factory=list)
    pieces: dict[_Label, Literal["all", "clicked"]] = Field(default_factory=dict)


@dataclass(frozen=True)
class ExtraParams:
    """Parsed extra parameters.

    Attributes:
        rules: The owner's rules about references.
        pieces: Label to which pieces of its masks stay.
        unknown_keys: Keys that are not known.
    """

    rules: tuple[OwnerRule, ...] = ()
    pieces: Mapping[str, Pieces] = field(default_factory=dict)
    unknown_keys: tuple[str, ...] = ()


def read_extra_params(extra_params: object) -> ExtraParams:
    """Parses the extra parameters of /setup.

    Args:
        extra_params: An object, or an object as JSON text. None and "" stand for no parameters.

    Raises:
        ConfigError: The parameters are invalid. The message never repeats their values.
    """
    given = _as_object(extra_params)
    try:
        known = _Known.model_validate(given)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        path = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"extra parameters: {path}: {first['msg']}", hint=_HINT) from None
    unknown = sorted(key for key in given if key not in _Known.model_fields)
    return ExtraParams(tuple(_rules(known)), dict(known.pieces), tuple(key[:100] for key in unknown[:20]))


def as_text(extra_params: object) -> str:
    """Returns parameters as text; the same text for equal objects."""
    return extra_params if isinstance(extra_params, str) else json.dumps(extra_params, sort_keys=True)


def _as_object(extra_params: object) -> dict[str, Any]:
    if extra_params is None or extra_params == "":
        return {}
    if len(as_text(extra_params)) > MAX_BYTES:
        raise ConfigError(f"extra parameters are longer than {MAX_BYTES} characters", hint=_HINT)
    if isinstance(extra_params, str):
        try:
            extra_params = json.loads(extra_params)
        except (ValueError, RecursionError):
            raise ConfigError("extra parameters are not JSON", hint=_HINT) from None
    if extra_params is None:
        return {}
    if not isinstance(extra_params, dict):
        raise ConfigError("extra parameters are not a JSON object", hint=_HINT)
    return extra_params


def _rules(known: _Known) -> list[OwnerRule]:
    rules = [
        OwnerRule(action, label, one.task, one.annotation)
        for action, by_label in ((Action.ADD, known.references), (Action.PIN, known.pin))
        for label, selected in by_label.items()
        for one in selected
    ]
    for disabled in known.disable:
        rules.append(
            OwnerRule(Action.DISABLE, disabled)
            if isinstance(disabled, str)
            else OwnerRule(Action.DISABLE, disabled.label, disabled.task, disabled.annotation)
        )
    return list(dict.fromkeys(rules))
