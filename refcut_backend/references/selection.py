"""Selects the references of a label that are in use.

References that the owner has moved come first, then added ones, then marked regions; within both, the newest annotation
comes first. `State` lists every outcome.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import product

from refcut_backend.errors import ConfigError, RefCutError

NO_TASK = 0
"""Task of a reference that came from a set. Label Studio counts from 1."""


class NoSuchReferenceError(RefCutError):
    """The selected reference, task, label or rule does not exist."""

    code = "no_reference"


class Action(StrEnum):
    """Kinds of owner rules.

    ADD uses an annotation's regions although none is marked. PIN uses only the pinned references of a label. DISABLE uses
    none that it covers.
    """

    ADD = "add"
    PIN = "pin"
    DISABLE = "disable"


@dataclass(frozen=True)
class OwnerRule:
    """A rule of a project's owner. It takes precedence over marked regions, and survives edits of the annotation.

    Attributes:
        action: Kind of rule.
        label: The label that it is about.
        task_id: None for every task.
        annotation_id: None for every annotation of the task; with ADD, for the newest one that has the label.
    """

    action: Action
    label: str
    task_id: int | None = None
    annotation_id: int | None = None

    def covers(self, label: str, task_id: int, annotation_id: int) -> bool:
        """Whether the rule applies to the reference that an annotation gives for a label."""
        return (
            self.label == label
            and self.task_id in (None, task_id)
            and self.annotation_id in (None, annotation_id)
        )


class RulesByTarget:
    """Rules by what they are about, so that a click stays fast on a label with hundreds of references from sets."""

    def __init__(self, rules: Iterable[OwnerRule]) -> None:
        self._rules: dict[tuple[str, int | None, int | None], list[OwnerRule]] = {}
        for rule in rules:
            self._rules.setdefault((rule.label, rule.task_id, rule.annotation_id), []).append(rule)

    def covering(self, label: str, task_id: int, annotation_id: int) -> list[OwnerRule]:
        """Returns the rules whose `covers` is true."""
        targets = product((label,), (None, task_id), (None, annotation_id))
        return [rule for target in targets for rule in self._rules.get(target, ())]


@dataclass(frozen=True)
class ReferenceSelector:
    """Selects references of a label: in every task or in one, in every annotation or in one. None selects all."""

    label: str
    task_id: int | None = None
    annotation_id: int | None = None

    def rule(self, action: Action) -> OwnerRule:
        """Returns the rule that does `action` with the selected references."""
        return OwnerRule(action, self.label, self.task_id, self.annotation_id)

    def selects(self, candidate: Candidate) -> bool:
        """Whether a reference is selected."""
        return self.rule(Action.ADD).covers(candidate.label, candidate.task_id, candidate.annotation_id)

    def __str__(self) -> str:
        parts = [f"'{self.label}'"]
        parts += [f"task {self.task_id}"] if self.task_id is not None else []
        parts += [f"annotation {self.annotation_id}"] if self.annotation_id is not None else []
        return ", ".join(parts)


@dataclass(frozen=True)
class Author:
    """User who saved an annotation last: Label Studio's user id, and the e-mail address if it is needed and known."""

    id: int | None = None
    email: str | None = None


UNKNOWN = Author()


@dataclass(frozen=True)
class Authors:
    """Users whose marked regions become references. Empty allows everybody."""

    ids: frozenset[int] = frozenset()
    emails: frozenset[str] = frozenset()

    def allow(self, author: Author) -> bool:
        """Whether an author's marked regions become references."""
        if not self.ids and not self.emails:
            return True
        return author.id in self.ids or (author.email or "").lower() in self.emails

    @classmethod
    def read(cls, text: str) -> Authors:
        """Parses REFCUT_REFERENCE_AUTHORS: user ids and e-mail addresses, separated by commas.

        Raises:
            ConfigError: An entry is neither a user id nor an e-mail address.
        """
        ids, emails = set[int](), set[str]()
        for part in filter(None, (part.strip() for part in text.split(","))):
            if part.isascii() and part.isdigit():
                ids.add(int(part))
            elif "@" in part:
                emails.add(part.lower())
            else:
                raise ConfigError(
                    f"REFCUT_REFERENCE_AUTHORS: '{part}' is neither a user id nor an e-mail address",
                    hint="separate them with commas",
                )
        return cls(frozenset(ids), frozenset(emails))


EVERYBODY = Authors()


