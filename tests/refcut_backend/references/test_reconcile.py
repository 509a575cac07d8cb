"""The registry compared with Label Studio's API: webhooks that were lost, deletions while the backend was down."""

from __future__ import annotations

from copy import deepcopy
from datetime import UTC, datetime

import pytest

from refcut_backend.errors import NotConnectedError
from refcut_backend.label_studio.connection import Connection
from refcut_backend.label_studio.payloads import Timestamp
from refcut_backend.label_studio.tasks import GoneError, SourceError
from refcut_backend.references.reconcile import LIST_ALL_EVERY_S
from tests.support.label_studio_api import TOKEN, LabelStudioApi
from tests.support.recorded import LABEL_CONFIG
from tests.support.registry import DOOR, MOVED, WHEEL, marked, open_registry


def annotations_read(api: LabelStudioApi) -> list[str]:
    return [path for path in api.requests if path.endswith("/annotations/")]


def test_a_reference_whose_webhook_was_lost_is_found(registry, label_studio_api):
    label_studio_api.annotate(1, 10, DOOR, marked(DOOR))
    registry.reconciler.compare(7)
    assert registry.in_use() == [1]


def test_an_edit_whose_webhook_was_lost_is_found(registry, label_studio_api):
    registry.follow(label_studio_api.annotate(1, 10, DOOR, marked(DOOR)))
    registry.reconciler.compare(7)
    before = registry.state()
    label_studio_api.annotate(1, 10, MOVED, marked(MOVED))
    registry.reconciler.compare(7)
    assert registry.in_use() == [1]
    assert registry.state() != before


def test_an_unmarking_whose_webhook_was_lost_is_found(registry, label_studio_api):
    registry.follow(label_studio_api.annotate(1, 10, DOOR, marked(DOOR)))
    label_studio_api.annotate(1, 10, DOOR)
    registry.reconciler.compare(7)
    assert registry.in_use() == []


@pytest.mark.parametrize("deletion", ["annotation", "task", "skip"])
@pytest.mark.parametrize("was_compared", [True, False])
def test_what_was_deleted_while_the_backend_was_down_is_gone(
    registry, label_studio_api, deletion, was_compared
):
    registry.follow(label_studio_api.annotate(1, 10, DOOR, marked(DOOR)))
    registry.follow(label_studio_api.annotate(2, 20, DOOR, marked(DOOR)))
    if was_compared:
        registry.reconciler.compare(7)
    if deletion == "annotation":
        label_studio_api.delete_annotation(1)
    elif deletion == "task":
        label_studio_api.delete_task(10)
    else:
        label_studio_api.annotate(1, 10, DOOR, marked(DOOR))
        label_studio_api.annotations[1]["was_cancelled"] = True
    registry.later(60)
    registry.reconciler.compare(7)
    assert registry.in_use() == [2]


def test_a_reference_that_a_webhook_brought_during_the_comparison_stays(registry, label_studio_api):
    """Label Studio's answer was on its way when the annotation was made."""
    registry.follow(label_studio_api.annotate(1, 10, DOOR, marked(DOOR)))
    del label_studio_api.annotations[1]
    registry.later(-60)
    registry.reconciler.compare(7)
    assert registry.in_use() == [1]


def test_a_deletion_that_never_was_is_mended(registry, label_studio_api):
    """Anyone who reaches /webhook can say that something was deleted; Label Studio knows better."""
    registry.follow(label_studio_api.annotate(1, 10, DOOR, marked(DOOR)))
    registry.reconciler.compare(7)
    registry.follow(
        {"action": "ANNOTATIONS_DELETED", "project": {"id": 7}, "annotations": [{"id": 1}]},
        {"action": "TASKS_DELETED", "project": {"id": 7}, "tasks": [{"id": 10}]},
    )
    registry.follow(label_studio_api.annotate(1, 10, MOVED, marked(MOVED)))
    assert registry.in_use() == []
    registry.later(60)
    registry.reconciler.compare(7)
    assert registry.in_use() == [1]


def test_the_registry_is_rebuilt_from_label_studio_when_the_database_was_lost(
    registry, label_studio_api, tmp_path
):
    for number in range(1, 4):
        registry.follow(label_studio_api.annotate(number, 10 * number, DOOR, marked(DOOR)))
    with open_registry(tmp_path / "new") as new:
        new.connect(label_studio_api)
        new.reconciler.compare(7)
        assert new.state() == registry.state()


