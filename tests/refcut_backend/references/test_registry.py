from __future__ import annotations

from itertools import permutations
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, event
from sqlalchemy.orm import Session

from refcut_backend.database import tables
from refcut_backend.label_studio.payloads import Timestamp
from refcut_backend.references.annotation_states import AnnotationUpdate
from refcut_backend.references.owner_rules import ExtraParams
from refcut_backend.references.parse import LabelReference
from refcut_backend.references.registry import References
from refcut_backend.references.selection import Action, Author, Authors, OwnerRule, State, in_use

CREATED, UPDATED = "ANNOTATION_CREATED", "ANNOTATION_UPDATED"


def reference(column: int, label: str = "Door", *, explicitly_added: bool = False) -> LabelReference:
    mask_hw = np.zeros((9, 13), bool)
    mask_hw[2:5, column] = True
    return LabelReference(label, "image", mask_hw, ~mask_hw, explicitly_added)


def annotation_update(
    annotation: int, day: int, *found: LabelReference, project: int = 1, task: int = 3, **more: Any
) -> AnnotationUpdate:
    """An annotation that was updated on a day of January. Its image's address contains the task's id."""
    pairs = tuple((label_reference, f"/{task}.jpg") for label_reference in found)
    return AnnotationUpdate(
        project, annotation, task, Timestamp(f"2026-01-{day:02}T00:00:00Z"), pairs, **more
    )


def versions(references: References, label: str = "Door", limit: int = 4) -> list[str]:
    return [found.version for found in references.newest(1, label, limit)]


def test_a_stored_reference_comes_back_with_its_masks(engine):
    references = References(engine)
    references.annotations.apply_webhook(annotation_update(5, 1, reference(4)), CREATED)
    (found,) = references.newest(1, "Door", 4)
    stored = references.load(found.id)
    assert stored is not None
    assert (stored.task_id, stored.image_address, stored.version) == (3, "/3.jpg", found.version)
    assert np.array_equal(stored.positive_hw, reference(4).positive_hw)
    assert stored.negative_hw is not None
    assert np.array_equal(stored.negative_hw, ~reference(4).positive_hw)


def test_references_of_another_project_or_label_are_not_found(engine):
    references = References(engine)
    references.annotations.apply_webhook(annotation_update(5, 1, reference(4)), CREATED)
    assert references.newest(2, "Door", 4) == []
    assert references.newest(1, "Wheel", 4) == []


def test_the_same_ids_in_two_projects_stay_apart(engine):
    references = References(engine)
    for project in (1, 2):
        references.annotations.apply_webhook(
            annotation_update(5, project, reference(project), project=project), CREATED
        )
    references.annotations.remove_annotations(2, [5])
    references.annotations.remove_tasks(2, [3])
    assert versions(references) == [reference(1).version("/3.jpg")]
    assert references.newest(2, "Door", 4) == []


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_events_in_any_order_leave_the_newest_state(engine, order):
    references = References(engine)
    events = [annotation_update(5, day, reference(day)) for day in (1, 2, 3)]
    for number in [*order, *order]:
        references.annotations.apply_webhook(events[number], UPDATED)
    assert versions(references) == [reference(3).version("/3.jpg")]


def test_an_older_state_does_not_bring_back_a_reference_that_was_unmarked(engine):
    references = References(engine)
    references.annotations.apply_webhook(annotation_update(5, 2), UPDATED)
    references.annotations.apply_webhook(annotation_update(5, 1, reference(1)), CREATED)
    assert versions(references) == []


def test_the_newest_annotations_come_first_up_to_the_limit(engine):
    references = References(engine)
    for day in (2, 3, 1):
        references.annotations.apply_webhook(annotation_update(day, day, reference(day), task=day), CREATED)
    assert versions(references, limit=2) == [reference(day).version(f"/{day}.jpg") for day in (3, 2)]


def test_an_edit_makes_a_new_version_in_the_same_row(engine):
    references = References(engine)
    references.annotations.apply_webhook(annotation_update(5, 1, reference(1)), CREATED)
    (before,) = references.newest(1, "Door", 4)
    references.annotations.apply_webhook(annotation_update(5, 2, reference(2)), UPDATED)
    (after,) = references.newest(1, "Door", 4)
    assert after.id == before.id
    assert after.version != before.version
    stored = references.load(after.id)
    assert stored is not None
    assert np.array_equal(stored.positive_hw, reference(2).positive_hw)


