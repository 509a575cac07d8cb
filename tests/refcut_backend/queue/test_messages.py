"""Answers survive their way through JSON."""

from __future__ import annotations

import json

import numpy as np

from refcut_backend.label_studio import brush_rle
from refcut_backend.queue.messages import ClickAnswer


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
