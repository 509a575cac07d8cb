"""What references are worth, with a small random network and real images."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest

from model.masks import deepest_point, intersection_over_union
from model.types import Click
from refcut_backend.errors import BadMaskError, ImageError
from refcut_backend.images.address import TaskImage
from refcut_backend.inference.engine import ClickEngine
from refcut_backend.inference.measurer import SLICE_S, ReferenceMeasurer
from refcut_backend.label_studio import brush_rle
from refcut_backend.queue.measure_queue import MeasuredSet, MeasureJob
from refcut_backend.queue.messages import ClickAnswer
from tests.refcut_backend.inference.test_engine import (
    SETTINGS,
    Store,
    job,
    make_engine,
    network,
    picture,
    serve,
)

HEIGHT, WIDTH = 40, 60


def target() -> np.ndarray:
    mask_hw = np.zeros((HEIGHT, WIDTH), bool)
    mask_hw[8:31, 20:43] = True
    return mask_hw


def measurement(*sets: tuple[int, ...], address: str = "/a.jpg") -> MeasureJob:
    return MeasureJob(1, 5, address, brush_rle.encode(target()), WIDTH, HEIGHT, sets)


def never() -> bool:
    return False


def iou_of_a_click(engine: ClickEngine, references: tuple[int, ...]) -> float:
    """That of the click in Label Studio on the middle of the target."""
    row, col = deepest_point(target())
    clicked = job((100 * col / WIDTH, 100 * row / HEIGHT), references=references)
    answer: ClickAnswer = engine.answer(clicked)
    mask_hw = brush_rle.decode(answer.rle, HEIGHT, WIDTH) if answer.rle else np.zeros((HEIGHT, WIDTH), bool)
    return round(intersection_over_union(target(), mask_hw), 4)


def test_a_measured_click_is_the_click_of_label_studio_with_the_same_references():
    engine = make_engine(Store())
    sets = ((), (1,), (1, 3))
    unsure = engine.prepare(TaskImage(1, 5, "/a.jpg"), (1,), never)
    assert unsure is not None
    middle = float(np.median(unsure.predictor.predict([Click(19.0, 31.0)]).probability_hw))
    serve(engine, network(), "model-1", dataclasses.replace(SETTINGS, threshold=middle))
    answer = ReferenceMeasurer(engine).measure(measurement(*sets), never)
    assert answer.measured == tuple(MeasuredSet(iou_of_a_click(engine, ids)) for ids in sets)
    assert len({one.iou for one in answer.measured}) > 1, "the references change the mask"
    assert answer.model_version == "model-1"
    assert len(answer.image) == 64


def test_it_stops_for_a_click_and_the_rest_can_be_asked_for_again():
    asked = itertools.count()
    part = ReferenceMeasurer(make_engine(Store())).measure(
        measurement((), (1,), (3,)), lambda: next(asked) > 6
    )
    assert len(part.measured) in (1, 2)
    none = ReferenceMeasurer(make_engine(Store())).measure(measurement(()), lambda: True)
    assert (none.measured, none.error_code) == ((), None)


def test_after_its_slice_no_further_set_is_begun_but_one_is_always_done():
    times = itertools.count(0, SLICE_S + 1)
    measurer = ReferenceMeasurer(make_engine(Store()), lambda: next(times))
    assert len(measurer.measure(measurement((), (1,)), never).measured) == 1


def test_the_images_that_people_click_on_stay_in_the_cache():
    store = Store()
    engine = make_engine(store)
    clicked = engine.answer(job((10, 10), address="/clicked.jpg"))
    ReferenceMeasurer(engine).measure(measurement((), (1,)), never)
    again = engine.answer(job((10, 10), address="/clicked.jpg"))
    assert (again.rle, again.score) == (clicked.rle, clicked.score)
    assert sorted(store.loaded) == ["/a.jpg", "/clicked.jpg", "/ref1.jpg"]


def test_a_reference_is_not_measured_on_its_own_photograph_whatever_the_task():
    store = Store()
    store.files["/copy.jpg"] = store.files["/ref1.jpg"] = picture(3)
    answer = ReferenceMeasurer(make_engine(store)).measure(measurement((1,), address="/copy.jpg"), never)
    assert answer.measured == (MeasuredSet(None),)


def test_a_set_with_a_lost_or_a_deleted_reference_says_so():
    store = Store()
    store.lost.add("/ref1.jpg")
    answer = ReferenceMeasurer(make_engine(store)).measure(measurement((1, 3), (99,)), never)
    assert [one.iou for one in answer.measured] == [None, None]
    assert "Label Studio answers 404" in answer.measured[0].problem
    assert answer.measured[1].problem == "it was deleted meanwhile"


def test_a_photograph_that_was_replaced_and_one_that_is_lost_are_reasons():
    engine = make_engine(Store(HEIGHT, WIDTH + 2))
    with pytest.raises(BadMaskError, match="60 x 40 px lies on an image of 62 x 40 px"):
        ReferenceMeasurer(engine).measure(measurement(()), never)
    store = Store()
    store.problem = ImageError("gone")
    with pytest.raises(ImageError):
        ReferenceMeasurer(make_engine(store)).measure(measurement(()), never)


def test_every_piece_counts_where_the_extra_parameters_say_so(monkeypatch):
    seen: list[bool] = []

    def keep(result, clicks, size_hw, threshold):
        seen.append(clicks is None)
        return np.zeros(size_hw, bool)

    monkeypatch.setattr("refcut_backend.inference.measurer.mask_of_click", keep)
    measurer = ReferenceMeasurer(make_engine(Store()))
    for pieces in ("auto", "all", "clicked"):
        measurer.measure(dataclasses.replace(measurement((), (1,)), pieces=pieces), never)
    assert seen == [True, False, True, True, False, False]
