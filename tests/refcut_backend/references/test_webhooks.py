"""Webhooks into the registry: recorded ones, in any order, any number of times."""

from __future__ import annotations

import functools
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refcut_backend.references.selection import Action, Authors, OwnerRule, State
from tests.support.label_studio_api import LabelStudioApi, serving
from tests.support.recorded import LABEL_CONFIG, backend_request, recorded
from tests.support.registry import DOOR, MOVED, WHEEL, Registry, marked, open_registry

LIFE: list[dict[str, Any]] = [r["body"] for r in recorded("api_references_life")["backend_requests"]]
PROJECT = LIFE[0]["project"]["id"]
AT_THE_END = {("Door", 7), ("Wheel", 7), ("Door", 10)}
"""What Label Studio held when the recording ended: label and annotation of every region marked as a reference."""


@pytest.fixture
def label_studio() -> Iterator[LabelStudioApi]:
    with serving(LabelStudioApi()) as api:
        yield api


def references_after(events: list[dict[str, Any]]) -> set[tuple[str, int, str]]:
    with tempfile.TemporaryDirectory() as folder, open_registry(Path(folder)) as registry:
        registry.follow(*events)
        return registry.state(PROJECT)


@functools.cache
def in_order() -> frozenset[tuple[str, int, str]]:
    """What the recorded life leaves, once and in order."""
    return frozenset(references_after(LIFE))


def test_a_recorded_life_of_references_leaves_what_label_studio_holds_at_its_end(registry):
    registry.follow(*LIFE)
    assert {(label, annotation) for label, annotation, _ in registry.state(PROJECT)} == AT_THE_END


@pytest.mark.slow
@settings(max_examples=40)
@given(st.data())
def test_webhooks_duplicated_reordered_and_replayed_leave_the_same_state_as_once_in_order(data):
    repeated = data.draw(st.lists(st.sampled_from(LIFE), max_size=8))
    order = data.draw(st.permutations(LIFE + repeated))
    assert references_after(order) == in_order()


def test_a_late_event_does_not_bring_a_deleted_reference_back(registry, label_studio):
    created = label_studio.annotate(1, 10, DOOR, marked(DOOR))
    updated = label_studio.annotate(1, 10, MOVED, marked(MOVED))
    in_a_task = label_studio.annotate(2, 20, DOOR, marked(DOOR))
    registry.follow(created, label_studio.delete_annotation(1), label_studio.delete_task(20))
    registry.follow(updated, created, in_a_task)
    assert registry.in_use() == []


def test_annotations_made_in_bulk_give_references(registry):
    bulk = next(event for event in LIFE if event["action"] == "ANNOTATIONS_CREATED")
    registry.follow(bulk)
    assert len(bulk["annotation"]) == 2
    assert {annotation for _, annotation, _ in registry.state(PROJECT)} == {
        a["id"] for a in bulk["annotation"]
    }


@pytest.mark.parametrize("name", ["api_annotation_create", "api_annotation_delete", "api_train"])
def test_recorded_webhooks_without_references_change_nothing(registry, name):
    registry.follow(backend_request(name, "/webhook"))
    assert registry.state(2) == set()


@pytest.mark.parametrize(
    "webhook",
    [
        {"action": "START_TRAINING", "project": {"id": 7}},
        {"action": "ANNOTATIONS_DELETED", "project": {"id": 7}},
        {"action": "TASKS_DELETED"},
        {"action": "ANNOTATION_CREATED", "project": {"id": 7}},
        {"action": "ANNOTATION_CREATED", "project": {"id": 7}, "annotation": {"id": 3, "result": None}},
        {"action": "PROJECT_UPDATED", "project": {"id": 7}},
        {"action": "SOMETHING_NEW", "project": {"id": 7}, "annotation": {"id": 3}},
    ],
)
def test_a_webhook_that_lacks_what_it_should_carry_breaks_nothing(registry, label_studio, webhook):
    registry.follow(label_studio.annotate(1, 10, DOOR, marked(DOOR)), webhook)
    assert registry.in_use() == [1]


def test_a_skipped_annotation_is_no_reference_until_it_is_submitted_again(registry, label_studio):
    registry.follow(label_studio.annotate(1, 10, DOOR, marked(DOOR)))
    skipped = label_studio.annotate(1, 10, DOOR, marked(DOOR))
    skipped["annotation"]["was_cancelled"] = True
    registry.follow(skipped)
    assert registry.in_use() == []
    registry.follow(label_studio.annotate(1, 10, DOOR, marked(DOOR)))
    assert registry.in_use() == [1]


def test_projects_never_see_each_others_references(registry, label_studio):
    other = LabelStudioApi(project_id=8)
    registry.follow(
        label_studio.annotate(1, 10, DOOR, marked(DOOR)), other.annotate(1, 10, WHEEL, marked(WHEEL))
    )
    assert (registry.in_use("Door", 7), registry.in_use("Wheel", 7)) == ([1], [])
    assert (registry.in_use("Door", 8), registry.in_use("Wheel", 8)) == ([], [1])
    registry.follow(other.delete_task(10))
    assert registry.in_use("Door", 7) == [1]


