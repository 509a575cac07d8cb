"""What a project's owner does with references: look at them, name, pin and switch them off."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import cv2
import numpy as np
from numpy.typing import NDArray

from refcut_backend.database.projects import Projects
from refcut_backend.errors import LabelConfigError, RefCutError
from refcut_backend.label_studio.label_config import ProjectControls, read_label_config
from refcut_backend.references.owner_rules import Source
from refcut_backend.references.parse import Weakness, weaknesses
from refcut_backend.references.reconcile import Reconciler
from refcut_backend.references.registry import References, StoredReference
from refcut_backend.references.selection import Action, Candidate, OwnerRule, Place, State


class NoSuchReferenceError(RefCutError):
    """Nothing that the owner's words point at."""

    code = "no_reference"


@dataclass(frozen=True)
class ReferenceRow:
    """A reference as a list shows it."""

    candidate: Candidate
    state: State
    seen_at: datetime
    weaknesses: tuple[Weakness, ...]


class ReferenceManager:
    """The owner's word goes before what is marked in Label Studio, and survives edits, restarts and an empty Redis."""

    def __init__(
        self, references: References, projects: Projects, reconciler: Reconciler, max_references: int
    ) -> None:
        """max_references: how many references of a label are used at once."""
        self._references = references
        self._projects = projects
        self._reconciler = reconciler
        self._max_references = max_references

    def rows(self, project_id: int, label: str | None = None) -> list[ReferenceRow]:
        """A project's references, by label; those in use first. Raises NotConnectedError."""
        self._projects.connection(project_id)
        labels = self._labels_in_config(project_id)
        shown = self._references.overview(project_id, self._max_references, labels)
        return [
            ReferenceRow(
                listed.candidate,
                listed.state,
                listed.seen_at,
                self._weaknesses(listed.candidate.id, listed.state is not State.NO_LABEL),
            )
            for listed in shown
            if label is None or listed.candidate.label == label
        ]

    def rules_without_reference(self, project_id: int) -> list[OwnerRule]:
        """Rules that speak of a task or annotation from which there is no reference: deleted, or not labelled so."""
        listed = self._references.overview(project_id, self._max_references)
        found = [shown.candidate for shown in listed]
        rules = [r for r in self._references.rules.of_project(project_id) if r.task_id or r.annotation_id]
        return [r for r in rules if not any(r.covers(c.label, c.task_id, c.annotation_id) for c in found)]

    def load(self, place: Place, project_id: int) -> StoredReference:
        """The first reference there, one that is in use if there is one. Raises NoSuchReferenceError."""
        found = next(
            (row for row in self.rows(project_id, place.label) if _is_there(place, row.candidate)), None
        )
        stored = self._references.load(found.candidate.id) if found else None
        if stored is None:
            raise self._missing(project_id, place)
        return stored

    def add(self, project_id: int, place: Place) -> list[Candidate]:
        """Makes an annotation's regions of a label a reference though nobody marked them; returns what there is then.

        Without an annotation the task's newest submitted one that has the label is meant, also in future. Raises
        RefCutError when Label Studio has no such task or annotation, or when it lacks the label: nothing is kept then.
        """
        self._projects.connection(project_id)
        assert place.task_id is not None, "a reference is named by its task"
        labels = self._labels_in_config(project_id)
        if labels is not None and place.label not in labels:
            raise NoSuchReferenceError(
                f"the label config has no label '{place.label}' for masks",
                hint=f"it has: {', '.join(sorted(labels))}",
            )
        is_new = self._references.rules.add(project_id, place.rule(Action.ADD))
        try:
            exists = self._reconciler.compare_task(project_id, place.task_id)
            found = self._there(project_id, place)
            if not found:
                raise NoSuchReferenceError(
                    f"there is no region of {place}"
                    if exists
                    else f"Label Studio has no task {place.task_id}",
                    hint="only submitted annotations count"
                    if exists
                    else f"task ids of project {project_id} are shown in its list",
                )
        except RefCutError:
            if is_new:
                self._references.rules.remove(project_id, [place.rule(Action.ADD)])
            raise
        return found

    def remove(self, project_id: int, place: Place) -> None:
        """Takes back an `add`. Raises NoSuchReferenceError when there was none."""
        self._take_back(project_id, place, Action.ADD, "named")
        self._references.remove_no_longer_added(project_id)

    def pin(self, project_id: int, place: Place) -> None:
        """Has only the pinned references of a label used. Raises NoSuchReferenceError or NotConnectedError."""
        self._projects.connection(project_id)
        if place.task_id is None and place.annotation_id is None:
            raise NoSuchReferenceError("a pin needs a task or an annotation", hint="--task or --annotation")
        self._say(project_id, place, Action.PIN)

    def unpin(self, project_id: int, place: Place) -> None:
        """Takes back a `pin`. Raises NoSuchReferenceError when there was none."""
        self._take_back(project_id, place, Action.PIN, "pinned")

    def disable(self, project_id: int, place: Place) -> None:
        """Switches a reference off, or all of a label, also those that are still to come. Raises NotConnectedError."""
        self._projects.connection(project_id)
        if place.task_id is None and place.annotation_id is None:
            self._references.rules.add(project_id, place.rule(Action.DISABLE))
            return
        self._say(project_id, place, Action.DISABLE)

    def enable(self, project_id: int, place: Place) -> None:
        """Takes back a `disable`. Raises NoSuchReferenceError when there was none."""
        self._take_back(project_id, place, Action.DISABLE, "disabled")

    def _say(self, project_id: int, place: Place, action: Action) -> None:
        """One rule an annotation: it must not come to mean another one."""
        found = self._there(project_id, place)
        if not found:
            raise self._missing(project_id, place)
        for candidate in found:
            rule = OwnerRule(action, place.label, candidate.task_id, candidate.annotation_id)
            self._references.rules.add(project_id, rule)

    def _take_back(self, project_id: int, place: Place, action: Action, participle: str) -> None:
        def meant(source: Source) -> list[OwnerRule]:
            rules = self._references.rules.of_project(project_id, source)
            return [rule for rule in rules if rule.action is action and _speaks_of(rule, place)]

        found = meant(Source.COMMAND)
        if found:
            self._references.rules.remove(project_id, found)
        elif meant(Source.EXTRA_PARAMS):
            raise NoSuchReferenceError(
                f"{place} is {participle} by the project's extra parameters",
                hint="change them in Label Studio: Settings > Model > Edit",
            )
        else:
            raise NoSuchReferenceError(
                f"{place} is not {participle}", hint=f"see `refcut references list --project {project_id}`"
            )

    def _there(self, project_id: int, place: Place) -> list[Candidate]:
        return [c for c in self._references.of_label(project_id, place.label) if _is_there(place, c)]

    def _missing(self, project_id: int, place: Place) -> NoSuchReferenceError:
        return NoSuchReferenceError(
            f"there is no reference of {place}", hint=f"see `refcut references list --project {project_id}`"
        )

    def _labels_in_config(self, project_id: int) -> frozenset[str] | None:
        """None when the label config cannot be read."""
        try:
            controls: ProjectControls = read_label_config(self._projects.label_config(project_id) or "")
        except LabelConfigError:
            return None
        return controls.region_labels

    def _weaknesses(self, reference_id: int, label_in_config: bool) -> tuple[Weakness, ...]:
        stored = self._references.load(reference_id)
        if stored is None:
            return ()
        return weaknesses(stored.positive_hw, stored.negative_hw, label_in_config=label_in_config)


