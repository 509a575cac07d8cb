"""Jobs and answers survive their way through JSON, and whatever else lies in Redis is a reason and no exception."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refcut_backend.errors import MessageError, RefCutError
from refcut_backend.label_studio import brush_rle
from refcut_backend.label_studio.prompts import PercentBox, PercentClick
from refcut_backend.queue.heartbeats import WorkerState
from refcut_backend.queue.messages import (
    ClickAnswer,
    ClickJob,
    FoundLabel,
    FoundMask,
    LabelToFind,
    PrelabelAnswer,
    PrelabelJob,
    PreloadJob,
    is_first_click,
    read_message,
)

CLICK = PercentClick(10, 20, True, "a")
MESSAGES: list[Any] = [
    ClickJob(
        1, 2, "/a.jpg", "Door", (CLICK,), (3,), ("a",), PercentBox(1, 2, 3, 4, "b"), extent=-2, wants_map=True
    ),
    ClickAnswer(
        4, 2, [1, 255], 0.5, ("v1",), "s14", milliseconds={"network": 1.5}, extent=-1, map_png="iVBO"
    ),
    PreloadJob(1, 2, ("/a.jpg",), ((3, 4), (5,))),
    PrelabelJob(1, 2, (LabelToFind("Door", "image", "/a.jpg", (3,)),)),
    PrelabelAnswer((FoundLabel("Door", "image", 4, 2, (FoundMask([1], 0.5),), ("v1",)),), "s14"),
]
EACH = pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)


def stored(message: Any) -> Any:
    return json.loads(json.dumps(message.to_json()))


@EACH
def test_a_later_version_may_send_more_fields(message):
    more = stored(message) | {"mood": "good", "format_of_tomorrow": [1, 2]}
    assert type(message).from_json(more) == message


@EACH
@pytest.mark.parametrize("data", [None, 7, "text", [], [1], {}], ids=repr)
def test_what_is_no_message_is_a_reason_that_says_what_to_do(message, data):
    if data == {} and isinstance(message, PrelabelAnswer):
        assert PrelabelAnswer.from_json(data) == PrelabelAnswer(), "nothing was found yet"
        return
    with pytest.raises(MessageError, match=r"cannot be read|this worker reads|neither a size") as error:
        type(message).from_json(data)
    assert error.value.code == "bad_message"
    assert error.value.hint


def places(data: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in nested JSON."""
    inner = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    return [place for key, value in inner for place in ((*path, key), *places(value, (*path, key)))]


ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**400), 10**400),
    st.floats(),
    st.text(max_size=5),
    st.lists(st.none(), max_size=2),
    st.dictionaries(st.text(max_size=2), st.integers(), max_size=2),
)


@EACH
@given(st.data())
def test_any_value_in_any_place_is_read_or_is_a_reason(message, data):
    changed = stored(message)
    *path, last = data.draw(st.sampled_from(places(changed)))
    target = changed
    for key in path:
        target = target[key]
    target[last] = data.draw(ODD)
    with contextlib.suppress(MessageError):
        type(message).from_json(changed)


@EACH
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("rle", "no base64"),
        ("rle", [1, 2]),
        ("width", -1),
        ("width", 10**30),
        ("width", 0),
        ("score", float("nan")),
        ("score", "high"),
        ("reference_versions", "v1"),
        ("milliseconds", {"network": "long"}),
        ("found", [{}]),
        ("found", 5),
        ("labels", None),
        ("clicks", {"0": {}}),
        ("reference_ids", ["x"]),
        ("image_addresses", [None]),
        ("task_id", "two"),
    ],
)
def test_a_wrong_value_is_never_taken(message, field, value):
    data = stored(message)
    if field in data:
        with pytest.raises(MessageError):
            type(message).from_json(data | {field: value})


def test_the_error_names_the_field_and_never_its_value():
    with pytest.raises(MessageError) as error:
        ClickAnswer.from_json({"score": "canary-secret"})
    assert "score" in str(error.value)
    assert "canary" not in str(error.value)


@pytest.mark.parametrize("code", ["tomorrow", "busy\r\nX-Injected: 1", "ä", "x" * 10_000, ""])
def test_a_reason_code_that_this_version_does_not_know_becomes_error(code):
    for answer in (ClickAnswer, PrelabelAnswer):
        assert answer.from_json({"error_code": code}).error_code == RefCutError.code
        assert answer.from_json({"error_code": "busy"}).error_code == "busy"


def test_only_known_steps_of_a_click_become_metrics():
    spent = {"network": 1.0, "x" * 50: 2.0}
    answer = {"width": 4, "height": 2, "milliseconds": spent}
    assert ClickAnswer.from_json(answer).milliseconds == {"network": 1.0}


@pytest.mark.parametrize(
    "state",
    [{"name": 5, "queues": []}, {"name": "w", "queues": "clicks", "click_s": "x"}, {"queues": ["clicks"]}],
)
def test_the_state_of_a_worker_is_read_like_any_message(state):
    with pytest.raises(MessageError):
        read_message(WorkerState, state, "the state of a worker")


def test_a_first_click_is_told_from_later_ones():
    job = MESSAGES[0].to_json()
    assert is_first_click(job | {"box": None})
    assert is_first_click(job | {"clicks": ()})
    assert not is_first_click(job)
    assert not is_first_click(job | {"box": None, "clicks": [{}, {}]})


def test_an_answer_is_the_same_after_its_way_through_json():
    rle = brush_rle.encode(np.eye(20, dtype=bool))
    answer = ClickAnswer(
        width=20,
        height=20,
        rle=rle,
        score=0.5,
        reference_versions=("v1", "v2"),
        milliseconds={"network": 1.5},
    )
    assert ClickAnswer.from_json(json.loads(json.dumps(answer.to_json()))) == answer
    refused = ClickAnswer(error_code="image", error_message="401")
    assert ClickAnswer.from_json(json.loads(json.dumps(refused.to_json()))) == refused


def test_a_mask_takes_less_than_half_of_the_room_that_a_list_of_numbers_takes():
    rle = brush_rle.encode(np.random.default_rng(0).random((50, 50)) > 0.5)
    assert len(json.dumps(ClickAnswer(rle=rle).to_json())) < len(json.dumps(rle)) / 2
