"""Rows 9, 10 and 11 of the fault list, as training sees them: what there is to learn from, and what of it is new."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import event, func, insert, select, update
from sqlalchemy.orm import Session

from refcut_backend.database.tables import AnnotationState, WebhookEvent
from refcut_backend.training.new_annotations import ROWS_AT_ONCE, AnnotationCounts
from tests.support.recorded import backend_request, click_result
from tests.support.training_world import World, open_world, parts


def counts(world: World) -> tuple[int, int]:
    return world.counts().annotations, world.counts().new


def events(world: World) -> int:
    with Session(world.registry.engine) as session:
        return session.scalar(select(func.count()).select_from(WebhookEvent)) or 0


@pytest.fixture(scope="module")
def orders(tmp_path_factory):
    """A function that replays webhooks on a fresh project."""
    numbers = itertools.count()

    def replay(webhooks: list[dict]) -> AnnotationCounts:
        folder = tmp_path_factory.mktemp(f"order-{next(numbers)}")
        with open_world(folder) as fresh:
            fresh.registry.follow(*webhooks)
            return AnnotationCounts(fresh.counts().annotations, fresh.counts().new)

    return replay


def story(world: World) -> list[dict]:
    """Made, changed, made, deleted; skipped; a task deleted."""
    first = [world.annotate(1), world.annotate(1), world.annotate(2), world.annotate(3), world.annotate(4)]
    skipped = world.annotate(5)
    skipped["annotation"] |= {"was_cancelled": True}
    return [*first, skipped, world.api.delete_annotation(3), world.api.delete_task(4)]


@pytest.mark.slow
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_webhooks_twice_late_or_in_any_order_give_the_same_training_set(world, orders, data):
    webhooks = story(world)
    repeated = [*webhooks, *data.draw(st.lists(st.sampled_from(webhooks), max_size=5))]
    assert orders(data.draw(st.permutations(repeated))) == AnnotationCounts(2, 2)


def test_each_event_is_in_the_log_once(world):
    webhooks = story(world)
    world.registry.follow(*webhooks)
    once = events(world)
    world.registry.follow(*reversed(webhooks), *webhooks)
    assert once == len(webhooks) == events(world)


def test_a_project_edit_is_in_the_log_once(world):
    edit = {"action": "PROJECT_UPDATED", "project": {"id": 7, "updated_at": "2026-01-01T00:00:00Z"}}
    world.registry.follow(edit, edit)
    assert events(world) == 1


def test_what_lost_webhooks_would_have_brought_is_found_by_the_comparison(world):
    world.annotate(1)
    world.annotate(2)
    assert counts(world) == (0, 0)
    world.registry.reconciler.compare(7)
    assert counts(world) == (2, 2)
    world.annotate(2)
    world.annotate(3)
    world.registry.reconciler.compare(7)
    assert counts(world) == (3, 3)


def test_a_lost_webhook_about_a_change_is_found_after_a_training(world):
    world.annotate_many(6)
    world.train()
    world.annotate(2)
    assert counts(world) == (6, 0)
    world.registry.reconciler.compare(7)
    assert counts(world) == (6, 1)


def test_a_lost_webhook_about_a_deletion_is_found_by_the_next_training(world):
    world.annotate_many(6)
    with Session(world.registry.engine) as session, session.begin():
        session.execute(update(AnnotationState).values(webhook_at=AnnotationState.webhook_at - 60))
    world.api.delete_annotation(2)
    world.train()
    assert counts(world) == (5, 0)


def test_what_a_training_has_seen_before_any_event_came_is_not_new_when_one_comes(world):
    webhooks = [world.annotate(task) for task in range(1, 7)]
    world.train()
    world.registry.follow(*webhooks[:3])
    world.registry.reconciler.compare(7)
    assert counts(world) == (6, 0)


def test_annotations_made_in_bulk_all_count(world):
    webhooks = [world.annotate(task) for task in (1, 2, 3)]
    bulk = {
        "action": "ANNOTATIONS_CREATED",
        "project": webhooks[0]["project"],
        "annotation": [webhook["annotation"] for webhook in webhooks],
        "task": [webhook["task"] for webhook in webhooks],
    }
    world.registry.follow(bulk)
    assert counts(world) == (3, 3)


def test_annotations_that_are_deleted_together_no_longer_count(world):
    world.annotate_many(4)
    gone = {"action": "ANNOTATIONS_DELETED", "project": {"id": 7}, "annotations": [{"id": 1}, {"id": 3}]}
    world.registry.follow(gone)
    assert counts(world) == (2, 2)


def test_an_annotation_that_is_skipped_afterwards_no_longer_counts(world):
    world.annotate_many(2)
    skipped = world.annotate(2)
    skipped["annotation"] |= {"was_cancelled": True}
    world.registry.follow(skipped)
    assert counts(world) == (1, 1)


def test_an_annotation_without_masks_does_not_count(world):
    world.registry.follow(world.annotate(1, click_result("k", 10, 10, "Door")))
    assert counts(world) == (0, 0)


def test_another_projects_events_change_nothing_here(world):
    world.annotate_many(2)
    webhook = world.annotate(3, *parts())
    world.registry.follow(webhook | {"project": webhook["project"] | {"id": 8}})
    world.registry.follow(
        {"action": "ANNOTATIONS_DELETED", "project": {"id": 8}, "annotations": [{"id": 1}]},
        {"action": "TASKS_DELETED", "project": {"id": 8}, "tasks": [{"id": 2}]},
    )
    assert counts(world) == (2, 2)
    assert world.new_annotations.of(8).annotations == 1


@pytest.mark.parametrize("name", ["api_annotation_create", "api_annotation_delete"])
def test_recorded_webhooks_are_in_the_log(world, name):
    webhook = backend_request(name, "/webhook")
    world.registry.follow(webhook, webhook)
    assert events(world) == 1


def test_an_annotation_that_goes_back_in_time_is_new(world):
    """A backup of Label Studio was restored, or its clock was ahead while the last training ran."""
    world.annotate_many(6)
    before = dict(world.api.annotations[3]), dict(world.api.tasks[3])
    world.registry.follow(world.annotate(3, *parts(door=10)))
    world.train()
    assert counts(world) == (6, 0)
    world.api.annotations[3], world.api.tasks[3] = before
    world.registry.later(60)
    world.registry.reconciler.compare(7)
    assert counts(world) == (6, 1)


def test_the_missing_annotations_of_a_large_project_are_cleared_in_parts(world):
    """Clicks write to the same database meanwhile, and wait a quarter of a second at most."""
    engine, count = world.registry.engine, 2 * ROWS_AT_ONCE + 1
    rows = [
        {"project_id": 7, "annotation_id": number, "task_id": 1, "locked_at": 1.0, "mask_regions": 1}
        for number in range(1, count + 2)
    ]
    with engine.begin() as connection:
        connection.execute(insert(AnnotationState), rows)
    changed, commits = [], []
    event.listen(engine, "after_cursor_execute", lambda _c, cursor, *_: changed.append(cursor.rowcount))
    event.listen(engine, "commit", commits.append)
    world.new_annotations.absent(7, {1}, requested_at=2e9)
    assert counts(world) == (1, 1)
    assert sum(number for number in changed if number > 0) == count
    assert max(changed) == ROWS_AT_ONCE
    assert len(commits) == 3


def test_a_webhook_during_the_listing_keeps_its_annotation(world):
    world.annotate_many(2)
    world.new_annotations.absent(7, {1}, requested_at=0.0)
    assert counts(world) == (2, 2)


def test_the_time_of_new_annotations_is_that_of_the_first(world):
    world.annotate_many(3)
    with Session(world.registry.engine) as session, session.begin():
        session.execute(update(AnnotationState).values(locked_at=100.0 + AnnotationState.annotation_id))
        session.execute(
            update(AnnotationState)
            .where(AnnotationState.annotation_id == 1)
            .values(trained_until=AnnotationState.updated_at)
        )
    assert world.counts() == AnnotationCounts(3, 2, 102.0)


def test_a_forgotten_project_has_no_counts_and_begins_anew(world):
    world.annotate_many(2)
    world.registry.projects.forget(7)
    assert counts(world) == (0, 0)
    world.registry.connect(world.api)
    world.annotate_many(1)
    assert counts(world) == (1, 1)
