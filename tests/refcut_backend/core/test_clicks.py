from __future__ import annotations

import pytest

from refcut_backend.core.clicks import MAX_CLICKS, read_clicks, to_pixel
from refcut_backend.errors import BadRequestError
from tests.recorded import click_result, recorded


def test_a_recorded_request_after_a_reload_is_three_positive_clicks_on_one_object():
    context = recorded("predict_interactive_3clicks_full")["body"]["params"]["context"]
    clicked = read_clicks(context["result"])
    assert clicked is not None
    assert clicked.label == "Cat"
    assert clicked.to_name == "image"
    assert clicked.region_id == f"rc-{context['result'][0]['id']}"
    assert (clicked.width, clicked.height) == (640, 480)
    assert ["is_positive" in dot for dot in context["result"]] == [False, False, True]
    assert [click.positive for click in clicked.clicks] == [True, True, True]
    assert clicked.clicks[0].x_percent == pytest.approx(context["result"][0]["value"]["x"])


def test_a_context_without_clicks_asks_for_nothing():
    assert read_clicks([]) is None


def test_the_region_keeps_its_id_while_clicks_are_added():
    first, second = click_result("a", 10, 10, "Door"), click_result("b", 20, 20, "Door")
    one, two = read_clicks([first]), read_clicks([first, second])
    assert one is not None
    assert two is not None
    assert one.region_id == two.region_id == "rc-a"


def test_an_alt_click_takes_away():
    clicked = read_clicks([click_result("a", 1, 1, "Door"), click_result("b", 2, 2, "Door", positive=False)])
    assert clicked is not None
    assert [click.positive for click in clicked.clicks] == [True, False]


def test_a_click_whose_polarity_was_lost_counts_as_positive():
    clicked = read_clicks([click_result("a", 10, 10, "Door", positive=None)])
    assert clicked is not None
    assert clicked.clicks[0].positive


def test_clicks_of_another_label_do_not_count():
    clicked = read_clicks([click_result("a", 1, 1, "Door"), click_result("b", 2, 2, "Hood")])
    assert clicked is not None
    assert (clicked.label, len(clicked.clicks)) == ("Hood", 1)


def test_a_click_label_that_stuck_to_an_accepted_mask_is_no_click():
    mask = click_result("m", 0, 0, "Door")
    mask["value"] = {"format": "rle", "rle": [0, 1, 2], "keypointlabels": ["Door"]}
    assert read_clicks([mask]) is None
    clicked = read_clicks([mask, click_result("a", 10, 10, "Door")])
    assert clicked is not None
    assert clicked.region_id == "rc-a"


def test_clicks_outside_the_image_are_moved_to_its_edge():
    clicked = read_clicks([click_result("a", -3, 140, "Door")])
    assert clicked is not None
    assert (clicked.clicks[0].x_percent, clicked.clicks[0].y_percent) == (0, 100)


@pytest.mark.parametrize("x", [float("nan"), float("inf"), "left", None])
def test_a_click_without_a_position_is_refused(x):
    with pytest.raises(BadRequestError):
        read_clicks([click_result("a", x, 1, "Door")])


def test_a_click_without_a_label_is_refused():
    dot = click_result("a", 1, 1, "Door")
    dot["value"].pop("keypointlabels")
    with pytest.raises(BadRequestError, match="label"):
        read_clicks([dot])


def test_too_many_clicks_are_refused():
    with pytest.raises(BadRequestError, match="limit"):
        read_clicks([click_result(str(n), 1, 1, "Door") for n in range(MAX_CLICKS + 1)])


@pytest.mark.parametrize(("percent", "pixel"), [(0, 0.0), (50, 320.0), (100, 639.0)])
def test_percent_becomes_a_pixel_inside_the_image(percent, pixel):
    assert to_pixel(percent, 640) == pixel
