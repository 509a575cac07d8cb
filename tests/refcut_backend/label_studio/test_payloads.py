"""tests/refcut_backend/label_studio/test_payloads.py."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from refcut_backend.label_studio.payloads import PredictRequest, Timestamp, without_masks
from tests.support.recorded import brush_result, recorded


def seen(**task: Any) -> frozenset[str] | None:
    body = {"tasks": [{"id": 1, "data": {}, "annotations": [], "drafts": []} | task], "project": "1.1"}
    return PredictRequest.model_validate_json(json.dumps(body)).tasks[0].seen_region_ids()


def test_region_ids_of_annotations_and_drafts_are_read():
    mask = {"id": "rc-a", "type": "brushlabels", "value": {"rle": [1, 2, 3]}}
    assert seen(
        annotations=[{"id": 5, "result": [mask, {"id": "b"}]}, {"id": 6, "result": []}],
        drafts=[{"id": 7, "result": [{"id": "c"}]}],
    ) == {"rc-a", "b", "c"}


def test_a_draft_stands_for_the_annotation_that_it_changes():
    annotations = [{"id": 5, "result": [{"id": "rc-a"}]}, {"id": 6, "result": [{"id": "rc-b"}]}]
    assert seen(annotations=annotations) == {"rc-a", "rc-b"}
    assert seen(annotations=annotations, drafts=[{"id": 7, "annotation": 5, "result": []}]) == {"rc-b"}
    assert seen(annotations=annotations, drafts=[{"id": 7, "annotation": None, "result": []}]) == {
        "rc-a",
        "rc-b",
    }


def test_a_request_without_annotations_and_drafts_says_nothing_about_regions():
    body = {"tasks": [{"id": 1, "data": {}}], "project": "1.1"}
    assert PredictRequest.model_validate(body).tasks[0].seen_region_ids() is None


def test_a_recorded_draft_is_read():
    steps = recorded("ui_s10_negative_lost_after_reload")
    bodies = [step["backend_received"]["body"] for step in steps if "backend_received" in step]
    found = [PredictRequest.model_validate(body).tasks[0].seen_region_ids() for body in bodies]
    assert found == [frozenset(), frozenset(), {"cJ5EpUqdAQ", "vtIP9nHvD2"}]


@pytest.mark.parametrize(
    "odd",
    [
        None,
        3,
        "x",
        {},
        [1, 2],
        ["x"],
        [None],
        [{}],
        [{"result": None}],
        [{"result": "[]"}],
        [{"result": {"id": "a"}}],
        [{"result": ["a"]}],
        [{"result": [{"id": None}]}],
        [{"result": [{"id": 3}]}],
        [{"result": [{}]}],
    ],
)
@pytest.mark.parametrize("field", ["annotations", "drafts"])
def test_whatever_annotations_look_like_a_click_is_not_refused(field, odd):
    assert seen(**{field: odd}) <= {""}


def test_a_mask_that_cannot_be_decoded_is_not_looked_at():
    values = [{"rle": "garbage"}, {"rle": [10**400]}, {"rle": {"x": None}}, 5, None]
    result = [{"id": str(number), "value": value} for number, value in enumerate(values)]
    assert seen(annotations=[{"result": result}]) == {"0", "1", "2", "3", "4"}


@pytest.mark.parametrize("x", ["NaN", "Infinity", "1e999", '"left"', "null", "10" * 200])
def test_promise_24_odd_positions_get_as_far_as_the_click_that_names_them(x):
    dot = (
        f'{{"id": "a", "type": "keypointlabels", "value": {{"x": {x}, "y": 1, "keypointlabels": ["Door"]}}}}'
    )
    body = f'{{"tasks": [{{"id": 1}}], "project": 1, "params": {{"context": {{"result": [{dot}]}}}}}}'
    context = PredictRequest.model_validate_json(body).params.context
    assert context is not None
    assert context.result[0]["id"] == "a"


def test_text_that_could_not_be_sent_back_is_refused():
    body = r'{"tasks": [{"id": 1}], "project": 1, "params": {"context": {"result": [{"id": "\ud800"}]}}}'
    with pytest.raises(ValidationError):
        PredictRequest.model_validate_json(body)


texts = st.text(st.sampled_from('"rle\\[]:,1 '), max_size=12)
lists_of_bytes = st.lists(st.integers(0, 255), max_size=5)
documents = st.recursive(
    st.none() | st.booleans() | st.integers() | texts,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(texts | st.just("rle"), inner | lists_of_bytes)
    ),
    max_leaves=20,
)


def emptied(value: object) -> object:
    """What `without_masks` must mean: lists of bare values under a key that ends in `rle` are empty."""
    if isinstance(value, list):
        return [emptied(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {key: [] if is_mask(key, item) else emptied(item) for key, item in value.items()}


def is_mask(key: str, item: object) -> bool:
    named = key == "rle" or key.endswith('"rle')
    return named and isinstance(item, list) and not any(isinstance(n, str | list | dict) for n in item)


@given(documents, st.sampled_from([(",", ":"), (", ", ": ")]), st.booleans())
def test_only_masks_are_cut_out_whatever_else_the_json_holds(document, separators, ascii_only):
    body = json.dumps(document, separators=separators, ensure_ascii=ascii_only).encode()
    assert json.loads(without_masks(body)) == emptied(document)


def test_masks_of_annotations_and_drafts_are_never_parsed_and_change_nothing():
    body = recorded("predict_interactive_3clicks_full")["body"]
    plain = PredictRequest.model_validate(body)
    region = brush_result("r", "Cat", np.eye(30, dtype=bool))
    body["tasks"][0]["annotations"] = [{"id": 1, "result": [region] * 5}]
    body["tasks"][0]["drafts"] = [{"id": 2, "result": [region]}]
    raw = json.dumps(body, indent=1).encode()
    cut = without_masks(raw)
    assert len(cut) < len(raw) - 6 * len(region["value"]["rle"])
    read = PredictRequest.model_validate_json(cut)
    assert read.params == plain.params
    assert read.tasks[0].data == plain.tasks[0].data


def test_what_is_made_to_take_long_takes_no_longer_than_its_length():
    """Quadratic time would be many minutes here."""
    keys = b'"rle":[' * 200_000
    assert without_masks(keys + b"]") == keys + b"]"
    assert without_masks(keys) == keys
    nested = b'{"rle":' + b"[" * 200_000 + b"]" * 200_000 + b"}"
    assert without_masks(nested * 3) == nested * 3


def test_times_sort_as_text_whether_or_not_label_studio_writes_a_fraction():
    written = ["2026-11-22T10:14:47.994758Z", "2026-11-22T10:14:48Z", "2026-11-22T10:14:48.000001Z"]
    assert sorted(map(Timestamp, written)) == [Timestamp(time) for time in written]


def test_a_time_in_another_zone_sorts_by_what_it_means():
    assert Timestamp("2026-11-22T12:00:00+02:00") == Timestamp("2026-11-22T10:00:00Z")


@pytest.mark.parametrize("text", ["", "2026", "yesterday"])
def test_what_is_no_time_stays_as_it_is(text):
    assert Timestamp(text) == text


def test_some_seconds_earlier():
    assert Timestamp("2026-01-01T00:00:30Z").minus(60) == Timestamp("2025-12-31T23:59:30Z")