@dataclass(frozen=True)
class Candidate:
    """A stored reference with everything that the selection depends on.

    Attributes:
        annotated_at: The annotation's `updated_at`, in a form that sorts by time.
        explicitly_added: No region is marked, so only an ADD rule puts it in use.
        author: User who saved the annotation last.
        problem: Why it could not be used when it was last tried; None if it could.
        moved_to: Place among the label's references that the owner chose, from 1 on; None if the owner chose none.
    """

    id: int
    version: str
    label: str
    task_id: int
    annotation_id: int
    annotated_at: str
    explicitly_added: bool = False
    author: Author = UNKNOWN
    problem: str | None = None
    moved_to: int | None = None

    @property
    def given_by(self) -> tuple[int, int]:
        """Task and annotation. The owner's decisions are about these."""
        return self.task_id, self.annotation_id

    @property
    def is_from_set(self) -> bool:
        """Whether it came from a set, so that no annotation of the project gives it."""
        return self.task_id == NO_TASK


class State(StrEnum):
    """Whether a reference is in use, and if not, why. The order of the members is the order in lists."""

    PINNED = "pinned"
    EXPLICITLY_ADDED = "in use, added by the owner"
    USED = "in use"
    DISABLED = "disabled"
    NOT_PINNED = "not used: others are pinned"
    OVER_LIMIT = "not used: enough others come first"
    OLDER = "not used: the task has a newer annotation"
    NO_LONGER_ADDED = "not used: no longer added by the owner"
    AUTHOR = "not used: its author may not give references"
    NO_LABEL = "not used: the label is no longer in the config"


IN_USE = frozenset({State.PINNED, State.EXPLICITLY_ADDED, State.USED})
IN_ORDER = IN_USE | {State.OVER_LIMIT}
"""States of references that have a place in the order of use: only the limit may keep them out of use."""


def states(
    candidates: Iterable[Candidate],
    rules: Sequence[OwnerRule],
    authors: Authors,
    limit: int,
    *,
    label_in_config: bool = True,
) -> list[tuple[Candidate, State]]:
    """Determines the states of all references of one label.

    Args:
        candidates: All references of the label.
        rules: The project's rules, at least those about the label.
        authors: Users whose marked regions become references.
        limit: Maximum number of references in use.
        label_in_config: Whether the label config still has the label.

    Returns:
        Every reference with its state; those in use first, in the order in which they are used.
    """
    by_age = sorted(candidates, key=lambda c: (c.annotated_at, c.id), reverse=True)
    found: dict[int, State] = {}
    by_target = RulesByTarget(rules)
    for candidate in by_age:
        found[candidate.id] = _own_state(candidate, by_age, by_target, authors, label_in_config)
    if State.PINNED in found.values():
        found = {
            number: State.NOT_PINNED if state in (State.EXPLICITLY_ADDED, State.USED) else state
            for number, state in found.items()
        }
    ranked = sorted(by_age, key=lambda c: _rank(c, found[c.id]))
    for candidate in [c for c in ranked if found[c.id] in IN_USE][limit:]:
        found[candidate.id] = State.OVER_LIMIT
    return [(candidate, found[candidate.id]) for candidate in ranked]


def in_use(
    candidates: Iterable[Candidate], rules: Sequence[OwnerRule], authors: Authors, limit: int
) -> list[Candidate]:
    """Returns the references that a click on the label uses, in their order. Arguments are those of `states`."""
    return [c for c, state in states(candidates, rules, authors, limit) if state in IN_USE]


_ORDER_OF_STATES = {state: number for number, state in enumerate(State)}


def _rank(candidate: Candidate, state: State) -> tuple[bool, float, int]:
    """Sorts references of equal age: those that could be used first, and of these the moved ones first."""
    is_usable = state in IN_USE
    moved_to = candidate.moved_to if is_usable else None
    return not is_usable, math.inf if moved_to is None else moved_to, _ORDER_OF_STATES[state]


def places(listed: Iterable[tuple[Candidate, State]]) -> dict[tuple[int, int], int]:
    """Returns the place in the order of use, from 1 on, of the annotations that `states` listed with a label."""
    ordered = dict.fromkeys(candidate.given_by for candidate, state in listed if state in IN_ORDER)
    return {given_by: number for number, given_by in enumerate(ordered, start=1)}


def _own_state(
    candidate: Candidate,
    by_age: Sequence[Candidate],
    rules: RulesByTarget,
    authors: Authors,
    label_in_config: bool,
) -> State:
    """The state before pins of other references and the limit are considered."""
    matching = rules.covering(candidate.label, candidate.task_id, candidate.annotation_id)
    added = [rule for rule in matching if rule.action is Action.ADD]
    if not label_in_config:
        return State.NO_LABEL
    if any(rule.action is Action.DISABLE for rule in matching):
        return State.DISABLED
    if candidate.explicitly_added and not added:
        return State.NO_LONGER_ADDED
    if candidate.explicitly_added and all(rule.annotation_id is None for rule in added):
        newest = next(c for c in by_age if c.task_id == candidate.task_id)
        if newest != candidate:
            return State.OLDER
    if any(rule.action is Action.PIN for rule in matching):
        return State.PINNED
    if not added and not authors.allow(candidate.author):
        return State.AUTHOR
    return State.EXPLICITLY_ADDED if added else State.USED
