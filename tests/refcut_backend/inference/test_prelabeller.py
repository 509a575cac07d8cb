"""Looking at a task without a click, with a small random network and real images."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from model.predictor import RefCutPredictor
from model.proposals import ProposalLimits
from refcut_backend.errors import ImageError
from refcut_backend.inference.engine import ClickEngine
from refcut_backend.inference.prelabeller import SLICE_S, Prelabeller
from refcut_backend.label_studio import brush_rle
from refcut_backend.queue.messages import LabelToFind, PrelabelAnswer, PrelabelJob
from tests.refcut_backend.inference.test_engine import SETTINGS, Store, job, make_engine, network, serve


def task(*labels: str, references: tuple[int, ...] = (1,), address: str = "/a.jpg") -> PrelabelJob:
    return PrelabelJob(1, 5, tuple(LabelToFind(label, "image", address, references) for label in labels))


def never() -> bool:
    return False


def prelabeller_of(engine: ClickEngine, **more: Any) -> Prelabeller:
    """Proposes everything: masks of a random network are worth nothing."""
    return Prelabeller(engine, ProposalLimits(locations=2, min_score=0.0), **more)


def masks(answer: PrelabelAnswer) -> list[np.ndarray]:
    return [
        brush_rle.decode(mask.rle, found.height, found.width)
        for found in answer.found
        for mask in found.masks
    ]


def test_masks_have_the_images_size_a_score_and_the_references_that_they_come_from():
    answer = prelabeller_of(make_engine(Store(44, 66))).look(task("Wheel", "Door"), never)
    assert [found.label for found in answer.found] == ["Wheel", "Door"]
    assert {found.reference_versions for found in answer.found} == {("v1",)}
    assert answer.model_version == "model-1"
    assert masks(answer)
    assert all(mask_hw.shape == (44, 66) and mask_hw.any() for mask_hw in masks(answer))
    assert all(0 <= mask.score <= 1 for found in answer.found for mask in found.masks)


def test_when_its_turn_is_over_it_stops_and_says_what_is_done():
    asked: list[bool] = []
    whole = prelabeller_of(make_engine(Store())).look(task("Wheel", "Door"), lambda: bool(asked.append(True)))
    assert len(whole.found) == 2
    done: list[int] = []
    for allowed in range(len(asked)):
        turns = itertools.count()
        looked = prelabeller_of(make_engine(Store())).look(
            task("Wheel", "Door"), lambda turns=turns, allowed=allowed: next(turns) >= allowed
        )
        # While an image is on its way the question comes again and again, so that one run asks less often than another.
        was_told_to_stop = next(turns) > allowed
        assert (len(looked.found) < 2) == was_told_to_stop
        assert looked.error_code is None
        done.append(len(looked.found))
    assert {0, 1} <= set(done)


def test_it_stops_in_the_middle_of_a_label_when_something_more_urgent_comes(monkeypatch: pytest.MonkeyPatch):
    steps: list[int] = []
    predict = RefCutPredictor.predict
    monkeypatch.setattr(
        RefCutPredictor, "predict", lambda self, clicks: steps.append(len(clicks)) or predict(self, clicks)
    )
    assert prelabeller_of(make_engine(Store())).look(task("Wheel"), never).found
    assert len(steps) > 1
    steps.clear()
    assert not prelabeller_of(make_engine(Store())).look(task("Wheel"), lambda: bool(steps)).found
    assert steps == [0], "the mask of the reference alone was the last step"


def test_after_its_slice_no_further_label_is_begun_but_one_is_always_done():
    times = itertools.count(0, SLICE_S + 1)
    answer = prelabeller_of(make_engine(Store()), clock=lambda: next(times)).look(
        task("Wheel", "Door"), never
    )
    assert [found.label for found in answer.found] == ["Wheel"]


def test_the_image_is_fetched_once_for_all_labels_and_the_clicks_images_stay():
    store = Store()
    engine = make_engine(store)
    clicked = engine.answer(job((10, 10), address="/clicked.jpg"))
    prelabeller_of(engine).look(task("Wheel", "Door"), never)
    assert sorted(store.loaded) == ["/a.jpg", "/clicked.jpg", "/ref1.jpg"]
    again = engine.answer(job((10, 10), address="/clicked.jpg"))
    assert (again.rle, again.score) == (clicked.rle, clicked.score)
    assert len(store.loaded) == 3


def test_a_reference_of_another_project_or_one_that_is_gone_finds_nothing():
    for references in ((2,), (99,)):
        answer = prelabeller_of(make_engine(Store())).look(task("Wheel", references=references), never)
        assert [found.masks for found in answer.found] == [()]


def test_an_image_that_cannot_be_had_is_a_reason():
    store = Store()
    store.problem = ImageError("gone")
    with pytest.raises(ImageError):
        prelabeller_of(make_engine(store)).look(task("Wheel"), never)


def test_another_model_looks_anew():
    engine = make_engine(Store())
    prelabeller = prelabeller_of(engine)
    before = prelabeller.look(task("Wheel"), never)
    serve(engine, network(1), "model-2", SETTINGS)
    after = prelabeller.look(task("Wheel"), never)
    assert (before.model_version, after.model_version) == ("model-1", "model-2")
    assert [mask.score for mask in before.found[0].masks] != [mask.score for mask in after.found[0].masks]
