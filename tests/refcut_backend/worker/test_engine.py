from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from model.config import PRESETS
from model.network.refcut import RefCut
from model.predictor import SERVING
from refcut_backend.core import brush_rle
from refcut_backend.core.clicks import PercentClick
from refcut_backend.errors import ModelOutputError
from refcut_backend.jobs.click_job import ClickJob
from refcut_backend.store.references import StoredReference
from refcut_backend.worker.engine import ClickEngine

TINY = dataclasses.replace(
    PRESETS["s14"],
    embed_dim=48,
    depth=3,
    heads=2,
    fusion_block=1,
    comparison_blocks=(1, 2),
    neck_channels=(8, 8, 8, 8),
    head_channels=8,
    detail_channels=8,
    prompt_hidden_dim=16,
    neck_inner_32_dim=16,
    position_grid=4,
)


class Store:
    """Images and references by number, counting what is loaded."""

    def __init__(self, height: int = 40, width: int = 60) -> None:
        self.loaded: list[str] = []
        self.image = np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)
        mask_hw = np.zeros((height, width), bool)
        mask_hw[5:20, 5:20] = True
        self.references = {
            number: StoredReference(f"v{number}", project, 9, f"/ref{number}.jpg", mask_hw, None)
            for number, project in ((1, 1), (2, 2))
        }

    def load_image(self, _project: int, _task: int, address: str) -> np.ndarray:
        self.loaded.append(address)
        return self.image


def make_engine(store: Store, cached_images: int = 3) -> ClickEngine:
    torch.manual_seed(0)
    network = RefCut(TINY).eval()
    settings = dataclasses.replace(SERVING, network_px=112, threshold=0.2)
    return ClickEngine(network, store.load_image, store.references.get, cached_images, settings)


def job(*clicks: tuple[float, float], references: Sequence[int] = (), address: str = "/a.jpg") -> ClickJob:
    percent = tuple(PercentClick(x, y, True) for x, y in clicks)
    return ClickJob(1, 2, address, "Door", percent, tuple(references))


def test_an_image_is_fetched_once_for_all_its_clicks():
    store = Store()
    engine = make_engine(store)
    for count in range(1, 4):
        engine.answer(job(*[(10.0 * n, 50.0) for n in range(1, count + 1)]))
    assert store.loaded == ["/a.jpg"]


def test_a_reference_is_encoded_once_and_named_in_the_answer():
    store = Store()
    engine = make_engine(store)
    answers = [engine.answer(job((50, 50), references=[1], address=f"/{n}.jpg")) for n in range(2)]
    assert [answer.reference_versions for answer in answers] == [("v1",), ("v1",)]
    assert store.loaded.count("/ref1.jpg") == 1


def test_a_reference_of_another_project_is_never_used():
    assert make_engine(Store()).answer(job((50, 50), references=[2])).reference_versions == ()


def test_a_reference_that_was_removed_meanwhile_is_left_out():
    assert make_engine(Store()).answer(job((50, 50), references=[7])).reference_versions == ()


@pytest.mark.parametrize(("height", "width"), [(40, 60), (1, 1), (3, 900), (1500, 2000)])
def test_the_mask_has_the_images_true_size(height, width):
    store = Store(height, width)
    answer = make_engine(store).answer(job((100, 100), references=[]))
    assert (answer.height, answer.width) == (height, width)
    if answer.rle:
        assert brush_rle.decode(answer.rle, height, width).shape == (height, width)


def test_an_answer_depends_on_the_click_list_alone_and_not_on_what_was_asked_before():
    engine = make_engine(Store())
    first = engine.answer(job((20, 20), (70, 70)))
    engine.answer(job((90, 10)))
    engine.answer(job((20, 20), references=[1]))
    again = engine.answer(job((20, 20), (70, 70)))
    assert first.rle == again.rle


def test_no_more_images_are_kept_than_allowed():
    store = Store()
    engine = make_engine(store, cached_images=1)
    for address in ("/a.jpg", "/b.jpg", "/a.jpg"):
        engine.answer(job((50, 50), address=address))
    assert store.loaded == ["/a.jpg", "/b.jpg", "/a.jpg"]


def test_an_output_that_is_not_a_number_is_a_reason_and_the_next_click_is_answered():
    engine = make_engine(Store())
    bias = engine._network.state_dict()
    broken = {name: torch.full_like(value, torch.nan) for name, value in bias.items()}
    healthy = {name: value.clone() for name, value in bias.items()}
    engine._network.load_state_dict(broken)
    with pytest.raises(ModelOutputError):
        engine.answer(job((50, 50)))
    engine._network.load_state_dict(healthy)
    assert engine.answer(job((50, 50))).error_code is None


def test_a_failure_in_the_middle_of_a_click_changes_no_later_answer():
    store = Store()
    engine = make_engine(store)
    expected = engine.answer(job((20, 20), references=[1])).rle
    engine.forget()
    assert engine.answer(job((20, 20), references=[1])).rle == expected
    assert store.loaded.count("/a.jpg") == 2