@pytest.fixture
def large_project(registry, label_studio_api) -> LabelStudioApi:
    """A project with 100 references, compared until nothing is left to do. Later comparisons come a minute later."""
    for number in range(1, 101):
        registry.follow(label_studio_api.annotate(number, number, DOOR, marked(DOOR)))
    registry.later(60)
    for _ in range(2):
        registry.reconciler.compare(7)
    label_studio_api.requests.clear()
    return label_studio_api


def test_a_quiet_project_costs_one_request_however_many_references_it_has(registry, large_project):
    registry.reconciler.compare(7)
    assert large_project.requests == ["/api/tasks/"]


def test_a_change_costs_a_few_requests_however_many_references_there_are(registry, large_project):
    large_project.annotate(7, 7, MOVED, marked(MOVED))
    large_project.delete_annotation(50)
    before = registry.state()
    registry.reconciler.compare(7)
    assert large_project.requests.count("/api/tasks/") == 4
    assert annotations_read(large_project) == ["/api/tasks/7/annotations/", "/api/tasks/50/annotations/"]
    assert {annotation for _, annotation, _ in before ^ registry.state()} == {7, 50}


def test_a_deleted_task_is_noticed_though_as_many_were_imported(registry, large_project):
    large_project.delete_task(50)
    large_project.add_task(200)
    registry.reconciler.compare(7)
    assert {annotation for _, annotation, _ in registry.state()} == {*range(1, 101)} - {50}
    large_project.requests.clear()
    large_project.delete_task(51)
    registry.reconciler.compare(7)
    assert {annotation for _, annotation, _ in registry.state()} == {*range(1, 101)} - {50, 51}


def test_imported_tasks_are_not_listed(registry, large_project):
    for number in range(201, 301):
        large_project.add_task(number)
    for _ in range(2):
        registry.reconciler.compare(7)
    assert len(large_project.requests) <= 10
    assert annotations_read(large_project) == []


def test_a_skipped_annotation_whose_webhook_was_lost_gives_no_reference(registry, large_project):
    large_project.annotate(9, 9, DOOR, marked(DOOR))
    large_project.annotations[9]["was_cancelled"] = True
    registry.reconciler.compare(7)
    assert 9 not in {annotation for _, annotation, _ in registry.state()}


def test_after_a_failed_comparison_all_references_are_compared(registry, large_project):
    """Label Studio was away, a backup was restored, and somebody has worked on it since."""
    reverted = dict(large_project.annotations[40]), dict(large_project.tasks[40])
    registry.follow(large_project.annotate(40, 40, MOVED, marked(MOVED)))
    registry.later(120)
    for _ in range(2):
        registry.reconciler.compare(7)
    moved = registry.state()
    large_project.fails_with = 500
    with pytest.raises(SourceError):
        registry.reconciler.compare(7)
    large_project.fails_with = None
    large_project.annotations[40], large_project.tasks[40] = reverted
    registry.follow(large_project.annotate(60, 60, DOOR, marked(DOOR)))
    registry.later(180)
    registry.reconciler.compare(7)
    assert {annotation for _, annotation, _ in moved ^ registry.state()} == {40}


def test_what_label_studio_changed_without_a_sign_is_found_within_an_hour(registry, large_project):
    del large_project.annotations[50]
    large_project.tasks[50]["updated_at"] = large_project.tasks[1]["updated_at"]
    registry.later(LIST_ALL_EVERY_S + 60)
    registry.reconciler.compare(7)
    assert 50 not in {annotation for _, annotation, _ in registry.state()}


def test_what_a_comparison_could_not_finish_is_read_by_the_next_one_though_nothing_has_changed(
    registry, large_project
):
    registry.references.annotations.require_listing(7, [30])
    registry.reconciler.compare(7)
    assert annotations_read(large_project) == ["/api/tasks/30/annotations/"]


def test_what_webhooks_have_covered_is_not_read_again(registry, label_studio_api):
    registry.reconciler.compare(7)
    for number in range(1, 6):
        registry.follow(label_studio_api.annotate(number, 10 * number, DOOR, marked(DOOR)))
    registry.follow(label_studio_api.annotate(3, 30, MOVED, marked(MOVED)))
    registry.reconciler.compare(7)
    assert annotations_read(label_studio_api) == []


