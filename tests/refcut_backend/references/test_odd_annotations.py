"""Annotations that Label Studio stores when its API is given them, and that its editor never makes."""

from __future__ import annotations

from typing import Any
from unittest import mock

import pytest

from refcut_backend.label_studio.tasks import ApiAnnotations, UnreadableError
from refcut_backend.references.left_out import annotations_left_out
from tests.support.odd_annotations import ODD_ITEMS, ODD_REGIONS
from tests.support.registry import DOOR, marked


def marked_all(regions: list[Any]) -> list[Any]:
    """The regions, marked as references."""
    return [*regions, *(marked(DOOR) | {"id": region["id"]} for region in regions)]


EVERY = ODD_ITEMS | {name: marked_all(regions) for name, regions in ODD_REGIONS.items()}


@pytest.mark.parametrize("name", EVERY)
def test_one_odd_annotation_is_left_out_by_name_and_the_comparison_uses_the_others(
    registry, label_studio_api, name, caplog
):
    label_studio_api.annotate(1, 10, DOOR, marked(DOOR))
    label_studio_api.annotate(2, 10, *EVERY[name])
    label_studio_api.annotate(3, 10, DOOR, marked(DOOR))
    label_studio_api.annotate(4, 20, DOOR, marked(DOOR))
    for _ in range(2):
        registry.reconciler.compare(7)
    assert sorted(registry.in_use()) == [1, 3, 4]
    (left_out,) = annotations_left_out(registry.engine, 7)
    assert (left_out.task_id, left_out.annotation_id) == (10, 2)
    assert len(str(left_out)) < 300
    assert {r.annotation for r in caplog.records if r.levelname == "WARNING"} == {2}
    assert not [record for record in caplog.records if record.exc_info]


@pytest.mark.parametrize("name", EVERY)
def test_a_webhook_about_an_odd_annotation_is_used_for_what_it_says_and_breaks_nothing(
    registry, label_studio_api, name
):
    registry.follow(label_studio_api.annotate(1, 10, DOOR, marked(DOOR)))
    registry.follow(label_studio_api.annotate(1, 10, *EVERY[name]))
    assert registry.in_use() == []
    assert len(annotations_left_out(registry.engine, 7)) == 1
    registry.follow(label_studio_api.annotate(1, 10, DOOR, marked(DOOR)))
    assert registry.in_use() == [1]
    assert annotations_left_out(registry.engine, 7) == []


def test_an_odd_annotation_that_is_deleted_or_repaired_is_no_longer_named(registry, label_studio_api):
    for number in (1, 2):
        label_studio_api.annotate(number, 10, "x")
    registry.reconciler.compare(7)
    assert len(annotations_left_out(registry.engine, 7)) == 2
    label_studio_api.annotate(1, 10, DOOR, marked(DOOR))
    label_studio_api.delete_annotation(2)
    registry.later(60)
    registry.reconciler.compare(7)
    assert annotations_left_out(registry.engine, 7) == []
    assert registry.in_use() == [1]


@pytest.mark.parametrize(
    "error", [UnreadableError("not understood"), TypeError("canary"), KeyError("canary")]
)
def test_a_task_that_cannot_be_read_is_left_out_by_name_and_the_others_are_compared(
    registry, label_studio_api, error, caplog
):
    registry.follow(label_studio_api.annotate(1, 10, DOOR, marked(DOOR)))
    label_studio_api.annotate(1, 10, DOOR)
    label_studio_api.annotate(2, 20, DOOR, marked(DOOR))
    read = ApiAnnotations.annotations

    def fail(source: ApiAnnotations, task_id: int) -> Any:
        if task_id == 10:
            raise error
        return read(source, task_id)

    with mock.patch.object(ApiAnnotations, "annotations", fail):
        for _ in range(2):
            registry.reconciler.compare(7)
    assert sorted(registry.in_use()) == [1, 2], "what is known about the task stays"
    (left_out,) = annotations_left_out(registry.engine, 7)
    assert (left_out.task_id, left_out.annotation_id) == (10, None)
    assert "canary" not in str(left_out)
    warnings = [record for record in caplog.records if record.message == "task left out of the comparison"]
    assert len(warnings) == 1, "once, not at every comparison"
    registry.reconciler.compare(7)
    assert registry.in_use() == [2]
    assert annotations_left_out(registry.engine, 7) == []
