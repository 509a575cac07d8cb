from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.box_prompts import box_clicks, box_limits, box_map, box_surroundings, cut_off
from model.types import Box, Click

HEIGHT, WIDTH = 100, 200
BOX = Box(40, 59, 80, 119)


@st.composite
def boxes(draw: st.DrawFn) -> tuple[Box, int, int]:
    height, width = draw(st.integers(1, 60)), draw(st.integers(1, 60))
    rows = sorted(draw(st.tuples(st.integers(0, height - 1), st.integers(0, height - 1))))
    cols = sorted(draw(st.tuples(st.integers(0, width - 1), st.integers(0, width - 1))))
    return Box(rows[0], rows[1], cols[0], cols[1]), height, width


def test_the_middle_of_a_box_belongs_to_the_object_and_what_lies_beside_it_does_not() -> None:
    middle, *beside = box_clicks(BOX, HEIGHT, WIDTH)
    assert middle == Click(49.5, 99.5)
    assert [(click.row, click.col) for click in beside] == [
        pytest.approx(position) for position in ((37.6, 99.5), (61.4, 99.5), (49.5, 75.2), (49.5, 123.8))
    ]
    assert not any(click.positive for click in beside)


def test_a_box_at_the_border_has_fewer_negative_clicks() -> None:
    assert len(box_clicks(Box(0, 50, 0, 50), HEIGHT, WIDTH)) == 3
    assert len(box_clicks(Box.whole(HEIGHT, WIDTH), HEIGHT, WIDTH)) == 1


def test_the_map_of_a_box_is_the_box() -> None:
    filled_hw = box_map(BOX, HEIGHT, WIDTH)
    assert filled_hw.sum() == BOX.height * BOX.width
    assert filled_hw[BOX.slices].all()


def test_a_positive_click_well_outside_the_box_lifts_its_limits() -> None:
    inside, outside = Click(50, 100), Click(90, 100)
    limits = box_limits(BOX, [inside, Click(90, 100, False)], HEIGHT, WIDTH)
    assert limits is not None
    assert box_limits(BOX, [inside, outside], HEIGHT, WIDTH) is None
    cut_hw = cut_off(np.ones((HEIGHT, WIDTH), np.float32), limits)
    assert cut_hw.sum() == limits.height * limits.width


@given(boxes())
def test_the_clicks_of_any_box_lie_within_the_image(drawn: tuple[Box, int, int]) -> None:
    box, height, width = drawn
    roi = box_surroundings(box, height, width)
    limits = box_limits(box, [], height, width)
    assert limits is not None
    for one in (roi, limits):
        assert 0 <= one.row_min <= box.row_min
        assert box.row_max <= one.row_max < height
        assert 0 <= one.col_min <= box.col_min
        assert box.col_max <= one.col_max < width
    clicks = box_clicks(box, height, width)
    assert [click.positive for click in clicks] == [True] + [False] * (len(clicks) - 1)
    assert all(0 <= click.row < height and 0 <= click.col < width for click in clicks)
