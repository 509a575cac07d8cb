"""What a project's owner can do with references: list, add, pin, disable and move them."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from datetime import datetime

from cachetools import LRUCache

from refcut_backend.database.projects import Projects
from refcut_backend.errors import LabelConfigError, RefCutError
from refcut_backend.images.uploads import Uploads
from refcut_backend.label_studio.label_config import ProjectControls, read_label_config
from refcut_backend.label_studio.project_ids import project_name
from refcut_backend.references.owner_rules import Source
from refcut_backend.references.parse import Weakness, weaknesses
from refcut_backend.references.places import after_move, selected_in_order
from refcut_backend.references.reconcile import Reconciler
from refcut_backend.references.registry import ListedReference, References, StoredReference
from refcut_backend.references.selection import (
    IN_ORDER,
    IN_USE,
    Action,
    Candidate,
    NoSuchReferenceError,
    OwnerRule,
    ReferenceSelector,
    RulesByTarget,
    State,
    places,
)

FACTS_KEPT = 5000


@dataclass(frozen=True)
class MaskFacts:
    """What a list shows of a reference's masks.

    Attributes:
        share: Share of the image that belongs to the label, 0..1.
        weaknesses: Reasons to check the reference.
    """

    share: float = 0.0
    weaknesses: tuple[Weakness, ...] = ()


@dataclass(frozen=True)
class ReferenceRow:
    """A reference as a list shows it.

    Attributes:
        candidate: The reference.
        state: Whether it is in use, and if not, why.
        seen_at: Last change of its row in the registry.
        facts: What is shown of its masks.
        place: Its place in the order of use, from 1 on; None if something other than the limit keeps it out of use.
    """

    candidate: Candidate
    state: State
    seen_at: datetime
    facts: MaskFacts
    place: int | None = None


@dataclass(frozen=True)
class LabelReferences:
    """The references of one label.

    Attributes:
        label: The label.
        rows: The first references, those in use first.
        total: Number of all references of the label.
        in_use: Number of those that clicks use: without the ones whose photograph cannot be read.
        in_order: Number of those that have a place in the order of use.
        is_moved: Whether the owner has chosen places.
        in_config: Whether the label config has the label.
    """

    label: str
    rows: tuple[ReferenceRow, ...]
    total: int
    in_use: int
    in_order: int = 0
    is_moved: bool = False
    in_config: bool = True


class ReferenceManager:
    """Changes the owner's rules, which take precedence over marked regions and survive edits and restarts."""

    def __init__(
        self,
        references: References,
        projects: Projects,
        uploads: Uploads,
        reconciler: Reconciler,
        max_references: int,
    ) -> None:
        """Wires the manager. `max_references` is the maximum number of references in use per label."""
        self._references = references
        self._projects = projects
        self._uploads = uploads
        self._reconciler = reconciler
        self._max_references = max_references
        self._facts_lock = threading.Lock()
        self._known_facts: LRUCache[tuple[int, str, bool], MaskFacts] = LRUCache(FACTS_KEPT)

    def rows(self, project_id: int, label: str | None = None) -> list[ReferenceRow]:
        """Returns a project's references ordered by label, those in use first.

        Args:
            project_id: The project.
            label: Returns only references of this label; None returns all.

        Raises:
            NotConnectedError: The project is unknown, or Label Studio's address is.
        """
        self._projects.connection(project_id)
        return [row for found in self.by_label(project_id, label) for row in found.rows]

    def by_label(
        self, project_id: int, label: str | None = None, most: int | None = None
    ) -> list[LabelReferences]:
        """Returns the references of a project's labels, and the labels of the config that have none.

        Args:
            project_id: The project.
            label: Returns only this label; None returns all.
            most: Maximum number of rows per label; None for all. A row costs the decoding of its masks once.

        Returns:
            Ordered by label.
        """
        in_config = self._labels_in_config(project_id)
        listed: dict[str, list[ListedReference]] = {name: [] for name in in_config or ()}
        for one in self._references.overview(project_id, self._max_references, in_config):
            listed.setdefault(one.candidate.label, []).append(one)
        return [
            self._of_label(name, listed[name], most, in_config is None or name in in_config)
            for name in sorted(listed)
            if label in (None, name)
        ]

    def _of_label(
        self, label: str, listed: list[ListedReference], most: int | None, in_config: bool
    ) -> LabelReferences:
        place_of = places((one.candidate, one.state) for one in listed)
        return LabelReferences(
            label=label,
            rows=tuple(
                ReferenceRow(
                    one.candidate,
                    one.state,
                    one.seen_at,
                    self._facts(one),
                    place_of[one.candidate.given_by] if one.state in IN_ORDER else None,
                )
                for one in listed[:most]
            ),
            total=len(listed),
            in_use=sum(one.state in IN_USE and one.candidate.problem is None for one in listed),
            in_order=len(place_of),
            is_moved=any(one.candidate.moved_to is not None for one in listed),
            in_config=in_config,
        )

    def labels_without_reference(self, project_id: int) -> list[str]:
        """Returns the labels of the config that can be clicked and have no reference in use."""
        labels = self._labels_in_config(project_id)
        shown = self._references.overview(project_id, self._max_references, labels)
        used = {listed.candidate.label for listed in shown if listed.state in IN_USE}
        try:
            return sorted(self._controls(project_id).clickable_labels - used)
        except LabelConfigError:
            return []

    def rules_without_reference(self, project_id: int) -> list[OwnerRule]:
        """Returns rules about a task or annotation that gives no reference: it was deleted or lacks the label."""
        listed = self._references.overview(project_id, self._max_references)
        rules = [r for r in self._references.rules.of_project(project_id) if r.task_id or r.annotation_id]
        by_target = RulesByTarget(rules)
        found = (shown.candidate for shown in listed)
        with_reference = {
            rule for c in found for rule in by_target.covering(c.label, c.task_id, c.annotation_id)
        }
        return [rule for rule in rules if rule not in with_reference]

    def load(self, selector: ReferenceSelector, project_id: int) -> StoredReference:
        """Returns the first selected reference, preferring one that is in use. Raises NoSuchReferenceError."""
        found = next(
            (row for row in self.rows(project_id, selector.label) if selector.selects(row.candidate)),
            None,
        )
        stored = self._references.load(found.candidate.id) if found else None
        if stored is None:
            raise self._missing(project_id, selector)
        return stored

    def add(self, project_id: int, selector: ReferenceSelector) -> list[Candidate]:
        """Makes an annotation's regions of a label a reference although none of them is marked.

        Args:
            project_id: The project.
            selector: Names a task. Without an annotation, it means the task's newest submitted annotation that has the
                label, now and in future.

        Returns:
            The references that the selector matches afterwards.

        Raises:
            RefCutError: Label Studio has no such task or annotation, or it lacks the label. No rule is stored then.
        """
        self._projects.connection(project_id)
        assert selector.task_id is not None, "a reference is added by its task"
        labels = self._labels_in_config(project_id)
        if labels is not None and selector.label not in labels:
            raise NoSuchReferenceError(
                f"the label config has no label '{selector.label}' for masks",
                hint=f"it has: {', '.join(sorted(labels))}",
            )
        is_new = self._references.rules.add(project_id, selector.rule(Action.ADD))
        try:
            exists = self._reconciler.compare_task(project_id, selector.task_id)
            found = self._selected(project_id, selector)
            if not found:
                raise NoSuchReferenceError(
                    f"there is no region of {selector}"
                    if exists
                    else f"Label Studio has no task {selector.task_id}",
                    hint="only submitted annotations count"
                    if exists
                    else f"task ids of project {project_name(project_id)} are shown in its list",
                )
        except RefCutError:
            if is_new:
                self._references.rules.remove(project_id, [selector.rule(Action.ADD)])
            raise
        return found

    def remove(self, project_id: int, selector: ReferenceSelector) -> None:
        """Withdraws an `add`. Raises NoSuchReferenceError if there is none."""
        self._withdraw(project_id, selector, Action.ADD, "added")
        self._references.remove_no_longer_added(project_id)
        self._uploads.drop_unused(project_id)

    def pin(self, project_id: int, selector: ReferenceSelector) -> None:
        """Restricts a label to its pinned references. Raises NoSuchReferenceError or NotConnectedError."""
        self._projects.connection(project_id)
        if selector.task_id is None and selector.annotation_id is None:
            raise NoSuchReferenceError("a pin needs a task or an annotation", hint="--task or --annotation")
        self._add_rules(project_id, selector, Action.PIN)

    def unpin(self, project_id: int, selector: ReferenceSelector) -> None:
        """Withdraws a `pin`. Raises NoSuchReferenceError if there is none."""
        self._withdraw(project_id, selector, Action.PIN, "pinned")

    def disable(self, project_id: int, selector: ReferenceSelector) -> None:
        """Disables a reference; without task and annotation, all present and future ones of a label.

        Raises:
            NotConnectedError: The project is unknown.
            NoSuchReferenceError: No reference matches the task or annotation.
        """
        self._projects.connection(project_id)
        if selector.task_id is None and selector.annotation_id is None:
            self._references.rules.add(project_id, selector.rule(Action.DISABLE))
            return
        self._add_rules(project_id, selector, Action.DISABLE)

    def enable(self, project_id: int, selector: ReferenceSelector) -> None:
        """Withdraws a `disable`. Raises NoSuchReferenceError if there is none."""
        self._withdraw(project_id, selector, Action.DISABLE, "disabled")

    def move(self, project_id: int, selector: ReferenceSelector, place: int) -> int:
        """Moves a reference to a place in the order in which clicks use the label's references.

        All that stand before it then keep their places, too (`places.py`).

        Args:
            project_id: The project.
            selector: Names one reference that is in use, or that only the limit keeps out of use.
            place: Its new place, from 1 on. A number that is too large stands for the last place.

        Returns:
            The place that it has now.

        Raises:
            NotConnectedError: The project is unknown.
            NoSuchReferenceError: No reference matches, several do, or the reference has no place.
        """
        self._projects.connection(project_id)
        listed = [(one.candidate, one.state) for one in self._listed(project_id, selector.label)]
        if not any(selector.selects(candidate) for candidate, _ in listed):
            raise self._missing(project_id, selector)
        moved = selected_in_order(listed, selector)
        chosen = after_move(listed, moved, place)
        self._references.places.replace(project_id, selector.label, chosen)
        return chosen[moved]

    def newest_first(self, project_id: int, label: str) -> None:
        """Withdraws every `move` of a label. Raises NotConnectedError or NoSuchReferenceError if there is none."""
        self._projects.connection(project_id)
        if all(one.candidate.moved_to is None for one in self._listed(project_id, label)):
            raise NoSuchReferenceError(f"no reference of '{label}' was moved", hint=_see_list(project_id))
        self._references.places.replace(project_id, label, {})

    def _listed(self, project_id: int, label: str) -> list[ListedReference]:
        overview = self._references.overview(
            project_id, self._max_references, self._labels_in_config(project_id)
        )
        return [one for one in overview if one.candidate.label == label]

    def _add_rules(self, project_id: int, selector: ReferenceSelector, action: Action) -> None:
        """Stores one rule per matching annotation, so that none of them applies to a later annotation."""
        found = self._selected(project_id, selector)
        if not found:
            raise self._missing(project_id, selector)
        for candidate in found:
            rule = OwnerRule(action, selector.label, candidate.task_id, candidate.annotation_id)
            self._references.rules.add(project_id, rule)

    def _withdraw(
        self, project_id: int, selector: ReferenceSelector, action: Action, participle: str
    ) -> None:
        def matching(source: Source) -> list[OwnerRule]:
            rules = self._references.rules.of_project(project_id, source)
            return [rule for rule in rules if rule.action is action and _concerns(rule, selector)]

        found = matching(Source.COMMAND)
        if found:
            self._references.rules.remove(project_id, found)
        elif matching(Source.EXTRA_PARAMS):
            raise NoSuchReferenceError(
                f"{selector} is {participle} by the project's extra parameters",
                hint="change them in Label Studio: Settings > Model > Edit",
            )
        else:
            raise NoSuchReferenceError(f"{selector} is not {participle}", hint=_see_list(project_id))

    def _selected(self, project_id: int, selector: ReferenceSelector) -> list[Candidate]:
        return [c for c in self._references.of_label(project_id, selector.label) if selector.selects(c)]

    def _missing(self, project_id: int, selector: ReferenceSelector) -> NoSuchReferenceError:
        return NoSuchReferenceError(f"there is no reference of {selector}", hint=_see_list(project_id))

    def _labels_in_config(self, project_id: int) -> frozenset[str] | None:
        """Returns the labels that take masks; None if the label config cannot be parsed, or if tasks add labels."""
        try:
            return self._controls(project_id).all_region_labels
        except LabelConfigError:
            return None

    def _controls(self, project_id: int) -> ProjectControls:
        return read_label_config(self._projects.label_config(project_id) or "")

    def _facts(self, listed: ListedReference) -> MaskFacts:
        in_config = listed.state is not State.NO_LABEL
        key = (listed.candidate.id, listed.candidate.version, in_config)
        with self._facts_lock:
            known = self._known_facts.get(key)
        if known is not None:
            return known
        stored = self._references.load(listed.candidate.id)
        if stored is None:
            return MaskFacts()
        positive_hw = stored.positive_hw
        found = weaknesses(positive_hw, stored.negative_hw, label_in_config=in_config)
        facts = MaskFacts(float(positive_hw.mean()), found)
        with self._facts_lock:
            self._known_facts[key] = facts
        return facts


def _see_list(project_id: int) -> str:
    return f"see `refcut references list --project {project_name(project_id)}`"


def _concerns(rule: OwnerRule, selector: ReferenceSelector) -> bool:
    """Whether a rule is about the selected references, or about a part of them."""
    if selector.task_id is None and selector.annotation_id is None:
        return rule == selector.rule(rule.action)
    return (
        rule.label == selector.label
        and selector.task_id in (None, rule.task_id)
        and selector.annotation_id in (None, rule.annotation_id)
    )
