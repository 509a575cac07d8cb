"""The reference registry: the masks that show what a project's labels mean, and which of them are in use."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import (
    ColumnElement,
    Engine,
    Integer,
    Row,
    Select,
    and_,
    bindparam,
    delete,
    false,
    func,
    or_,
    select,
    tuple_,
    update,
)
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from refcut_backend.database.tables import Reference, ReferencePlace
from refcut_backend.queue.messages import LeftOutReference
from refcut_backend.references.annotation_states import AnnotationStates
from refcut_backend.references.event_log import EventLog
from refcut_backend.references.owner_rules import OwnerRules
from refcut_backend.references.parse import png_to_mask
from refcut_backend.references.places import ReferencePlaces
from refcut_backend.references.selection import (
    EVERYBODY,
    Action,
    Author,
    Authors,
    Candidate,
    OwnerRule,
    RulesByTarget,
    State,
    in_use,
    states,
)

log = logging.getLogger("refcut.references")

_WITHOUT_MASKS = (
    Reference.id,
    Reference.version,
    Reference.label,
    Reference.task_id,
    Reference.annotation_id,
    Reference.annotated_at,
    Reference.explicitly_added.label("explicitly_added"),
    Reference.author_id,
    Reference.author_email,
    Reference.seen_at,
    Reference.problem,
    ReferencePlace.place,
)
_HAS_PLACE = and_(
    ReferencePlace.project_id == Reference.project_id,
    ReferencePlace.label == Reference.label,
    ReferencePlace.task_id == Reference.task_id,
    ReferencePlace.annotation_id == Reference.annotation_id,
)
_OF_PROJECT = (
    select(*_WITHOUT_MASKS)
    .select_from(Reference)
    .outerjoin(ReferencePlace, _HAS_PLACE)
    .where(Reference.project_id == bindparam("project_id"))
)
_OF_LABEL = _OF_PROJECT.where(Reference.label == bindparam("label"))
_NEWEST_MARKED = (
    _OF_LABEL.where(Reference.explicitly_added.is_not(True))
    .order_by(Reference.annotated_at.desc(), Reference.id.desc())
    .limit(bindparam("limit", type_=Integer))
)
"""Built once, because every click runs it."""


@dataclass(frozen=True)
class ReferenceVersion:
    """Identifies a reference (`id`, its row) in one state (`version`, a digest of image address and masks).

    Attributes:
        problem: Why it could not be used when it was last tried; None if it could.
    """

    id: int
    version: str
    problem: str | None = None


@dataclass(frozen=True)
class StoredReference:
    """A reference with its masks as 1-bit PNG files, which are decoded only by a worker that does not know it yet.

    Attributes:
        id: Its row; 0 if it was not loaded from the database.
    """

    version: str
    project_id: int
    task_id: int
    image_address: str
    positive_png: bytes
    negative_png: bytes | None
    id: int = 0

    @property
    def positive_hw(self) -> NDArray[np.bool_]:
        """Pixels that belong to the label: (H, W) in the image's frame."""
        return png_to_mask(self.positive_png)

    @property
    def negative_hw(self) -> NDArray[np.bool_] | None:
        """Pixels that do not belong to the label: (H, W) in the image's frame. None if unknown."""
        return None if self.negative_png is None else png_to_mask(self.negative_png)


@dataclass(frozen=True)
class ListedReference:
    """A reference as a list shows it. `seen_at` is the last change of its row."""

    candidate: Candidate
    state: State
    seen_at: datetime


@dataclass(frozen=True)
class ReferenceCounts:
    """Numbers of a project's references, in use or not.

    Attributes:
        labels: Labels that have references.
        references: References.
        left_out: References that could not be used when they were last tried.
    """

    labels: int
    references: int
    left_out: int


