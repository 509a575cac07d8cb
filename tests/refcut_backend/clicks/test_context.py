from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refcut_backend.clicks.context import MAX_CLICKS, ClickContext, read_context
from refcut_backend.errors import BadRequestError
from refcut_backend.label_studio.prompts import PercentBox
from tests.support.recorded import box_result, click_result, recorded


def dots_of(*regions) -> list[str]:
    context = read_context(list(regions))
    assert context is not None
    return [dot.id for dot in context.dots]


def test_a_recorded_request_is_one_context_with_all_dots_in_order():
    body = recorded("predict_interactive_3clicks_full")["body"]
    result = body["params"]["context"]["result"]
    context = read_context(result)
    assert context is not None
    assert (context.label, context.to_name) == ("Cat", "image")
    assert [dot.id for dot in context.dots] == [dot["id"] for dot in result]
    assert [dot.positive for dot in context.dots] == [dot.get("is_positive") for dot in result]


def test_a_context_without_prompts_asks_for_nothing():
    assert read_context([]) is None


def test_clicks_of_another_label_or_image_do_not_count():
    other_image = click_result("c", 3, 3, "Hood") | {"to_name": "second"}
    assert dots_of(click_result("a", 1, 1, "Door"), other_image, click_result("b", 2, 2, "Hood")) == ["b"]


@pytest.mark.parametrize(
    "value",
    [
        {"format": "rle", "rle": [0, 1, 2]},
        {"points": [[1, 1], [5, 1], [5, 5]], "closed": True},
        {"x": 1, "y": 1, "width": 5, "height": 5, "rotation": 0},
    ],
    ids=["brush", "polygon", "rectangle"],
)
def test_a_click_label_that_stuck_to_an_accepted_mask_is_no_click(value):
    mask = click_result("m", 0, 0, "Door")
    mask["value"] = {**value, "keypointlabels": ["Door"]}
    assert read_context([mask]) is None
    assert dots_of(mask, click_result("a", 10, 10, "Door")) == ["a"]


def test_an_id_that_comes_twice_counts_once_where_it_is_now():
    context = read_context([click_result("a", 1, 1, "Door"), click_result("a", 9, 9, "Door")])
    assert context is not None
    assert [(dot.id, dot.x_percent) for dot in context.dots] == [("a", 9)]


def test_boxes_are_a_context_of_their_own():
    boxes = [box_result("b", 10, 20, 30, 40, "Door"), box_result("c", 0, 0, 5, 5, "Door")]
    assert read_context(boxes) == ClickContext(
        "Door", "image", boxes=(PercentBox(10, 20, 40, 60, "b"), PercentBox(0, 0, 5, 5, "c"))
    )


def test_rectangles_that_were_answers_are_no_question():
    assert read_context([box_result("rc-b", 10, 20, 30, 40, "Door")]) is None
    polygon = box_result("p", 0, 0, 1, 1, "Door") | {
        "value": {"points": [[1, 1]], "rectanglelabels": ["Door"]}
    }
    assert read_context([polygon]) is None, "the label of a box that stuck to a polygon"


def test_of_dots_and_boxes_at_once_the_newest_decides():
    assert dots_of(box_result("b", 1, 1, 5, 5, "Door"), click_result("a", 1, 1, "Door")) == ["a"]


@pytest.mark.parametrize(
    "value", [{"x": 1, "y": 1}, {"keypointlabels": []}, {"keypointlabels": "Door"}, None]
)
def test_a_click_without_a_label_is_refused(value):
    with pytest.raises(BadRequestError, match="label"):
        read_context([click_result("a", 1, 1, "Door") | {"value": value}])


@pytest.mark.parametrize(
    "make", [lambda n: click_result(n, 1, 1, "A"), lambda n: box_result(n, 1, 1, 2, 2, "A")]
)
def test_too_many_clicks_are_refused(make):
    with pytest.raises(BadRequestError, match="limit"):
        read_context([make(str(n)) for n in range(MAX_CLICKS + 1)])


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)
VALUE = st.fixed_dictionaries(
    {},
    optional={
        k: JSON for k in ("x", "y", "width", "height", "rotation", "keypointlabels", "rectanglelabels")
    },
)
REGION = st.fixed_dictionaries(
    {"type": st.sampled_from(["keypointlabels", "rectanglelabels", "brushlabels"])},
    optional={"value": st.one_of(VALUE, JSON)}
    | {k: JSON for k in ("id", "to_name", "is_positive", "original_width")},
)


@pytest.mark.slow
@given(st.lists(REGION, max_size=4))
def test_any_context_is_read_or_refused_with_a_reason(regions):
    try:
        context = read_context(regions)
    except BadRequestError:
        return
    for dot in context.dots if context else ():
        assert 0 <= dot.x_percent <= 100
        assert 0 <= dot.y_percent <= 100
        assert json.dumps(dot.id)
