"""Steps that are kept: no step is computed twice, whoever clicks in between, and memory stays bounded."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from model import click_steps
from model.click_steps import KEPT_STEPS, WHOLE_STEPS
from model.memory import nbytes
from model.predictor import RefCutPredictor
from model.predictor_config import PredictorSettings
from model.types import Box, Click, MaskResult
from tests.support.synthetic import TINY_CONFIGS, drawn_image, obedient_network

HEIGHT, WIDTH = 61, 90
ANNOTATORS = 8
CLICKS = 4
KINDS = pytest.mark.parametrize("kind", ["frozen", "reader", "reader, two looks"])


def make(kind: str) -> RefCutPredictor:
    network = obedient_network(TINY_CONFIGS[kind.removesuffix(", two looks")])
    looks = kind.endswith("two looks")
    settings = PredictorSettings(
        zoom_min_px=10, network_px=network.config.network_px, second_look=looks, close_ups=looks
    )
    predictor = RefCutPredictor(network, settings)
    predictor.set_image(drawn_image(HEIGHT, WIDTH))
    return predictor


def clicks_of(annotator: int) -> list[Click]:
    random = np.random.default_rng(annotator)
    return [
        Click(float(random.uniform(0, HEIGHT - 1)), float(random.uniform(0, WIDTH - 1)), number % 2 == 0)
        for number in range(CLICKS)
    ]


def same(first: MaskResult, second: MaskResult) -> bool:
    return (
        (first.crop, first.expected_iou, first.chosen) == (second.crop, second.expected_iou, second.chosen)
        and np.array_equal(first.probability_hw, second.probability_hw)
        and np.array_equal(first.mask_hw, second.mask_hw)
    )


@pytest.fixture
def count_steps(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes a predictor count the steps that it computes."""

    def counted(predictor: RefCutPredictor) -> list[int]:
        steps: list[int] = []
        compute = predictor._click_step

        def click_step(clicks: tuple[Click, ...], *others: Any) -> Any:
            steps.append(len(clicks))
            return compute(clicks, *others)

        monkeypatch.setattr(predictor, "_click_step", click_step)
        return steps

    return counted


@KINDS
def test_annotators_who_take_turns_on_one_photograph_have_each_step_computed_once(
    kind: str, count_steps: Any
) -> None:
    predictor = make(kind)
    steps = count_steps(predictor)
    for count in range(1, CLICKS + 1):
        for annotator in range(ANNOTATORS):
            clicks = clicks_of(annotator)[:count]
            assert same(predictor.predict(clicks), make(kind).predict(clicks))
    assert steps == [count for count in range(1, CLICKS + 1) for _ in range(ANNOTATORS)]


@KINDS
def test_two_labels_on_one_photograph_keep_their_steps_apart(kind: str, count_steps: Any) -> None:
    predictor = make(kind)
    other = drawn_image(40, 70, seed=1)
    marked_hw = np.zeros((40, 70), bool)
    marked_hw[5:25, 5:25] = True
    references = [None, *(predictor.encode_reference(other, hw, None) for hw in (marked_hw, ~marked_hw))]
    clicks = clicks_of(0)
    expected = []
    for reference in references:
        fresh = make(kind)
        fresh.set_reference(reference)
        expected.append(fresh.predict(clicks))
    assert not same(expected[0], expected[1])
    assert not same(expected[1], expected[2])
    steps = count_steps(predictor)
    for _ in range(2):
        for reference, wanted in zip(references, expected, strict=True):
            predictor.set_reference(reference)
            assert same(predictor.predict(clicks), wanted)
    assert len(steps) == len(references) * CLICKS


def test_a_box_and_its_clicks_keep_their_steps_apart_from_the_same_clicks_without_it(
    count_steps: Any,
) -> None:
    predictor = make("frozen")
    box, clicks = Box(20, 44, 30, 60), clicks_of(1)[:2]
    expected = {within: make("frozen").predict(clicks, within) for within in (None, box)}
    steps = count_steps(predictor)
    for _ in range(2):
        for within, wanted in expected.items():
            assert same(predictor.predict(clicks, within), wanted)
    assert steps == [1, 2, 0, 1, 2]


@pytest.mark.parametrize("kind", ["reader", "reader, two looks"])
def test_hundreds_of_objects_keep_a_few_steps_whole_and_a_bounded_number_of_others(kind: str) -> None:
    predictor = make(kind)
    for annotator in range(3):
        predictor.predict(clicks_of(annotator))
    kept = predictor._steps
    one_mask = next(iter(kept._whole.values())).result.probability_hw.nbytes
    for annotator in range(3, KEPT_STEPS):
        predictor.predict(clicks_of(annotator))
    assert len(kept._whole) == WHOLE_STEPS
    assert len(kept._outputs) == KEPT_STEPS
    grown = predictor.nbytes
    for annotator in range(KEPT_STEPS, 2 * KEPT_STEPS):
        predictor.predict(clicks_of(annotator))
    assert predictor.nbytes == pytest.approx(grown, rel=0.01)
    outputs = kept.nbytes - sum(
        step.result.probability_hw.nbytes + step.result.mask_hw.nbytes for step in kept._whole.values()
    )
    assert outputs / (KEPT_STEPS + WHOLE_STEPS) < one_mask, (
        "a step without its masks is smaller than one mask"
    )


def test_the_memory_of_steps_is_measured_once_each(monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = make("reader, two looks")
    for annotator in range(WHOLE_STEPS):
        predictor.predict(clicks_of(annotator))
    kept = predictor._steps
    assert len(kept._outputs) > WHOLE_STEPS
    assert kept.nbytes == nbytes(kept._whole, kept._outputs)
    measured = []
    monkeypatch.setattr(click_steps, "nbytes", lambda *values: measured.append(values) or nbytes(*values))
    before = kept.nbytes
    predictor.predict([*clicks_of(0), Click(1.0, 1.0)])
    assert kept.nbytes > before
    assert kept.nbytes == nbytes(kept._whole, kept._outputs)
    # Of the outputs only those that this click has put there.
    assert len([values for values in measured if values[0] is not kept._whole]) <= 2 < len(kept._outputs)


@pytest.mark.parametrize("forget", ["set_image", "start_from", "forget_clicks"])
def test_another_image_another_start_and_an_interruption_forget_all_steps(
    forget: str, count_steps: Any
) -> None:
    predictor = make("frozen")
    predictor.predict(clicks_of(0))
    steps = count_steps(predictor)
    {
        "set_image": lambda: predictor.set_image(drawn_image(HEIGHT, WIDTH)),
        "start_from": lambda: predictor.start_from(None),
        "forget_clicks": predictor.forget_clicks,
    }[forget]()
    predictor.predict(clicks_of(0))
    assert steps == list(range(1, CLICKS + 1))
