from __future__ import annotations

import dataclasses

import pytest

from model.proposals import Evidence, expected_iou

MIDDLING = Evidence(
    nearest=0.45, difference=0.05, alone=0.6, agreement=0.5, stability=0.6, confidence=0.75, log_area=-3.5
)


def test_the_score_of_a_middling_mask_is_neither_sure_nor_nothing():
    assert 0.1 < expected_iou(MIDDLING) < 0.8


@pytest.mark.parametrize("name", ["nearest", "alone", "agreement", "stability", "confidence"])
def test_what_speaks_for_a_mask_raises_its_score(name: str):
    more = dataclasses.replace(MIDDLING, **{name: getattr(MIDDLING, name) + 0.2})
    assert expected_iou(more) > expected_iou(MIDDLING)


@pytest.mark.parametrize("extreme", [-1000.0, 1000.0])
def test_any_evidence_gives_a_score_between_0_and_1(extreme: float):
    said = Evidence(*[extreme] * len(dataclasses.fields(Evidence)))
    assert 0 <= expected_iou(said) <= 1
