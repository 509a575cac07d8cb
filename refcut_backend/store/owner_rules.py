"""What the owners of projects have said about references."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import StrEnum

from sqlalchemy import Engine, Select, delete, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from refcut_backend.core.reference_choice import Action, OwnerRule
from refcut_backend.database import tables

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

    def named_labels(self, project_id: int, task_id: int, annotation_id: int) -> frozenset[str]:
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