def test_deleted_annotations_and_tasks_take_their_references_along(engine):
    references = References(engine)
    for number in (1, 2, 3):
        references.annotations.apply_webhook(
            annotation_update(number, 1, reference(number), task=10 * number), CREATED
        )
    references.annotations.remove_annotations(1, [1])
    references.annotations.remove_tasks(1, [20])
    assert versions(references) == [reference(3).version("/30.jpg")]


@pytest.mark.parametrize("kind", ["remove_annotations", "remove_tasks"])
def test_many_deletions_are_few_transactions_and_all_take_effect(engine, kind):
    references, commits = References(engine), []
    for number in (1, 2, 3):
        references.annotations.apply_webhook(
            annotation_update(number, 1, reference(number), task=number), CREATED
        )
    event.listen(engine, "commit", commits.append)
    getattr(references.annotations, kind)(1, [*range(200, 0, -1), 2, 2])
    assert len(commits) <= 200 / 50
    assert versions(references) == []
    for number in (1, 100, 200):
        late = annotation_update(number, 9, reference(number % 10), task=number)
        references.annotations.apply_webhook(late, UPDATED)
    assert versions(references) == []


def test_a_late_event_does_not_bring_a_deleted_annotation_or_task_back(engine):
    references = References(engine)
    references.annotations.remove_annotations(1, [1])
    references.annotations.remove_tasks(1, [20])
    references.annotations.apply_webhook(annotation_update(1, 9, reference(1), task=10), UPDATED)
    references.annotations.apply_webhook(annotation_update(2, 9, reference(2), task=20), CREATED)
    assert versions(references) == []


def test_label_studios_own_list_ends_a_deletion_that_never_was(engine):
    clock = [1000.0]
    references = References(engine)
    references.annotations._now = lambda: clock[0]
    references.annotations.remove_annotations(1, [5])
    requested_at = 1002.0
    assert not references.annotations.apply_listing(annotation_update(5, 1, reference(1)), requested_at)
    requested_at = 1060.0
    assert references.annotations.apply_listing(annotation_update(5, 1, reference(1)), requested_at)
    assert versions(references) == [reference(1).version("/3.jpg")]


def test_what_a_list_lacks_is_removed_unless_a_webhook_came_since_it_was_asked_for(engine):
    clock = [1000.0]
    references = References(engine)
    references.annotations._now = lambda: clock[0]
    references.annotations.apply_webhook(annotation_update(5, 1, reference(1)), CREATED)
    clock[0] = 1100.0
    references.annotations.apply_webhook(annotation_update(6, 1, reference(2)), CREATED)
    assert references.annotations.remove_missing(1, 3, present=[], requested_at=1050.0) == [5]
    assert versions(references) == [reference(2).version("/3.jpg")]


def test_an_older_list_does_not_overwrite_what_a_webhook_has_brought(engine):
    references = References(engine)
    references.annotations.apply_webhook(annotation_update(5, 2, reference(2)), UPDATED)
    assert not references.annotations.apply_listing(annotation_update(5, 1, reference(1)), 0.0)
    assert versions(references) == [reference(2).version("/3.jpg")]


def test_an_added_reference_is_used_as_long_as_its_rule_exists(engine):
    references = References(engine)
    rule = OwnerRule(Action.ADD, "Door", 3, 5)
    assert references.rules.add(1, rule)
    assert not references.rules.add(1, rule)
    assert references.rules.added_labels(1, 3, 5) == {"Door"}
    assert references.rules.added_labels(1, 3, 6) == references.rules.added_labels(2, 3, 5) == frozenset()
    references.annotations.apply_webhook(
        annotation_update(5, 1, reference(1, explicitly_added=True)), CREATED
    )
    assert len(versions(references)) == 1
    references.rules.remove(1, [rule])
    assert versions(references) == []


def test_extra_parameters_replace_only_their_own_rules(engine):
    references = References(engine)
    references.rules.add(1, OwnerRule(Action.DISABLE, "Hood"))
    for rules in (
        (OwnerRule(Action.DISABLE, "Door"), OwnerRule(Action.PIN, "Door", 1)),
        (OwnerRule(Action.DISABLE, "Wheel"),),
    ):
        references.rules.replace_extra_params(1, ExtraParams(rules))
    assert {rule.label for rule in references.rules.of_project(1)} == {"Hood", "Wheel"}


def test_rules_survive_an_edit_of_the_annotation(engine):
    references = References(engine)
    for annotation in (5, 6):
        references.annotations.apply_webhook(annotation_update(annotation, 1, reference(annotation)), CREATED)
    references.rules.add(1, OwnerRule(Action.PIN, "Door", 3, 5))
    references.annotations.apply_webhook(annotation_update(5, 2, reference(7)), UPDATED)
    assert versions(references) == [reference(7).version("/3.jpg")]