def test_labels_that_leave_the_config_are_reported_and_no_longer_used(registry, label_studio, caplog):
    registry.connect(label_studio)
    registry.follow(label_studio.annotate(1, 10, DOOR, marked(DOOR)))
    config = LABEL_CONFIG.replace('value="Door"', 'value="Gate"')
    project = {"id": 7, "label_config": config, "updated_at": "2026-02-01T00:00:00Z"}
    registry.follow({"action": "PROJECT_UPDATED", "project": project})
    assert registry.projects.label_config(7) == config
    assert [
        record.labels for record in caplog.records if "no longer in the label config" in record.message
    ] == [["Door"]]
    (shown,) = registry.references.overview(7, 4, labels_in_config={"Gate"})
    assert shown.state is State.NO_LABEL
    late = project | {"label_config": LABEL_CONFIG, "updated_at": "2026-01-31T00:00:00Z"}
    registry.follow({"action": "PROJECT_UPDATED", "project": late})
    assert registry.projects.label_config(7) == config


def test_a_marked_region_that_cannot_be_read_is_logged_and_its_older_version_is_dropped(
    registry, label_studio, caplog
):
    registry.follow(label_studio.annotate(1, 10, DOOR, WHEEL, marked(DOOR), marked(WHEEL)))
    broken = {**DOOR, "value": {**DOOR["value"], "rle": [1, 2, 3]}}
    alone = {**broken, "original_width": 59}
    registry.follow(label_studio.annotate(1, 10, alone, marked(alone)))
    assert registry.in_use("Door") == []
    assert any("Door" in getattr(record, "problem", "") for record in caplog.records)


def test_an_added_annotation_is_followed_though_nothing_in_it_is_marked(registry, label_studio):
    registry.references.rules.add(7, OwnerRule(Action.ADD, "Wheel", 10, 1))
    registry.follow(label_studio.annotate(1, 10, DOOR, WHEEL))
    assert (registry.in_use("Wheel"), registry.in_use("Door")) == ([1], [])
    before = registry.state()
    registry.follow(label_studio.annotate(1, 10, MOVED, WHEEL))
    assert registry.state() != before
    registry.follow(label_studio.delete_annotation(1))
    assert registry.in_use("Wheel") == []


@pytest.mark.parametrize("authors", ["1", "LEAD@example.com"])
def test_only_allowed_authors_give_references(tmp_path, label_studio, authors):
    with open_registry(tmp_path, Authors.read(authors)) as registry:
        registry.connect(label_studio)
        registry.follow(label_studio.annotate(1, 10, DOOR, marked(DOOR), by=1))
        registry.follow(label_studio.annotate(2, 20, DOOR, marked(DOOR), by=2))
        assert registry.in_use() == [1]
        registry.follow(label_studio.annotate(1, 10, MOVED, marked(MOVED), by=2))
        assert registry.in_use() == []


def test_addresses_that_label_studio_did_not_tell_at_first_are_learnt_by_the_next_comparison(
    tmp_path, label_studio
):
    with open_registry(tmp_path, Authors.read("lead@example.com")) as registry:
        registry.connect(label_studio)
        label_studio.fails_with = 503
        registry.follow(label_studio.annotate(1, 10, DOOR, marked(DOOR), by=1))
        assert registry.in_use() == []
        label_studio.fails_with = None
        registry.reconciler.compare(7)
        assert registry.in_use() == [1]


API = LabelStudioApi()


@pytest.fixture
def rules_registry(tmp_path: Path) -> Iterator[Registry]:
    with open_registry(tmp_path) as opened:
        opened.connect(API)
        yield opened


@pytest.mark.parametrize("encode", [lambda params: params, json.dumps], ids=["object", "text"])
def test_extra_parameters_pin_and_disable_and_are_taken_back_with_them(rules_registry, encode):
    for number in (1, 2):
        rules_registry.follow(API.annotate(number, 10 * number, DOOR, WHEEL, marked(DOOR), marked(WHEEL)))
    extra_params = {"pin": {"Door": [{"task": 10}]}, "disable": ["Wheel"]}
    assert rules_registry.follower.follow_extra_params(7, encode(extra_params))
    assert not rules_registry.follower.follow_extra_params(7, encode(extra_params))
    assert (rules_registry.in_use("Door"), rules_registry.in_use("Wheel")) == ([1], [])
    assert rules_registry.follower.follow_extra_params(7, None)
    assert (sorted(rules_registry.in_use("Door")), sorted(rules_registry.in_use("Wheel"))) == ([1, 2], [1, 2])


def test_tasks_that_extra_parameters_no_longer_name_are_no_references(rules_registry):
    rules_registry.follower.follow_extra_params(7, {"references": {"Door": [{"task": 10}]}})
    rules_registry.follow(API.annotate(1, 10, DOOR))
    assert rules_registry.in_use() == [1]
    rules_registry.follower.follow_extra_params(7, {})
    assert rules_registry.state() == set()


@pytest.mark.parametrize(
    "extra_params",
    ["{not json", {"pin": 3}, {"disable": ["x" * 2**20]}, 17, '"\\ud800"', {"disable": ["\ud800"]}],
)
def test_invalid_extra_parameters_are_logged_once_and_the_last_parameters_stay_in_force(
    rules_registry, caplog, extra_params
):
    rules_registry.follow(API.annotate(1, 10, DOOR, marked(DOOR)))
    rules_registry.follower.follow_extra_params(7, {"disable": ["Door"]})
    for _ in range(3):
        assert not rules_registry.follower.follow_extra_params(7, extra_params)
    (record,) = [r for r in caplog.records if r.message == "extra parameters not used"]
    assert "docs/references.md" in record.problem
    assert rules_registry.in_use() == []


def test_keys_that_mean_nothing_are_named_in_the_log(rules_registry, caplog):
    rules_registry.follower.follow_extra_params(7, {"refrences": {}})
    assert ["refrences"] in [getattr(record, "keys", None) for record in caplog.records]
