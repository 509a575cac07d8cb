"""The playground without HTTP: photographs, references, clicks."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
from sqlalchemy import Engine

from model.masks import decode
from refcut_backend.clicks.service import WorkerRefusalError
from refcut_backend.errors import BadRequestError, ImageError, NoPositiveClickError
from refcut_backend.label_studio.project_ids import NO_PROJECT
from refcut_backend.label_studio.prompts import PercentBox, PercentClick
from refcut_backend.playground import demo
from refcut_backend.playground.clicks import MAX_CLICKS, MAX_REFERENCES
from refcut_backend.playground.service import Playground
from refcut_backend.queue.messages import ClickAnswer
from refcut_backend.references.parse import mask_to_png
from refcut_backend.references.registry import References
from refcut_backend.settings import Settings
from tests.support.fake_wiring import MASK, FakeQueue


@pytest.fixture
def playground(engine: Engine, queue: FakeQueue) -> Playground:
    return Playground(engine, queue, queue.preloads, Settings())


def photograph(height: int = 30, width: int = 40) -> bytes:
    ok, data = cv2.imencode(".png", np.full((height, width, 3), 120, np.uint8))
    assert ok
    return data.tobytes()


def square(height: int = 30, width: int = 40) -> np.ndarray:
    mask_hw = np.zeros((height, width), bool)
    mask_hw[5:15, 5:15] = True
    return mask_hw


def test_a_click_travels_as_any_other_without_a_project(playground: Playground, queue: FakeQueue) -> None:
    key = playground.add(photograph()).key
    reference = playground.mark(key, mask_to_png(square()), None)
    found = playground.clicks.answer(key, "one", [PercentClick(50, 50, True)], None, [reference.name])
    (job,) = queue.jobs
    assert (job.project_id, job.image_address) == (NO_PROJECT, f"playground:{key}")
    assert len(job.reference_ids) == 1
    assert np.array_equal(found.mask_hw, MASK)
    assert found.expected_iou == 0.9


def test_what_is_shown_is_prepared_as_a_click_will_need_it(playground: Playground, queue: FakeQueue) -> None:
    key = playground.add(photograph()).key
    reference = playground.mark(key, mask_to_png(square()), None)
    assert playground.clicks.preload(key, [])
    assert playground.clicks.preload(key, [reference.name])
    playground.clicks.answer(key, "one", [PercentClick(50, 50, True)], None, [reference.name])
    (click,), (alone, job) = queue.jobs, queue.preloads.jobs
    assert alone.reference_ids_by_label == ()
    assert (job.project_id, job.image_addresses) == (click.project_id, (click.image_address,))
    assert job.reference_ids_by_label == (click.reference_ids,)


def test_too_many_references_are_refused_for_clicks_and_preloads(
    playground: Playground, queue: FakeQueue
) -> None:
    names = ["1"] * (MAX_REFERENCES + 1)
    with pytest.raises(BadRequestError, match=f"at most {MAX_REFERENCES}"):
        playground.clicks.preload("key", names)
    with pytest.raises(BadRequestError, match=f"at most {MAX_REFERENCES}"):
        playground.clicks.answer("key", "one", [PercentClick(50, 50, True)], None, names)
    with pytest.raises(BadRequestError, match=f"at most {MAX_CLICKS}"):
        playground.clicks.answer("key", "one", [PercentClick(5, 5, True)] * (MAX_CLICKS + 1), None, [])
    assert (queue.jobs, queue.preloads.jobs) == ([], [])


def test_the_worker_finds_the_reference_as_it_was_marked(
    playground: Playground, engine: Engine, queue: FakeQueue
) -> None:
    key = playground.add(photograph()).key
    negative_hw = np.zeros((30, 40), bool)
    negative_hw[10:20, 5:30] = True
    reference = playground.mark(key, mask_to_png(square()), mask_to_png(negative_hw))
    playground.clicks.answer(key, "one", [PercentClick(50, 50, True)], None, [reference.name])
    stored = References(engine).load(queue.jobs[0].reference_ids[0])
    assert stored is not None
    assert stored.project_id == NO_PROJECT
    assert np.array_equal(stored.positive_hw, square())
    assert stored.negative_hw is not None
    assert np.array_equal(stored.negative_hw, negative_hw & ~square())


def test_with_and_without_a_reference_are_two_objects_that_do_not_supersede_each_other(
    playground: Playground, queue: FakeQueue
) -> None:
    key = playground.add(photograph()).key
    for session in ("s-with", "s-alone"):
        playground.clicks.answer(key, session, [PercentClick(50, 50, True)], None, [])
    first, second = queue.jobs
    assert first.click_ids != second.click_ids
    assert first.task_id != second.task_id


def test_a_box_needs_no_click_and_a_negative_click_alone_is_refused(
    playground: Playground, queue: FakeQueue
) -> None:
    key = playground.add(photograph()).key
    playground.clicks.answer(key, "one", [], PercentBox(10, 10, 50, 50), [])
    assert queue.jobs[0].box == PercentBox(10, 10, 50, 50)
    with pytest.raises(NoPositiveClickError):
        playground.clicks.answer(key, "one", [PercentClick(50, 50, False)], None, [])


def test_the_workers_reason_reaches_the_caller(playground: Playground, queue: FakeQueue) -> None:
    queue.answer = ClickAnswer(error_code="oom", error_message="no memory left; use smaller images")
    with pytest.raises(WorkerRefusalError, match="no memory left") as refused:
        playground.clicks.answer("k", "one", [PercentClick(50, 50, True)], None, [])
    assert refused.value.code == "oom"


def test_a_reference_of_a_project_cannot_be_named(playground: Playground) -> None:
    with pytest.raises(BadRequestError, match="no longer on the playground"):
        playground.clicks.answer("k", "one", [PercentClick(50, 50, True)], None, ["1"])


@pytest.mark.parametrize("png", [b"nothing", mask_to_png(square(20, 40)), mask_to_png(square())[:40]])
def test_a_mask_of_another_form_or_size_is_refused(playground: Playground, png: bytes) -> None:
    key = playground.add(photograph()).key
    with pytest.raises(BadRequestError, match="no PNG of the photograph's size"):
        playground.mark(key, png, None)


def test_a_reference_that_marks_nothing_is_refused(playground: Playground) -> None:
    key = playground.add(photograph()).key
    with pytest.raises(BadRequestError, match="marks nothing"):
        playground.mark(key, mask_to_png(np.zeros((30, 40), bool)), None)


def test_only_images_of_the_allowed_formats_come_in(playground: Playground) -> None:
    for data in (b"GIF89a....", b"%PDF-1.7", b""):
        with pytest.raises(ImageError):
            playground.add(data)


def test_the_demo_has_photographs_whose_parts_are_references(playground: Playground) -> None:
    cars = [one for one in demo.photographs() if one.kind == "car"]
    assert len(cars) == 6
    labels = [part.label for part in demo.parts(cars[0].name)]
    assert {"Wheel", "Hood", "Front door", demo.WHOLE} <= set(labels)
    wheel = demo.part(cars[0].name, "Wheel")
    assert wheel.positive_hw.any()
    assert not (wheel.positive_hw & wheel.negative_hw).any()
    marked = playground.demo_reference(cars[0].name, "Wheel")
    assert cv2.imdecode(np.frombuffer(marked.outline_png, np.uint8), cv2.IMREAD_UNCHANGED).shape[2] == 4
    with pytest.raises(BadRequestError):
        playground.demo_reference("../secret.jpg", "Wheel")
    with pytest.raises(BadRequestError):
        playground.demo_reference(cars[0].name, "Sail")


def test_the_demos_masks_are_those_of_pycocotools() -> None:
    annotations = json.loads(demo.PARTS_FILE.read_text())["annotations"]
    assert len(annotations) > 80
    for annotation in annotations:
        assert np.array_equal(demo.coco_mask(annotation["segmentation"]), decode(annotation["segmentation"]))


def test_a_larger_mask_for_the_same_click_can_be_asked_for(playground: Playground, queue: FakeQueue) -> None:
    key = playground.add(photograph()).key
    playground.clicks.answer(key, "one", [PercentClick(50, 50, True)], None, [], extent=1)
    assert queue.jobs[0].extent == 1
