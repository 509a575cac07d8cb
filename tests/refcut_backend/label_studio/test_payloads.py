from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from refcut_backend.label_studio.payloads import PredictRequest
from tests.support.recorded import recorded


def seen(**task: Any) -> frozenset[str]:
    body = {"tasks": [{"id": 1, "data": {}} | task], "project": "1.1"}
    return PredictRequest.model_validate_json(json.dumps(body)).tasks[0].seen_region_ids()


def test_region_ids_of_annotations_and_drafts_are_read():
    mask = {"id": "rc-a", "type": "brushlabels", "value": {"rle": [1, 2, 3]}}
    assert seen(
        annotations=[{"id": 5, "result": [mask, {"id": "b"}]}, {"id": 6, "result": []}],
        drafts=[{"id": 7, "result": [{"id": "c"}]}],
    ) == {"rc-a", "b", "c"}


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