def test_an_overview_shows_every_reference_with_its_state(engine):
    references = References(engine, Authors.read("1"))
    references.annotations.apply_webhook(annotation_update(5, 1, reference(1), author=Author(1)), CREATED)
    references.annotations.apply_webhook(annotation_update(6, 2, reference(2), author=Author(2)), CREATED)
    references.annotations.apply_webhook(
        annotation_update(7, 3, reference(3, "Hood"), author=Author(1)), CREATED
    )
    shown = references.overview(1, 4, labels_in_config={"Door"})
    assert [(r.candidate.annotation_id, r.state) for r in shown] == [
        (5, State.USED),
        (6, State.AUTHOR),
        (7, State.NO_LABEL),
    ]


FEW = st.integers(1, 4)
STORED = st.fixed_dictionaries(
    {
        "task_id": FEW,
        "annotated_at": st.sampled_from(["2026-01-01", "2026-01-02", "2026-01-03"]),
        "explicitly_added": st.sampled_from([None, False, True]),
        "author_id": st.sampled_from([None, 1, 2]),
        "author_email": st.sampled_from([None, "Lead@example.com", "other@example.com"]),
        "place": st.sampled_from([None, None, 1, 2]),
    }
)


def stored(day: int, **more: Any) -> dict[str, Any]:
    """A marked reference of user 2, whose e-mail address is not known."""
    row = {"task_id": day, "annotated_at": f"2026-01-0{day}", "explicitly_added": None}
    return row | {"author_id": 2, "author_email": None, "place": None} | more


BJORN = "bj\u00f6rn@example.com"
SOME_ID = st.one_of(st.none(), FEW)
RULES = st.one_of(
    st.builds(OwnerRule, st.just(Action.ADD), st.just("Door"), FEW, SOME_ID),
    st.builds(OwnerRule, st.sampled_from([Action.PIN, Action.DISABLE]), st.just("Door"), SOME_ID, SOME_ID),
)


@example(rows=[stored(1), stored(2)], rules=[OwnerRule(Action.DISABLE, "Door", 2)], authors="", limit=1)
@example(rows=[stored(1), stored(2)], rules=[OwnerRule(Action.DISABLE, "Door", 2, 2)], authors="", limit=1)
@example(rows=[stored(1)], rules=[OwnerRule(Action.PIN, "Door")], authors="1", limit=1)
@example(rows=[stored(1), stored(2)], rules=[OwnerRule(Action.PIN, "Door", None, 1)], authors="", limit=1)
@example(rows=[stored(1), stored(2)], rules=[OwnerRule(Action.ADD, "Door", 1)], authors="", limit=1)
@example(rows=[stored(1), stored(2, explicitly_added=True)], rules=[], authors="", limit=1)
@example(rows=[stored(1, place=1), stored(2)], rules=[], authors="", limit=1)
@example(rows=[stored(1, author_email=BJORN.upper())], rules=[], authors=BJORN, limit=1)
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(STORED, max_size=10),
    rules=st.lists(RULES, max_size=3, unique=True),
    authors=st.sampled_from(["", "1", "lead@example.com", "2, lead@example.com", BJORN]),
    limit=st.integers(1, 3),
)
def test_a_click_uses_the_references_that_all_of_the_label_would_give(engine, rows, rules, authors, limit):
    """It reads only a few of them."""
    references = References(engine, Authors.read(authors))
    common = {"project_id": 1, "label": "Door", "to_name": "image", "image_address": "", "positive_png": b""}
    with Session(engine) as session, session.begin():
        session.execute(delete(tables.Reference))
        session.execute(delete(tables.OwnerRule))
        session.execute(delete(tables.ReferencePlace))
        for number, row in enumerate(rows, start=1):
            version = {"annotation_id": number, "version": f"{number:012}"}
            values = common | version | {name: value for name, value in row.items() if name != "place"}
            session.add(tables.Reference(**values))
            if row["place"]:
                where = {name: values[name] for name in ("project_id", "label", "task_id", "annotation_id")}
                session.add(tables.ReferencePlace(**where, place=row["place"]))
    for rule in rules:
        references.rules.add(1, rule)
    expected = in_use(references.of_label(1, "Door"), rules, references.authors, limit)
    assert versions(references, limit=limit) == [candidate.version for candidate in expected]
