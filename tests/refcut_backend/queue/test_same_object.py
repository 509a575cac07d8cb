from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refcut_backend.queue.click_queue import older_clicks


@pytest.mark.parametrize(
    ("newest", "unanswered", "expected"),
    [
        (["a", "b"], {"1": ["a"]}, ["1"]),
        (["a"], {"1": ["a"]}, ["1"]),
        (["a", "c"], {"1": ["a", "b"]}, ["1"]),
        (["a", "b", "c"], {"1": ["a"], "2": ["a", "b"]}, ["1", "2"]),
        (["a"], {"1": ["b"]}, []),
        (["a"], {}, []),
        ([], {"1": []}, []),
        ([], {"1": ["a"]}, []),
    ],
    ids=["one more dot", "dragged", "undone and again", "two older", "another", "first", "no ids", "no id"],
)
def test_requests_that_share_a_dot_ask_for_one_object(newest, unanswered, expected):
    assert older_clicks(newest, unanswered) == expected


names = st.sets(st.text(max_size=2), max_size=5)


@given(names, names)
def test_two_annotators_never_supersede_each_other(mine, theirs):
    assert older_clicks({f"m{i}" for i in mine}, {"other": {f"t{i}" for i in theirs}}) == []


@given(names, names)
def test_it_does_not_matter_which_of_two_requests_is_looked_at_first(left, right):
    assert bool(older_clicks(left, {"x": right})) == bool(older_clicks(right, {"x": left}))
