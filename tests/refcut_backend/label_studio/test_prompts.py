from __future__ import annotations

import pytest

from refcut_backend.errors import BadRequestError
from refcut_backend.label_studio.prompts import Dot, PercentClick, read_dot, to_pixel
from tests.support.recorded import click_result


def test_a_dot_says_where_it_is_and_whether_it_adds():
    assert read_dot(click_result("a", 10, 20, "Door", positive=False)) == Dot("a", 10, 20, False)


@pytest.mark.parametrize("said", [None, "false", 0, 1, []])
def test_a_polarity_that_is_no_boolean_is_unknown(said):
    dot = click_result("a", 10, 20, "Door", positive=None) | {"is_positive": said}
    assert read_dot(dot).positive is None


@pytest.mark.parametrize(
    ("said", "known", "positive"),
    [(True, False, True), (False, True, False), (None, False, False), (None, True, True), (None, None, True)],
)
def test_what_the_request_says_wins_over_what_is_known_and_unknown_is_positive(said, known, positive):
    assert Dot("a", 1, 2, said).as_click(known) == PercentClick(1, 2, positive, "a")


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


def test_a_click_without_an_id_is_told_apart_by_its_place():
    first, second = (read_dot(click_result("", x, 1, "Door")) for x in (1, 2))
    assert first.id
    assert first.id != second.id


@pytest.mark.parametrize(("percent", "pixel"), [(0, 0.0), (50, 320.0), (100, 639.0)])
def test_percent_becomes_a_pixel_inside_the_image(percent, pixel):
    assert to_pixel(percent, 640) == pixel
