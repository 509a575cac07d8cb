from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from refcut_backend.core.references import LabelReference
from refcut_backend.store.references import References


def door(column: int) -> LabelReference:
    mask_hw = np.zeros((9, 13), bool)
    mask_hw[2:5, column] = True
    return LabelReference("Door", "image", mask_hw, ~mask_hw)


def test_a_stored_reference_comes_back_with_its_masks(engine):
    references = References(engine)
    references.replace_annotation(1, 5, "2026-01-01", 3, [(door(4), "/a.jpg")])
    (found,) = references.newest(1, "Door", 4)
    stored = references.load(found.id)
    assert stored is not None
    assert (stored.task_id, stored.image_address, stored.version) == (3, "/a.jpg", found.version)
    assert np.array_equal(stored.positive_hw, door(4).positive_hw)
    assert stored.negative_hw is not None
    assert np.array_equal(stored.negative_hw, ~door(4).positive_hw)


def test_references_of_another_project_or_label_are_not_found(engine):
    references = References(engine)
    references.replace_annotation(1, 5, "2026-01-01", 3, [(door(4), "/a.jpg")])
    assert references.newest(2, "Door", 4) == []
    assert references.newest(1, "Wheel", 4) == []


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_events_in_any_order_leave_the_newest_state(engine, order):
    references = References(engine)
    events = [("2026-01-01", door(1)), ("2026-01-02", door(2)), ("2026-01-03", door(3))]
    for number in [*order, *order]:
        annotated_at, reference = events[number]
        references.replace_annotation(1, 5, annotated_at, 3, [(reference, "/a.jpg")])
    (found,) = references.newest(1, "Door", 4)
    assert found.version == door(3).version("/a.jpg")


def test_the_newest_annotations_come_first_up_to_the_limit(engine):
    references = References(engine)
    for day in (2, 3, 1):
        references.replace_annotation(1, day, f"2026-01-0{day}", day, [(door(day), f"/{day}.jpg")])
    found = [r.version for r in references.newest(1, "Door", 2)]
    assert found == [door(3).version("/3.jpg"), door(2).version("/2.jpg")]


def test_deleted_annotations_and_tasks_take_their_references_along(engine):
    references = References(engine)
    for number in (1, 2, 3):
        references.replace_annotation(1, number, "2026-01-01", 10 * number, [(door(number), "/a.jpg")])
    references.remove_annotations(1, [1])
    references.remove_tasks(1, [20])
    (left,) = references.newest(1, "Door", 4)
    assert left.version == door(3).version("/a.jpg")


def test_an_update_without_a_marked_region_removes_the_reference(engine):
    references = References(engine)
    references.replace_annotation(1, 5, "2026-01-01", 3, [(door(4), "/a.jpg")])
    references.replace_annotation(1, 5, "2026-01-02", 3, [])
    assert references.newest(1, "Door", 4) == []
