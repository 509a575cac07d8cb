"""Which references of a label are in use: the owner's word first, then what is marked, the newest first."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from refcut_backend.errors import ConfigError


class Action(StrEnum):
    """What a project's owner can say about references."""

    ADD = "add"
    PIN = "pin"
    DISABLE = "disable"


@dataclass(frozen=True)
class OwnerRule:
    """Something that a project's owner has said, over what the regions are marked with.

    It holds for a label in a task and an annotation, so it survives edits of the annotation. task_id None: in every task.
    annotation_id None: in every annotation of the task; for ADD, in the newest one that has the label.
    """

    action: Action
    label: str
    task_id: int | None = None
    annotation_id: int | None = None

    def covers(self, label: str, task_id: int, annotation_id: int) -> bool:
        """Whether it speaks of what an annotation says about a label."""
        return (
            self.label == label
            and self.task_id in (None, task_id)
            and self.annotation_id in (None, annotation_id)
        )


@dataclass(frozen=True)
class Place:
    """A label, in all a project's tasks or in one, in all its annotations or in one."""

    label: str
    task_id: int | None = None
    annotation_id: int | None = None

    def rule(self, action: Action) -> OwnerRule:
        return OwnerRule(action, self.label, self.task_id, self.annotation_id)

    def __str__(self) -> str:
        parts = [f"'{self.label}'"]
        parts += [f"task {self.task_id}"] if self.task_id is not None else []
        parts += [f"annotation {self.annotation_id}"] if self.annotation_id is not None else []
        return ", ".join(parts)


@dataclass(frozen=True)
class Author:
    """Who saved an annotation last: Label Studio's user id, and the e-mail address where it is needed and known."""

    id: int | None = None
    email: str | None = None


UNKNOWN = Author()


@dataclass(frozen=True)
class Authors:
    """Who may give references by marking regions; empty = everybody."""

    ids: frozenset[int] = frozenset()
    emails: frozenset[str] = frozenset()

    def allow(self, author: Author) -> bool:
        if not self.ids and not self.emails:
            return True
        return author.id in self.ids or (author.email or "").lower() in self.emails

    @classmethod
    def read(cls, text: str) -> Authors:
        """User ids and e-mail addresses, comma separated. Raises ConfigError for what is neither."""
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
    """A stored reference as far as choosing goes. annotated_at sorts. named: not marked, so only a rule keeps it."""

    id: int
    version: str
    label: str
    task_id: int
    annotation_id: int
    annotated_at: str
    explicitly_added: bool = False
    author: Author = UNKNOWN


class State(StrEnum):
    """Whether a reference is in use, and why not."""

    PINNED = "pinned"
    EXPLICITLY_ADDED = "in use, named by the owner"
    USED = "in use"
    DISABLED = "disabled"
    NOT_PINNED = "not used: others are pinned"
    OVER_LIMIT = "not used: enough newer ones"
    OLDER = "not used: the task has a newer annotation"
    NO_LONGER_ADDED = "not used: no longer named"
    AUTHOR = "not used: its author may not give references"
    NO_LABEL = "not used: the label is no longer in the config"


IN_USE = frozenset({State.PINNED, State.EXPLICITLY_ADDED, State.USED})


def states(
    candidates: Iterable[Candidate],
    rules: Sequence[OwnerRule],
    authors: Authors,
    limit: int,
    *,
    label_in_config: bool = True,
) -> list[tuple[Candidate, State]]:
    """Every reference of one label with its state, those in use first, in the order in which they are used."""
    by_age = sorted(candidates, key=lambda c: (c.annotated_at, c.id), reverse=True)
    found: dict[int, State] = {}
    for candidate in by_age:
        found[candidate.id] = _own_state(candidate, by_age, rules, authors, label_in_config)
    if State.PINNED in found.values():
        found = {
            id: State.NOT_PINNED if state in (State.EXPLICITLY_ADDED, State.USED) else state
            for id, state in found.items()
        }
    order = list(State)
    ranked = sorted(by_age, key=lambda c: order.index(found[c.id]))
    for candidate in [c for c in ranked if found[c.id] in IN_USE][limit:]:
        found[candidate.id] = State.OVER_LIMIT
    return [(candidate, found[candidate.id]) for candidate in ranked]


def in_use(
    candidates: Iterable[Candidate], rules: Sequence[OwnerRule], authors: Authors, limit: int
) -> list[Candidate]:
    """The references that a click of the label looks at."""
    return [c for c, state in states(candidates, rules, authors, limit) if state in IN_USE]


def _own_state(
    candidate: Candidate,
    by_age: Sequence[Candidate],
    rules: Sequence[OwnerRule],
    authors: Authors,
    label_in_config: bool,
) -> State:
    """The state as if there were no others to compete with."""
    said = [r for r in rules if r.covers(candidate.label, candidate.task_id, candidate.annotation_id)]
    added = [rule for rule in said if rule.action is Action.ADD]
    if not label_in_config:
        return State.NO_LABEL
    if any(rule.action is Action.DISABLE for rule in said):
        return State.DISABLED
    if candidate.explicitly_added and not added:
        return State.NO_LONGER_ADDED
    if candidate.explicitly_added and all(rule.annotation_id is None for rule in added):
        newest = next(c for c in by_age if c.task_id == candidate.task_id)
        if newest != candidate:
            return State.OLDER
    if any(rule.action is Action.PIN for rule in said):
        return State.PINNED
    if not added and not authors.allow(candidate.author):
        return State.AUTHOR
    return State.EXPLICITLY_ADDED if added else State.USED