def test_only_tasks_whose_webhooks_may_have_been_lost_are_read(registry, label_studio_api):
    for number in range(1, 6):
        label_studio_api.annotate(number, 10 * number, DOOR, marked(DOOR))
    registry.reconciler.compare(7)
    label_studio_api.requests.clear()
    lost = label_studio_api.annotate(2, 20, MOVED, marked(MOVED))
    registry.follow(label_studio_api.annotate(9, 90, WHEEL))
    lost_too = label_studio_api.annotate(8, 40, WHEEL)
    registry.follow(label_studio_api.annotate(4, 40, DOOR, marked(DOOR)))
    assert (lost["action"], lost_too["action"]) == ("ANNOTATION_UPDATED", "ANNOTATION_CREATED")
    registry.reconciler.compare(7)
    assert sorted(annotations_read(label_studio_api)) == [
        "/api/tasks/20/annotations/",
        "/api/tasks/40/annotations/",
    ]


@pytest.mark.slow
def test_a_first_comparison_that_is_cut_off_goes_on_where_it_ended(registry, label_studio_api):
    for number in range(1, 61):
        label_studio_api.annotate(number, number, DOOR, *([marked(DOOR)] if number in (1, 40, 60) else []))
    label_studio_api.fails_on = "/api/tasks/40/annotations/"
    with pytest.raises(SourceError):
        registry.reconciler.compare(7)
    assert registry.in_use() == [1]
    label_studio_api.requests.clear()
    label_studio_api.fails_on = ""
    registry.reconciler.compare(7)
    assert sorted(registry.in_use()) == [1, 40, 60]
    assert len(annotations_read(label_studio_api)) == 21


def test_a_task_that_the_owner_added_is_read_though_nothing_in_it_is_marked(registry, label_studio_api):
    label_studio_api.annotate(1, 10, DOOR, WHEEL)
    registry.reconciler.compare(7)
    registry.follower.follow_extra_params(7, {"references": {"Wheel": [{"task": 10}]}})
    registry.reconciler.compare(7)
    assert registry.in_use("Wheel") == [1]
    label_studio_api.annotate(2, 10, WHEEL)
    registry.reconciler.compare(7)
    assert registry.in_use("Wheel") == [2]
    label_studio_api.delete_annotation(2)
    registry.later(60)
    registry.reconciler.compare(7)
    assert registry.in_use("Wheel") == [1]


def test_a_task_that_is_added_after_it_was_read_is_read_again(registry, label_studio_api):
    registry.follow(label_studio_api.annotate(1, 10, DOOR, WHEEL, marked(DOOR)))
    registry.reconciler.compare(7)
    registry.follower.follow_extra_params(7, {"references": {"Wheel": [{"task": 10}]}})
    registry.reconciler.compare(7)
    assert registry.in_use("Wheel") == [1]


def test_another_label_config_has_every_marked_annotation_read_again(registry, label_studio_api):
    without_role = LABEL_CONFIG.replace('<Choice value="Reference"/>', "")
    registry.projects.remember(7, label_studio_api.connection, without_role)
    label_studio_api.annotate(1, 10, DOOR, marked(DOOR))
    for _ in range(3):
        registry.reconciler.compare(7)
    assert registry.in_use() == []
    registry.connect(label_studio_api)
    registry.reconciler.compare(7)
    assert registry.in_use() == [1]


@pytest.mark.parametrize("task", [10, 20])
def test_another_label_config_during_a_comparison_has_the_next_one_read_everything(
    registry, label_studio_api, monkeypatch, task
):
    """While the task's own annotations are applied, or those of a later task."""
    without_role = LABEL_CONFIG.replace('<Choice value="Reference"/>', "")
    registry.projects.remember(7, label_studio_api.connection, without_role)
    label_studio_api.annotate(1, 10, DOOR, marked(DOOR))
    label_studio_api.annotate(2, 20, DOOR, marked(DOOR))
    read = registry.follower.read

    def read_then_change(project_id, annotation, listed, label_config):
        found = read(project_id, annotation, listed, label_config)
        if listed.id == task:
            registry.connect(label_studio_api)
        return found

    with monkeypatch.context() as patch:
        patch.setattr(registry.follower, "read", read_then_change)
        registry.reconciler.compare(7)
    registry.reconciler.compare(7)
    assert registry.in_use() == [1, 2]


