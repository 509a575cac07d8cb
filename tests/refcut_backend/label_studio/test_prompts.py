"""tests/refcut_backend/label_studio/test_prompts.py."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refcut_backend.errors import BadRequestError
from refcut_backend.label_studio.prompts import Dot, PercentBox, PercentClick, read_box, read_dot, to_pixel
from tests.support.recorded import box_result, click_result


def test_a_dot_says_where_it_is_and_whether_it_adds():
    assert read_dot(click_result("a", 10, 20, "Door", positive=False)) == Dot("a", 10, 20, False)


@pytest.mark.parametrize("is_positive", [None, "false", 0, 1, []])
def test_a_polarity_that_is_no_boolean_is_unknown(is_positive):
    dot = click_result("a", 10, 20, "Door", positive=None) | {"is_positive": is_positive}
    assert read_dot(dot).positive is None


@pytest.mark.parametrize(
    ("is_positive", "known", "positive"),
    [(True, False, True), (False, True, False), (None, False, False), (None, True, True), (None, None, True)],
)
def test_what_the_request_says_wins_over_what_is_known_and_unknown_is_positive(is_positive, known, positive):
    assert Dot("a", 1, 2, is_positive).as_click(known) == PercentClick(1, 2, positive, "a")


def test_clicks_outside_the_image_are_moved_to_its_edge():
    dot = read_dot(click_result("a", -3, 140, "Door"))
    assert (dot.x_percent, dot.y_percent) == (0, 100)


@pytest.mark.parametrize("x", [float("nan"), float("inf"), "left", None, [], {}, 10**400])
def test_a_click_without_a_position_is_refused(x):
    with pytest.raises(BadRequestError, match="position"):
        read_dot(click_result("a", x, 1, "Door"))


@pytest.mark.parametrize("value", [None, "x", [], 3])
def test_a_click_whose_value_is_no_object_is_refused(value):
    with pytest.raises(BadRequestError, match="position"):
        read_dot(click_result("a", 1, 1, "Door") | {"value": value})


def test_a_click_without_an_id_gets_one_from_its_position():
    first, second = (read_dot(click_result("", x, 1, "Door")) for x in (1, 2))
    assert first.id
    assert first.id != second.id


@pytest.mark.parametrize(("percent", "pixel"), [(0, 0.0), (50, 320.0), (100, 639.0)])
def test_percent_becomes_a_pixel_inside_the_image(percent, pixel):
    assert to_pixel(percent, 640) == pixel


def test_a_box_is_read_as_it_is_drawn():
    assert read_box(box_result("b", 10, 20, 30, 40, "Door")) == PercentBox(10, 20, 40, 60, "b")


def test_what_lies_outside_the_image_is_cut_off():
    assert read_box(box_result("b", -10, 80, 30, 40, "Door")) == PercentBox(0, 80, 20, 100, "b")


def test_a_box_drawn_from_right_to_left_is_the_same_box():
    assert read_box(box_result("b", 40, 60, -30, -40, "Door")) == PercentBox(10, 20, 40, 60, "b")


def test_a_box_turned_a_quarter_on_a_wide_image_swaps_its_edges_in_pixels_and_not_in_percent():
    turned = box_result("b", 50, 10, 10, 40, "Door", size=(800, 400), rotation=90)
    box = read_box(turned)
    assert (box.left, box.right) == pytest.approx((30, 50))
    assert (box.top, box.bottom) == pytest.approx((10, 30))


@pytest.mark.parametrize("rotation", [None, "a lot", float("nan"), [], 360])
def test_a_turn_that_is_no_angle_turns_nothing(rotation):
    box = read_box(box_result("b", 10, 20, 30, 40, "Door", rotation=rotation))
    assert (box.left, box.top, box.right, box.bottom) == pytest.approx((10, 20, 40, 60))


@pytest.mark.parametrize("width", [None, "wide", float("nan"), float("inf")])
def test_a_box_without_a_width_is_refused(width):
    with pytest.raises(BadRequestError, match="width"):
        read_box(box_result("b", 10, 20, width, 40, "Door"))


@pytest.mark.parametrize(
    ("x", "y", "inside"), [(10, 20, True), (40, 60, True), (9, 30, False), (20, 61, False)]
)
def test_a_box_holds_its_border(x, y, inside):
    assert PercentBox(10, 20, 40, 60).holds(x, y) is inside


NUMBER = st.floats(allow_nan=False, allow_infinity=False)
SIZE = st.one_of(st.none(), st.integers(), st.text(max_size=3))


@given(x=NUMBER, y=NUMBER, width=NUMBER, height=NUMBER, rotation=NUMBER, size=st.tuples(SIZE, SIZE))
def test_any_rectangle_lies_on_the_image(x, y, width, height, rotation, size):
    box = read_box(box_result("b", x, y, width, height, "Door", size=size, rotation=rotation))
    assert 0 <= box.left <= box.right <= 100
    assert 0 <= box.top <= box.bottom <= 100