def _is_there(place: Place, candidate: Candidate) -> bool:
    return place.rule(Action.ADD).covers(candidate.label, candidate.task_id, candidate.annotation_id)


def _speaks_of(rule: OwnerRule, place: Place) -> bool:
    """Whether a rule says what `place` says, or says it of something inside `place`."""
    if place.task_id is None and place.annotation_id is None:
        return rule == place.rule(rule.action)
    return (
        rule.label == place.label
        and place.task_id in (None, rule.task_id)
        and place.annotation_id in (None, rule.annotation_id)
    )


GREEN, RED, WHITE = (40, 200, 60), (230, 50, 40), (255, 255, 255)


def draw_reference(
    image_rgb: NDArray[np.uint8], positive_hw: NDArray[np.bool_], negative_hw: NDArray[np.bool_] | None
) -> NDArray[np.uint8]:
    """A copy of the image (H, W, 3) with the target outlined in green, and what must stay out in red.

    Masks of another size than the image are stretched onto it: the image was replaced after it was annotated.
    """
    out = image_rgb.copy()
    thickness = max(1, round(max(out.shape[:2]) / 400))
    for mask_hw, colour in ((negative_hw, RED), (positive_hw, GREEN)):
        if mask_hw is None:
            continue
        size = (out.shape[1], out.shape[0])
        on_image = cv2.resize(mask_hw.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
        outlines, _ = cv2.findContours(on_image, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(out, outlines, -1, WHITE, thickness + 2)
        cv2.drawContours(out, outlines, -1, colour, thickness)
    return out


def as_png(image_rgb: NDArray[np.uint8]) -> bytes:
    """RGB (H, W, 3) as a PNG file."""
    ok, data = cv2.imencode(".png", cv2.cvtColor(image_rgb, cv2.COLOR_RGB2BGR))
    assert ok, "OpenCV always writes PNG"
    return data.tobytes()
