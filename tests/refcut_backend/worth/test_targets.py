"""Which annotated tasks references are measured on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from refcut_backend.label_studio import brush_rle
from refcut_backend.label_studio.tasks import open_source
from refcut_backend.worth.targets import TASKS_PER_LABEL, TASKS_READ, TargetReader, Targets, annotated_tasks
from tests.support.label_studio_api import LabelStudioApi, serving
from tests.support.recorded import LABEL_CONFIG, brush_result
from tests.support.registry import DOOR, WHEEL, Registry, marked, open_registry, square


@pytest.fixture
def api() -> Iterator[LabelStudioApi]:
    with serving(LabelStudioApi()) as opened:
        yield opened


@pytest.fixture
def registry(tmp_path, api) -> Iterator[Registry]:
    with open_registry(tmp_path) as opened:
        opened.connect(api)
        yield opened


def annotate(registry: Registry, api: LabelStudioApi, task_id: int, *result) -> None:
    registry.follow(api.annotate(100 + task_id, task_id, *result))


def read(registry: Registry, api: LabelStudioApi, tasks_of: dict[str, set[int]], trained=()) -> Targets:
    source = open_source(7, api.connection)
    reader = TargetReader(7, LABEL_CONFIG, source, lambda where: where.task_id in trained)
    try:
        return reader.read(annotated_tasks(registry.engine, 7), tasks_of, lambda: None)
    finally:
        source.close()


def tasks(targets: Targets, label: str = "Door") -> list[int]:
    return [target.where.task_id for target in targets.found if target.label == label]


def test_every_label_gives_the_mask_of_its_regions_with_the_tasks_image(registry, api):
    annotate(registry, api, 3, DOOR, WHEEL, brush_result("w2", "Wheel", square(45)))
    door, wheel = read(registry, api, {"Door": set(), "Wheel": set()}).found
    assert (door.label, door.where.project_id, door.where.task_id) == ("Door", 7, 3)
    assert door.where.address == "/data/upload/3.png"
    assert (brush_rle.decode(list(door.rle), 20, 60) == square(5)).all()
    assert (brush_rle.decode(list(wheel.rle), 20, 60) == square(30) | square(45)).all()
    assert [one.label for one in read(registry, api, {"Wheel": set()}).found] == ["Wheel"]


def test_tasks_that_give_no_reference_come_first_then_photographs_not_trained_on(registry, api):
    for task_id in range(1, 7):
        annotate(registry, api, task_id, DOOR)
    order = tasks(read(registry, api, {"Door": {1, 2}}, trained={2, 3, 4}))
    assert set(order[:2]) == {5, 6}
    assert set(order[2:4]) == {3, 4}
    assert order[4:] == [1, 2]


def test_of_many_tasks_as_many_as_needed_are_read_the_same_in_every_run(registry, api):
    for task_id in range(1, 41):
        annotate(registry, api, task_id, DOOR)
    api.requests.clear()
    first = tasks(read(registry, api, {"Door": set()}))
    assert len(first) == TASKS_PER_LABEL
    assert sum(path.endswith("/annotations") or path.endswith("/annotations/") for path in api.requests) == 20
    assert tasks(read(registry, api, {"Door": set()})) == first
    assert max(first) > 25, "they are spread over the project"


def test_a_label_that_is_rare_has_no_more_tasks_read_than_the_limit(registry, api):
    known = list(range(1, TASKS_READ + 30))

    asked: list[int] = []

    class Source:
        def tasks(self, task_ids):
            asked.extend(task_ids)
            return []

    TargetReader(7, LABEL_CONFIG, Source(), lambda _where: False).read(known, {"Door": set()}, lambda: None)
    assert len(asked) == TASKS_READ


def test_the_newest_annotation_with_the_label_counts(registry, api):
    registry.follow(api.annotate(1, 3, DOOR), api.annotate(2, 3, brush_result("d", "Door", square(15))))
    registry.follow(api.annotate(3, 3, WHEEL))
    (door,) = read(registry, api, {"Door": set()}).found
    assert (brush_rle.decode(list(door.rle), 20, 60) == square(15)).all()


def test_what_must_stay_out_is_no_target(registry, api):
    annotate(registry, api, 3, DOOR, marked(DOOR, "Negative reference"))
    assert read(registry, api, {"Door": set()}).found == []


def test_a_damaged_annotation_is_named_and_the_others_are_used(registry, api):
    damaged = brush_result("d", "Door", square(5))
    damaged["value"]["rle"] = [1, 2, 3]
    annotate(registry, api, 3, damaged)
    annotate(registry, api, 4, DOOR)
    targets = read(registry, api, {"Door": set()})
    assert tasks(targets) == [4]
    assert [problem.partition(":")[0] for problem in targets.problems] == ["task 3, annotation 103"]


def test_a_task_that_was_deleted_meanwhile_is_skipped(registry, api):
    annotate(registry, api, 3, DOOR)
    annotate(registry, api, 4, DOOR)
    api.delete_task(4)
    assert tasks(read(registry, api, {"Door": set()})) == [3]
