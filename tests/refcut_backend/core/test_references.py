from __future__ import annotations

import numpy as np
import pytest

from refcut_backend.core.references import read_references
from refcut_backend.errors import BadMaskError
from tests.recorded import brush_result, role_result

ROLES = ["refcut_role"]


def square(top: int, left: int, size: int = 4) -> np.ndarray:
    mask_hw = np.zeros((20, 30), bool)
    mask_hw[top : top + size, left : left + size] = True
    return mask_hw


DOOR, WHEEL = brush_result("d", "Door", square(0, 0)), brush_result("w", "Wheel", square(10, 10))


def test_a_marked_region_is_the_reference_and_the_other_labels_are_its_negative():
    (reference,) = read_references([DOOR, WHEEL, role_result(DOOR, "Reference")], ROLES)
    assert reference.label == "Door"
    assert np.array_equal(reference.positive_hw, square(0, 0))
    assert reference.negative_hw is not None
    assert np.array_equal(reference.negative_hw, square(10, 10))


def test_an_annotation_without_a_marked_region_gives_no_reference():
    assert read_references([DOOR, WHEEL], ROLES) == []


def test_unlabelled_pixels_are_never_negative():
    (reference,) = read_references([DOOR, role_result(DOOR, "Reference")], ROLES)
    assert reference.negative_hw is None


def test_an_explicit_negative_reference_replaces_the_other_labels():
    wrong = brush_result("n", "Door", square(0, 20))
    result = [DOOR, WHEEL, wrong, role_result(DOOR, "Reference"), role_result(wrong, "Negative reference")]
    (reference,) = read_references(result, ROLES)
    assert reference.negative_hw is not None
    assert np.array_equal(reference.negative_hw, square(0, 20))


def test_several_marked_regions_of_a_label_are_joined():
    second = brush_result("d2", "Door", square(0, 20))
    marks = [role_result(DOOR, "Reference"), role_result(second, "Reference")]
    (reference,) = read_references([DOOR, second, *marks], ROLES)
    assert np.array_equal(reference.positive_hw, square(0, 0) | square(0, 20))


def test_every_marked_label_gets_its_own_reference():
    marks = [role_result(DOOR, "Reference"), role_result(WHEEL, "Reference")]
    found = read_references([DOOR, WHEEL, *marks], ROLES)
    assert [reference.label for reference in found] == ["Door", "Wheel"]


def test_a_choice_of_another_control_marks_nothing():
    other = {**role_result(DOOR, "Reference"), "from_name": "quality"}
    assert read_references([DOOR, other], ROLES) == []


def test_the_version_changes_with_the_mask_and_with_the_image():
    (first,) = read_references([DOOR, role_result(DOOR, "Reference")], ROLES)
    moved = brush_result("d", "Door", square(1, 0))
    (second,) = read_references([moved, role_result(moved, "Reference")], ROLES)
    assert first.version("/a.jpg") == first.version("/a.jpg")
    assert len({first.version("/a.jpg"), first.version("/b.jpg"), second.version("/a.jpg")}) == 3


@pytest.mark.parametrize("change", [{"original_width": 31}, {"original_height": 10**9}, {"value": {}}])
def test_a_marked_annotation_with_a_mask_that_does_not_fit_is_refused(change):
    broken = {**DOOR, **change}
    with pytest.raises(BadMaskError):
        read_references([broken, role_result(DOOR, "Reference")], ROLES)
