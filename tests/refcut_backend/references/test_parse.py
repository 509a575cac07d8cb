"""tests/refcut_backend/references/test_parse.py."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from refcut_backend.references.parse import LabelReference, Weakness, read_references, weaknesses
from tests.support.recorded import brush_result, role_result

ROLES = ["refcut_role"]


def square(top: int, left: int, size: int = 4) -> np.ndarray:
    mask_hw = np.zeros((20, 30), bool)
    mask_hw[top : top + size, left : left + size] = True
    return mask_hw


DOOR, WHEEL = brush_result("d", "Door", square(0, 0)), brush_result("w", "Wheel", square(10, 10))


def references(*result: dict[str, Any], added: tuple[str, ...] = ()) -> tuple[LabelReference, ...]:
    found = read_references(result, ROLES, added)
    assert found.problems == ()
    return found.references


def test_a_marked_region_is_the_reference_and_the_other_labels_are_its_negative():
    (reference,) = references(DOOR, WHEEL, role_result(DOOR, "Reference"))
    assert reference.label == "Door"
    assert np.array_equal(reference.positive_hw, square(0, 0))
    assert reference.negative_hw is not None
    assert np.array_equal(reference.negative_hw, square(10, 10))


def test_an_annotation_without_a_marked_region_gives_no_reference():
    assert references(DOOR, WHEEL) == ()


def test_unlabelled_pixels_are_never_negative():
    (reference,) = references(DOOR, role_result(DOOR, "Reference"))
    assert reference.negative_hw is None


def test_an_explicit_negative_reference_replaces_the_other_labels():
    wrong = brush_result("n", "Door", square(0, 20))
    result = [DOOR, WHEEL, wrong, role_result(DOOR, "Reference"), role_result(wrong, "Negative reference")]
    (reference,) = references(*result)
    assert reference.negative_hw is not None
    assert np.array_equal(reference.negative_hw, square(0, 20))


@pytest.mark.parametrize(
    "more", [(), (WHEEL, role_result(WHEEL, "Reference"))], ids=["alone", "beside another label"]
)
def test_a_negative_reference_whose_label_has_no_reference_is_named(more):
    found = read_references([DOOR, role_result(DOOR, "Negative reference"), *more], ROLES)
    assert [reference.label for reference in found.references] == ["Wheel"][: len(more)]
    (problem,) = found.problems
    assert problem.startswith("Door: ")
    assert "none 'Reference'" in problem


def test_several_marked_regions_of_a_label_are_joined():
    second = brush_result("d2", "Door", square(0, 20))
    marks = [role_result(DOOR, "Reference"), role_result(second, "Reference")]
    (reference,) = references(DOOR, second, *marks)
    assert np.array_equal(reference.positive_hw, square(0, 0) | square(0, 20))


def test_every_marked_label_gets_its_own_reference():
    marks = [role_result(DOOR, "Reference"), role_result(WHEEL, "Reference")]
    found = references(DOOR, WHEEL, *marks)
    assert [reference.label for reference in found] == ["Door", "Wheel"]


def test_a_choice_of_another_control_marks_nothing():
    other = {**role_result(DOOR, "Reference"), "from_name": "quality"}
    assert references(DOOR, other) == ()


@pytest.mark.parametrize("value", [None, [], "Reference", {"choices": "Reference"}, {"choices": 7}])
def test_a_choice_that_the_editor_would_not_make_marks_nothing(value):
    assert references(DOOR, {**role_result(DOOR, "Reference"), "value": value}) == ()


def test_the_version_changes_with_the_mask_and_with_the_image():
    (first,) = references(DOOR, role_result(DOOR, "Reference"))
    moved = brush_result("d", "Door", square(1, 0))
    (second,) = references(moved, role_result(moved, "Reference"))
    assert first.version("/a.jpg") == first.version("/a.jpg")
    assert len({first.version("/a.jpg"), first.version("/b.jpg"), second.version("/a.jpg")}) == 3


@pytest.mark.parametrize("change", [{"original_width": 31}, {"original_height": 10**9}, {"value": {}}])
def test_a_marked_region_that_does_not_fit_gives_no_reference_and_a_reason(change):
    found = read_references([DOOR | change, role_result(DOOR, "Reference")], ROLES)
    assert found.references == ()
    assert found.problems


def test_a_region_that_cannot_be_read_leaves_the_other_labels_their_references():
    broken = brush_result("b", "Door", square(0, 20))
    broken["value"]["rle"] = [1, 2, 3]
    marks = [role_result(broken, "Reference"), role_result(WHEEL, "Reference")]
    hood = brush_result("h", "Hood", square(15, 0))
    second = {**hood, "original_width": "wide"}
    found = read_references([WHEEL, broken, second, *marks], ROLES)
    assert len(found.problems) == 3  # the hood, the door, and the wheel whose negative the door would be
    found = read_references([WHEEL, hood, second, *marks], ROLES)
    assert [reference.label for reference in found.references] == ["Wheel"]


def test_a_marked_region_without_a_single_pixel_gives_no_reference():
    empty = brush_result("e", "Door", np.zeros((20, 30), bool))
    found = read_references([empty, role_result(empty, "Reference")], ROLES)
    assert found.references == ()
    assert "empty" in found.problems[0]


def test_an_added_label_counts_though_nothing_is_marked():
    (reference,) = references(DOOR, WHEEL, added=("Wheel", "Hood"))
    assert (reference.label, reference.explicitly_added) == ("Wheel", True)
    assert reference.negative_hw is not None
    assert np.array_equal(reference.negative_hw, square(0, 0))


def test_what_is_marked_says_more_than_the_naming_of_the_label():
    second = brush_result("d2", "Door", square(0, 20))
    (reference,) = references(DOOR, second, role_result(second, "Reference"), added=("Door",))
    assert not reference.explicitly_added
    assert np.array_equal(reference.positive_hw, square(0, 20))


def test_a_negative_reference_is_never_what_an_added_label_means():
    wrong = brush_result("n", "Door", square(0, 20))
    (reference,) = references(DOOR, wrong, role_result(wrong, "Negative reference"), added=("Door",))
    assert np.array_equal(reference.positive_hw, square(0, 0))
    found = read_references([wrong, role_result(wrong, "Negative reference")], ROLES, ["Door"])
    assert found.references == ()
    assert "negative" in found.problems[0]


def test_a_region_with_two_labels_speaks_of_both_and_against_neither():
    both = brush_result("b", "Door", square(0, 0))
    both["value"]["brushlabels"] = ["Door", "Wheel"]
    door, wheel = references(both, role_result(both, "Reference"))
    assert (door.label, wheel.label) == ("Door", "Wheel")
    assert door.negative_hw is None


def test_polygons_and_rectangles_are_references_too():
    shape = {"original_width": 30, "original_height": 20, "to_name": "image"}
    polygon = shape | {
        "id": "p",
        "type": "polygonlabels",
        "value": {"points": [[0, 0], [50, 0], [50, 50], [0, 50]], "polygonlabels": ["Door"]},
    }
    rectangle = shape | {
        "id": "r",
        "type": "rectanglelabels",
        "value": {"x": 50, "y": 50, "width": 50, "height": 50, "rotation": 0, "rectanglelabels": ["Wheel"]},
    }
    mark = {**polygon, "type": "choices", "from_name": "refcut_role", "value": {"choices": ["Reference"]}}
    (reference,) = references(polygon, rectangle, mark)
    assert reference.positive_hw[:9, :14].all()
    assert not reference.positive_hw[11:, 16:].any()
    assert reference.negative_hw is not None
    assert reference.negative_hw[11:, 16:].all()


def mask(*boxes: tuple[int, int, int, int]) -> np.ndarray:
    """100 x 100 with boxes (top, left, bottom, right)."""
    mask_hw = np.zeros((100, 100), bool)
    for top, left, bottom, right in boxes:
        mask_hw[top:bottom, left:right] = True
    return mask_hw


GOOD, ELSEWHERE = mask((20, 20, 60, 60)), mask((70, 70, 90, 90))


@pytest.mark.parametrize("positive_hw", [GOOD, mask((0, 0, 60, 100))], ids=["inside", "sky"])
def test_a_good_reference_has_no_weakness(positive_hw):
    assert weaknesses(positive_hw, ELSEWHERE) == ()


@pytest.mark.parametrize(
    ("positive_hw", "weakness"),
    [
        (mask((50, 50, 59, 61)), Weakness.SMALL),
        (mask((1, 1, 97, 97)), Weakness.LARGE),
        (mask((20, 20, 50, 50), (60, 60, 80, 80)), Weakness.PARTS),
    ],
)
def test_a_weakness_of_the_target_is_named(positive_hw, weakness):
    assert weaknesses(positive_hw, ~positive_hw) == (weakness,)


@pytest.mark.parametrize("negative_hw", [None, np.zeros((100, 100), bool)])
def test_a_reference_without_a_negative_says_so(negative_hw):
    assert weaknesses(GOOD, negative_hw) == (Weakness.NO_NEGATIVE,)


def test_specks_of_the_brush_are_no_parts():
    assert weaknesses(mask((20, 20, 60, 60), (70, 70, 72, 72)), ELSEWHERE) == ()


def test_an_empty_reference_is_small_and_raises_nothing():
    assert weaknesses(mask(), None) == (Weakness.SMALL, Weakness.NO_NEGATIVE)


def test_a_label_that_left_the_config_is_named():
    assert weaknesses(GOOD, ELSEWHERE, label_in_config=False) == (Weakness.NO_LABEL,)