class References:
    """All references of all projects.

    Attributes:
        authors: Users whose marked regions become references.
        annotations: Applies reports about annotations to the registry.
        rules: Rules of the projects' owners, which take precedence over marked regions.
        places: Places in the order of use that owners chose.
        events: Record of webhooks.
    """

    def __init__(self, engine: Engine, authors: Authors = EVERYBODY) -> None:
        """Opens the registry.

        Args:
            engine: The database.
            authors: Users whose marked regions become references.
        """
        self._engine = engine
        self.authors = authors
        self.annotations = AnnotationStates(engine)
        self.rules = OwnerRules(engine)
        self.places = ReferencePlaces(engine)
        self.events = EventLog(engine)

    def newest(self, project_id: int, label: str, limit: int) -> list[ReferenceVersion]:
        """Returns the references that a click on a label uses.

        Args:
            project_id: The project.
            label: The clicked label.
            limit: Maximum number of references.

        Returns:
            References that the owner has moved first, then explicitly added ones, then those of the newest annotations.
            Only pinned ones, if any is pinned.
        """
        rules = self.rules.of_label(project_id, label)
        candidates = self._which_may_be_used(project_id, label, rules, limit)
        chosen = in_use(candidates, rules, self.authors, limit)
        return [ReferenceVersion(c.id, c.version, c.problem) for c in chosen]

    def _which_may_be_used(
        self, project_id: int, label: str, rules: Sequence[OwnerRule], limit: int
    ) -> list[Candidate]:
        """Returns the references of a label that `in_use` could choose: few, however many the label has.

        These are the newest that are marked, neither disabled nor of an author who may not give references, those that
        the owner has moved, and all of the tasks that a rule adds or pins. An added reference always has a rule that
        names its task or its annotation.
        """
        query = _NEWEST_MARKED.where(*_not_disabled(rules))
        authors, pins_all = self.authors, OwnerRule(Action.PIN, label) in rules
        if not pins_all and (authors.ids or authors.emails):
            if not all(email.isascii() for email in authors.emails):
                return self.of_label(project_id, label)  # SQLite knows no other letters' lower case
            email = func.lower(Reference.author_email)
            query = query.where(or_(Reference.author_id.in_(authors.ids), email.in_(authors.emails)))
        found = {row.id: row for row in self._rows(query, project_id=project_id, label=label, limit=limit)}
        named = [rule for rule in rules if rule.action in (Action.ADD, Action.PIN)]
        for column, ids in (
            (Reference.task_id, {rule.task_id for rule in named if rule.task_id}),
            (
                Reference.annotation_id,
                {rule.annotation_id for rule in named if rule.annotation_id}
                | self.places.annotations(project_id, label),
            ),
        ):
            if ids:
                of_rules = _OF_LABEL.where(column.in_(ids))
                rows = self._rows(of_rules, project_id=project_id, label=label)
                found |= {row.id: row for row in rows}
        return [_candidate(row) for row in found.values()]

    def of_label(self, project_id: int, label: str) -> list[Candidate]:
        """Returns all references of a label, in use or not."""
        return [_candidate(row) for row in self._rows(_OF_LABEL, project_id=project_id, label=label)]

    def overview(
        self, project_id: int, limit: int, labels_in_config: Collection[str] | None = None
    ) -> list[ListedReference]:
        """Returns all references of a project with their states.

        Args:
            project_id: The project.
            limit: Maximum number of references in use per label.
            labels_in_config: The label config's labels; None if they are not known.

        Returns:
            References ordered by label, those in use first.
        """
        by_label: dict[str, list[Candidate]] = {}
        seen: dict[int, datetime] = {}
        for row in self._rows(_OF_PROJECT, project_id=project_id):
            by_label.setdefault(row.label, []).append(_candidate(row))
            seen[row.id] = row.seen_at
        rules = self.rules.of_project(project_id)
        return [
            ListedReference(candidate, state, seen[candidate.id])
            for label in sorted(by_label)
            for candidate, state in states(
                by_label[label],
                rules,
                self.authors,
                limit,
                label_in_config=labels_in_config is None or label in labels_in_config,
            )
        ]

    def counts(self) -> dict[int, ReferenceCounts]:
        """Counts the references of all projects that have any, by project id."""
        query = select(
            Reference.project_id,
            func.count(Reference.label.distinct()),
            func.count(Reference.id),
            func.count(Reference.problem),
        ).group_by(Reference.project_id)
        with Session(self._engine) as session:
            return {project_id: ReferenceCounts(*numbers) for project_id, *numbers in session.execute(query)}

    def labels(self, project_id: int) -> set[str]:
        """Returns the labels that have references, in use or not."""
        query = select(Reference.label).where(Reference.project_id == project_id).distinct()
        with Session(self._engine) as session:
            return set(session.scalars(query))

    def remove_no_longer_added(self, project_id: int) -> None:
        """Removes references that existed only because of an owner's rule that was withdrawn."""
        rules = RulesByTarget(r for r in self.rules.of_project(project_id) if r.action is Action.ADD)
        added = self._rows(_OF_PROJECT.where(Reference.explicitly_added.is_(True)), project_id=project_id)
        withdrawn = [row.id for row in added if not rules.covering(row.label, row.task_id, row.annotation_id)]
        with Session(self._engine) as session, session.begin():
            session.execute(
                delete(Reference).where(Reference.id.in_(withdrawn), Reference.explicitly_added.is_(True))
            )

    def authors_without_email(self, project_id: int) -> set[int]:
        """Returns the users who gave references and whose e-mail address is not known."""
        query = select(Reference.author_id).where(
            Reference.project_id == project_id, Reference.author_email.is_(None)
        )
        with Session(self._engine) as session:
            return {user_id for user_id in session.scalars(query.distinct()) if user_id is not None}

    def set_email(self, project_id: int, user_id: int, email: str) -> None:
        """Stores the e-mail address of a user who gave references."""
        with Session(self._engine) as session, session.begin():
            session.execute(
                update(Reference)
                .where(Reference.project_id == project_id, Reference.author_id == user_id)
                .values(author_email=email, seen_at=Reference.seen_at)
            )

    def load(self, reference_id: int) -> StoredReference | None:
        """Returns a reference with its masks; None if it was removed in the meantime."""
        with Session(self._engine) as session:
            row = session.get(Reference, reference_id)
            if row is None:
                return None
            return StoredReference(
                version=row.version,
                project_id=row.project_id,
                task_id=row.task_id,
                image_address=row.image_address,
                positive_png=row.positive_png,
                negative_png=row.negative_png,
                id=row.id,
            )

    def note_use(
        self,
        tried: Iterable[ReferenceVersion],
        used: Collection[str],
        left_out: Collection[LeftOutReference],
    ) -> None:
        """Stores which references could be used and which could not, for lists. Writes only changes; never raises.

        Args:
            tried: The references, as `newest` returned them.
            used: Versions of those that a worker used.
            left_out: Those that it could not use.
        """
        problems = {one.id: one.problem for one in left_out}
        changed = [
            one
            for one in tried
            if (one.id in problems or one.version in used) and problems.get(one.id) != one.problem
        ]
        try:
            for one in changed:
                self._set_problem(one, problems.get(one.id))
        except SQLAlchemyError as error:
            log.warning("the use of references is not stored", extra={"problem": type(error).__name__})

    def _set_problem(self, reference: ReferenceVersion, problem: str | None) -> None:
        with Session(self._engine) as session, session.begin():
            session.execute(
                update(Reference)
                .where(Reference.id == reference.id, Reference.version == reference.version)
                .values(problem=problem, seen_at=Reference.seen_at)
            )
        if problem is not None:
            log.warning("reference left out", extra={"version": reference.version, "problem": problem})

    def _rows(
        self, query: Select[*tuple[Any, ...]], **parameters: int | str
    ) -> Sequence[Row[*tuple[Any, ...]]]:
        with self._engine.connect() as connection:
            return connection.execute(query, parameters).all()