@pytest.mark.parametrize(
    ("status", "message"),
    [(401, "REFCUT_ACCESS_TOKEN"), (403, "REFCUT_ACCESS_TOKEN"), (500, "500"), (429, "429")],
)
def test_a_refusal_says_what_to_do_and_changes_nothing(registry, label_studio_api, status, message):
    registry.follow(label_studio_api.annotate(1, 10, DOOR, marked(DOOR)))
    label_studio_api.fails_with = status
    with pytest.raises(SourceError, match=message) as error:
        registry.reconciler.compare(7)
    assert "canary" not in str(error.value)
    assert registry.in_use() == [1]


def test_a_project_that_label_studio_does_not_have_keeps_its_references(registry, label_studio_api):
    """The address may lead elsewhere for a while; a project without clicks needs no cleaning up."""
    registry.follow(label_studio_api.annotate(1, 10, DOOR, marked(DOOR)))
    label_studio_api.project_id = 99
    with pytest.raises(GoneError):
        registry.reconciler.compare(7)
    assert registry.in_use() == [1]


def test_a_server_that_is_not_label_studio_is_named(registry, label_studio_api):
    registry.projects.remember(7, Connection("http://127.0.0.1:9", TOKEN), LABEL_CONFIG)
    with pytest.raises(SourceError, match="cannot be reached") as error:
        registry.reconciler.compare(7)
    assert TOKEN not in str(error.value)
    registry.projects.remember(7, Connection("http://127.0.0.1:9", ""), LABEL_CONFIG)
    with pytest.raises(SourceError, match="token"):
        registry.reconciler.compare(7)


def test_an_unknown_project_is_not_compared(registry):
    with pytest.raises(NotConnectedError):
        registry.reconciler.compare(99)


def test_label_studio_that_goes_back_in_time_is_believed(registry, label_studio_api):
    """A backup was restored, or its clock was an hour ahead for a while."""
    label_studio_api.annotate(1, 10, DOOR)
    label_studio_api.annotate(2, 20, DOOR, marked(DOOR))
    tasks, annotations = deepcopy(label_studio_api.tasks), deepcopy(label_studio_api.annotations)
    registry.follow(label_studio_api.annotate(1, 10, DOOR, marked(DOOR)))
    registry.follow(
        label_studio_api.annotate(2, 20, DOOR), label_studio_api.annotate(3, 30, DOOR, marked(DOOR))
    )
    registry.reconciler.compare(7)
    assert sorted(registry.in_use()) == [1, 3]
    label_studio_api.tasks, label_studio_api.annotations = tasks, annotations
    registry.later(60)
    registry.reconciler.compare(7)
    assert registry.in_use() == [2]


@pytest.mark.parametrize("stamp", ["9999-12-31T23:59:59Z", "no time at all"])
def test_a_webhook_from_the_future_wins_only_until_the_next_comparison(registry, label_studio_api, stamp):
    registry.follow(label_studio_api.annotate(1, 10, DOOR, marked(DOOR)))
    registry.reconciler.compare(7)
    forged = label_studio_api.annotate(1, 10, DOOR)
    label_studio_api.annotate(1, 10, DOOR, marked(DOOR))
    forged["annotation"]["updated_at"] = forged["task"]["updated_at"] = stamp
    registry.follow(forged)
    assert registry.in_use() == []
    registry.later(60)
    registry.reconciler.compare(7)
    assert registry.in_use() == [1]
    registry.follow(label_studio_api.annotate(1, 10, DOOR))
    assert registry.in_use() == [], "later edits count"


def test_a_task_of_the_future_does_not_hide_later_changes(registry, label_studio_api):
    label_studio_api.annotate(1, 10, DOOR)
    label_studio_api.tasks[10]["updated_at"] = "9999-12-31T23:59:59.000000Z"
    for _ in range(2):
        registry.reconciler.compare(7)
    label_studio_api.annotate(2, 20, DOOR, marked(DOOR))
    label_studio_api.tasks[20]["updated_at"] = Timestamp(datetime.now(UTC))
    registry.reconciler.compare(7)
    assert registry.in_use() == [2]


def test_a_label_config_from_the_future_does_not_hide_later_ones(registry, label_studio_api):
    projects = registry.projects
    assert projects.label_config_changed(7, "<View><!-- forged --></View>", Timestamp("9999-01-01T00:00:00Z"))
    assert projects.label_config_changed(7, LABEL_CONFIG, Timestamp("2026-01-01T00:00:00Z"))
    assert not projects.label_config_changed(7, "<View/>", Timestamp("2025-01-01T00:00:00Z"))