def _not_disabled(rules: Sequence[OwnerRule]) -> list[ColumnElement[bool]]:
    """Conditions on references of a label that no rule disables."""
    disabled = [rule for rule in rules if rule.action is Action.DISABLE]
    tasks = {rule.task_id for rule in disabled if rule.task_id and not rule.annotation_id}
    annotations = {rule.annotation_id for rule in disabled if rule.annotation_id and not rule.task_id}
    both = {(rule.task_id, rule.annotation_id) for rule in disabled if rule.task_id and rule.annotation_id}
    return [
        *([false()] if any(not rule.task_id and not rule.annotation_id for rule in disabled) else []),
        *([Reference.task_id.not_in(tasks)] if tasks else []),
        *([Reference.annotation_id.not_in(annotations)] if annotations else []),
        *([tuple_(Reference.task_id, Reference.annotation_id).not_in(both)] if both else []),
    ]


def _candidate(row: Row[*tuple[Any, ...]]) -> Candidate:
    return Candidate(
        id=row.id,
        version=row.version,
        label=row.label,
        task_id=row.task_id,
        annotation_id=row.annotation_id,
        annotated_at=row.annotated_at,
        explicitly_added=bool(row.explicitly_added),
        author=Author(row.author_id, row.author_email),
        problem=row.problem,
        moved_to=row.place,
    )
