from __future__ import annotations

import base64
import contextlib
import dataclasses
import hashlib
import io
import sys
import threading
import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from types import FrameType
from typing import Any

import numpy as np
import pytest
import torch
from cachetools import Cache
from PIL import Image

from model import crop_features
from model.network.prompts import ReferenceTokens
from model.network.refcut import RefCut
from model.predictor import RefCutPredictor
from model.predictor_config import SERVING, PredictorSettings
from model.training.growth import with_candidates
from model.types import Box, MaskResult
from refcut_backend.errors import ImageError, ModelOutputError, RefCutError
from refcut_backend.images.address import TaskImage
from refcut_backend.images.cache import ImageCache
from refcut_backend.images.decode import decode_image
from refcut_backend.images.fetch import Fetched, Stamp
from refcut_backend.inference.engine import CLOSER_LABELS, CacheLimits, ClickEngine
from refcut_backend.inference.frames import clicks_in_pixels
from refcut_backend.inference.models import ServedModel
from refcut_backend.inference.reference_cache import RETRY_AFTER_S, ReferenceCache
from refcut_backend.label_studio import brush_rle
from refcut_backend.label_studio.prompts import PercentBox, PercentClick
from refcut_backend.queue.messages import MAX_MAP_TEXT, ClickAnswer, ClickJob, PreloadJob
from refcut_backend.queue.rq_jobs import JobTimeoutError
from refcut_backend.references.parse import mask_to_png
from refcut_backend.references.registry import StoredReference
from tests.support.one_model import OneModel
from tests.support.synthetic import TINY_FROZEN, TINY_READING, random_network


class Store:
    """Images and references by number, counting what is fetched. An image's bytes can be changed, or taken away."""

    def __init__(self, height: int = 40, width: int = 60) -> None:
        self.loaded: list[str] = []
        self.files: dict[str, bytes] = {}
        self.problem: RefCutError | None = None
        self.lost: set[str] = set()
        self.refused: list[str] = []
        self.gate: threading.Event | None = None
        self.size = (height, width)
        mask_hw = np.zeros((height, width), bool)
        mask_hw[5:20, 5:20] = True
        self.references = {
            number: StoredReference(f"v{number}", project, 9, f"/ref{number}.jpg", mask_to_png(mask_hw), None)
            for number, project in ((1, 1), (2, 2), (3, 1))
        }

    def fetch(self, where: TaskImage, known: Stamp, _limit_s: float) -> Fetched:
        if self.gate is not None:
            assert self.gate.wait(60)
        if self.problem is not None:
            raise self.problem
        if where.address in self.lost:
            self.refused.append(where.address)
            raise ImageError("Label Studio answers 404 for the image")
        self.loaded.append(where.address)
        data = self.files.get(where.address) or picture(len(where.address), *self.size)
        stamp = Stamp(etag=hashlib.sha256(data).hexdigest())
        return Fetched(None if stamp == known else data, stamp)


def picture(seed: int, height: int = 40, width: int = 60) -> bytes:
    data = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), np.uint8)
    Image.fromarray(pixels).save(data, "BMP")
    return data.getvalue()


@lru_cache
def network(seed: int = 0) -> RefCut:
    torch.manual_seed(seed)
    return random_network(TINY_FROZEN, seed)


SETTINGS = dataclasses.replace(SERVING, network_px=112, threshold=0.2)
LIMITS = CacheLimits(features=64 * 2**20, references=2**20)


def make_engine(
    store: Store, limits: CacheLimits = LIMITS, image_bytes: int = 2**25, recheck_s: float = 1e9
) -> ClickEngine:
    image_cache = ImageCache(
        store.fetch,
        lambda data: decode_image(data, 10**8),
        max_bytes=image_bytes,
        limit_s=60,
        recheck_s=recheck_s,
    )
    return ClickEngine(OneModel(network(), "model-1", SETTINGS), image_cache, store.references.get, limits)


def serve(engine: ClickEngine, network: RefCut, version: str, settings: PredictorSettings) -> None:
    """All projects get another model."""
    engine._models.model = ServedModel(version, network, settings)


def mask_of(answer: ClickAnswer) -> tuple[list[int], float]:
    """The mask and how sure the network is of it: two masks may be alike by chance, two scores hardly."""
    assert 0 < answer.score < 1
    return answer.rle, round(answer.score, 6)


def job(*clicks: tuple[float, float], references: Sequence[int] = (), address: str = "/a.jpg") -> ClickJob:
    percent = tuple(PercentClick(x, y, True) for x, y in clicks)
    return ClickJob(1, 2, address, "Door", percent, tuple(references))


def test_an_image_is_fetched_once_for_all_its_clicks():
    store = Store()
    engine = make_engine(store)
    for count in range(1, 4):
        engine.answer(job(*[(10.0 * n, 50.0) for n in range(1, count + 1)]))
    assert store.loaded == ["/a.jpg"]


def test_a_step_gives_the_next_candidate_and_says_how_far_it_could_go():
    engine = make_engine(Store())
    serve(engine, with_candidates(network()), "model-2", SETTINGS)
    answers = [engine.answer(dataclasses.replace(job((50, 50)), extent=extent)) for extent in (-9, 0, 9)]
    smallest, chosen, largest = answers
    assert chosen.extent == 0
    assert largest.extent - smallest.extent == 2, "three candidates are two steps apart"
    assert len({answer.score for answer in answers}) == 3 - (0 in (smallest.extent, largest.extent))


def test_a_probability_map_comes_along_only_if_it_is_wanted_and_is_small():
    engine = make_engine(Store(1200, 1600))
    assert engine.answer(job((50, 50))).map_png == ""
    answer = engine.answer(dataclasses.replace(job((50, 50)), wants_map=True))
    assert len(answer.map_png) < MAX_MAP_TEXT
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(answer.map_png))))
    assert shown.shape == (240, 320)
    assert engine._in_work is not None
    clicks = clicks_in_pixels(job((50, 50)).clicks, 960, 1280)
    probability_hw = engine._in_work.predictor.predict(clicks).probability_hw
    assert abs(float(shown.mean()) / 255 - float(probability_hw.mean())) < 0.01


def test_where_the_references_are_one_piece_each_far_specks_that_nobody_clicked_on_go(monkeypatch):
    found_hw = np.zeros((40, 60), np.float32)
    found_hw[15:25, 25:35] = found_hw[1:4, 1:4] = 0.9  # the middle is clicked on
    found = MaskResult(found_hw > SETTINGS.threshold, found_hw, Box.whole(40, 60))
    monkeypatch.setattr(RefCutPredictor, "predict", lambda *_: found)
    store = Store()
    two_hw = np.zeros((40, 60), bool)
    two_hw[5:20, 5:20] = two_hw[5:20, 40:55] = True
    store.references[4] = dataclasses.replace(
        store.references[1], version="v4", positive_png=mask_to_png(two_hw)
    )
    engine = make_engine(store)

    def far_speck_stays(*references: int, **changes: Any) -> bool:
        answer = engine.answer(dataclasses.replace(job((50, 50), references=references), **changes))
        mask_hw = brush_rle.decode(answer.rle, answer.height, answer.width)
        assert mask_hw[20, 30], "the clicked piece"
        return bool(mask_hw[2, 2])

    assert not far_speck_stays(1)
    assert not far_speck_stays(1, 3)
    assert far_speck_stays(1, 4), "one of them has two pieces"
    assert far_speck_stays(), "without a reference nothing is known"
    assert far_speck_stays(1, pieces="all")
    assert not far_speck_stays(1, 4, pieces="clicked")
    assert far_speck_stays(1, box=PercentBox(10, 10, 90, 90)), "a box shows what is meant"


def test_a_larger_mask_loses_its_specks_too_and_keeps_its_holes(monkeypatch):
    chosen_hw = np.zeros((40, 60), np.float32)
    chosen_hw[15:25, 25:35] = 0.9
    larger_hw = np.zeros((40, 60), np.float32)
    larger_hw[10:30, 20:40] = larger_hw[1:4, 1:4] = 0.9
    larger_hw[12:14, 22:24] = 0  # a hole
    chosen, larger = (
        MaskResult(found_hw > SETTINGS.threshold, found_hw, Box.whole(40, 60))
        for found_hw in (chosen_hw, larger_hw)
    )
    both = dataclasses.replace(chosen, candidates=(chosen, larger))
    monkeypatch.setattr(RefCutPredictor, "predict", lambda *_: both)
    answer = make_engine(Store()).answer(dataclasses.replace(job((50, 50), references=[1]), extent=1))
    assert answer.extent == 1
    expected_hw = larger_hw > 0
    expected_hw[1:4, 1:4] = False
    assert np.array_equal(brush_rle.decode(answer.rle, 40, 60), expected_hw)


def test_a_network_with_one_mask_takes_no_steps():
    asked = dataclasses.replace(job((50, 50)), extent=1)
    assert make_engine(Store()).answer(asked).extent == 0


def test_a_reference_is_encoded_once_and_named_in_the_answer():
    store = Store()
    engine = make_engine(store)
    answers = [engine.answer(job((50, 50), references=[1], address=f"/{n}.jpg")) for n in range(2)]
    assert [answer.reference_versions for answer in answers] == [("v1",), ("v1",)]
    assert store.loaded.count("/ref1.jpg") == 1


def test_open_photographs_share_the_joined_references_of_a_label(monkeypatch):
    store = Store()
    engine, joined, join = make_engine(store), [], ReferenceTokens.join

    def counting(references: Sequence[ReferenceTokens]) -> ReferenceTokens:
        joined.append(len(references))
        return join(references)

    monkeypatch.setattr(ReferenceTokens, "join", counting)
    addresses = ["/a.jpg", "/ab.jpg", "/abc.jpg"]
    found = [engine.answer(job((50, 50), references=[1, 3], address=where)) for where in addresses]
    assert joined.count(2) == 1
    assert all(answer.reference_versions == ("v1", "v3") for answer in found)
    engine.answer(job((50, 50), references=[3, 1]))
    assert joined.count(2) == 2, "newer references come first"
    engine.forget()
    assert mask_of(engine.answer(job((50, 50), references=[1, 3]))) == mask_of(found[0])
    assert joined.count(2) == 3


def test_joined_references_take_no_place_from_those_that_they_are_made_of(monkeypatch):
    engine, stages, encoded = make_engine(Store()), network(), []
    for one in (1, 3):
        engine.answer(job((50, 50), references=[one]))
    room_for_both = engine._references.nbytes
    limits = CacheLimits(features=64 * 2**20, references=3 * room_for_both // 2)
    engine, encode = make_engine(Store(), limits), stages.encode_reference
    monkeypatch.setattr(stages, "encode_reference", lambda *given: encoded.append(1) or encode(*given))
    for address in ("/a.jpg", "/ab.jpg", "/abc.jpg"):
        engine.answer(job((50, 50), references=[1, 3], address=address))
    once_each = len(encoded)
    assert engine._references.nbytes == room_for_both
    engine.answer(job((60, 60), references=[1, 3], address="/abcd.jpg"))
    assert len(encoded) == once_each


def test_a_reference_of_another_project_is_never_used():
    assert make_engine(Store()).answer(job((50, 50), references=[2])).reference_versions == ()


def test_a_reference_that_was_removed_meanwhile_is_left_out():
    assert make_engine(Store()).answer(job((50, 50), references=[7])).reference_versions == ()


def test_a_reference_whose_image_is_lost_is_left_out_by_name_and_the_others_are_used():
    store = Store()
    store.lost = {"/ref1.jpg"}
    engine = make_engine(store)
    both, alone = (
        engine.answer(job((50, 50), references=[1, 3])),
        engine.answer(job((50, 50), references=[3])),
    )
    assert both.reference_versions == ("v3",)
    (left_out,) = both.references_left_out
    assert (left_out.version, left_out.task_id, left_out.reason) == ("v1", 9, "image")
    assert "answers 404" in left_out.problem
    assert mask_of(both) == mask_of(alone)
    assert alone.references_left_out == ()
    assert ClickAnswer.from_json(both.to_json()) == both


def test_a_click_all_of_whose_references_are_lost_is_answered_without_any():
    store = Store()
    store.lost = {"/ref1.jpg", "/ref3.jpg"}
    engine = make_engine(store)
    answer, without = engine.answer(job((50, 50), references=[1, 3])), engine.answer(job((50, 50)))
    assert answer.reference_versions == ()
    assert len(answer.references_left_out) == 2
    assert mask_of(answer) == mask_of(without)


def test_a_lost_reference_is_not_looked_for_at_every_click_and_is_used_again_when_it_is_back(monkeypatch):
    store = Store()
    store.lost = {"/ref1.jpg"}
    engine = make_engine(store)
    now = [0.0]
    engine._references = ReferenceCache(engine._images, store.references.get, 2**20, clock=lambda: now[0])
    for _ in range(3):
        assert engine.answer(job((50, 50), references=[1])).reference_versions == ()
    assert store.refused == ["/ref1.jpg"]
    store.lost = set()
    now[0] = RETRY_AFTER_S + 1
    assert engine.answer(job((50, 50), references=[1])).reference_versions == ("v1",)


def test_the_expiry_of_a_failed_reference_may_be_interrupted():
    """Then the list of expiry times names a key that is gone; without the repair the next failure could not be noted."""
    store = Store()
    store.lost = {"/ref1.jpg"}
    engine = make_engine(store)
    now = [0.0]
    engine._references = ReferenceCache(engine._images, store.references.get, 2**20, clock=lambda: now[0])
    assert engine.answer(job((50, 50), references=[1])).references_left_out
    (key,) = engine._references._failed
    Cache.__delitem__(engine._references._failed, key)
    now[0] = RETRY_AFTER_S + 1
    store.lost = {"/ref3.jpg"}
    engine.repair()
    assert engine.answer(job((50, 50), references=[1, 3])).reference_versions == ("v1",)


def test_a_reference_whose_image_is_slow_is_used_by_the_next_click(monkeypatch):
    store = Store()
    engine = make_engine(store)
    engine.answer(job((50, 50)))
    monkeypatch.setattr(ReferenceCache.usable, "__defaults__", (0.05,))
    store.gate = threading.Event()
    answer = engine.answer(job((50, 50), references=[1]))
    assert answer.reference_versions == ()
    assert "not arrived yet" in answer.references_left_out[0].problem
    store.gate.set()
    deadline = time.monotonic() + 60
    while engine.answer(job((50, 50), references=[1])).reference_versions != ("v1",):
        assert time.monotonic() < deadline


def test_a_lost_reference_does_not_keep_a_task_from_being_prepared():
    store = Store()
    store.lost = {"/ref1.jpg"}
    engine = make_engine(store)
    assert engine.preload(preload_job(1, 3), lambda: False)
    prepared = engine.prepare(TaskImage(1, 2, "/a.jpg"), [1, 3], lambda: False)
    assert prepared is not None
    assert prepared.reference_versions == ("v3",)
    assert [one.version for one in prepared.references.left_out] == ["v1"]


@pytest.mark.parametrize(("height", "width"), [(40, 60), (1, 1), (3, 900), (1500, 2000)])
def test_the_mask_has_the_images_true_size(height, width):
    store = Store(height, width)
    answer = make_engine(store).answer(job((100, 100), references=[]))
    assert (answer.height, answer.width) == (height, width)
    if answer.rle:
        assert brush_rle.decode(answer.rle, height, width).shape == (height, width)


def test_an_answer_depends_on_the_click_list_alone_and_not_on_earlier_requests():
    engine = make_engine(Store())
    first = engine.answer(job((20, 20), (70, 70)))
    engine.answer(job((90, 10)))
    engine.answer(job((20, 20), references=[1]))
    again = engine.answer(job((20, 20), (70, 70)))
    assert mask_of(first) == mask_of(again)


def test_a_box_is_answered_within_itself_and_refined_by_clicks():
    engine = make_engine(Store(40, 60))
    boxed = dataclasses.replace(job(), box=PercentBox(50, 50, 100, 100, "b"))
    answer = engine.answer(boxed)
    rows, cols = np.nonzero(brush_rle.decode(answer.rle, 40, 60))
    assert rows.min() >= 18
    assert cols.min() >= 27
    refined = engine.answer(dataclasses.replace(boxed, clicks=(PercentClick(75, 75, False, "n"),)))
    assert refined.score != answer.score
    assert engine.answer(boxed).rle == answer.rle


@pytest.mark.parametrize(("height", "width"), [(40, 60), (1, 1), (3, 900), (1500, 2000)])
@pytest.mark.parametrize(
    "box", [(0, 0, 0, 0), (100, 100, 100, 100), (0, 0, 100, 100), (50, 50, 50, 50), (33, 10, 33.1, 90)]
)
def test_any_box_has_a_mask_of_the_images_true_size(height, width, box):
    answer = make_engine(Store(height, width)).answer(dataclasses.replace(job(), box=PercentBox(*box)))
    assert (answer.height, answer.width) == (height, width)


def test_an_evicted_image_is_fetched_again():
    store = Store()
    engine = make_engine(store, image_bytes=10_000)
    for address in ("/a.jpg", "/bb.jpg", "/a.jpg"):
        engine.answer(job((50, 50), address=address))
    assert store.loaded == ["/a.jpg", "/bb.jpg", "/a.jpg"]


def test_kept_bytes_stay_below_the_limits_however_many_images_and_clicks_come():
    limits = CacheLimits(features=3 * 2**20, references=200_000)
    engine = make_engine(Store(), limits, image_bytes=30_000)
    for number in range(12):
        address = f"/{'x' * number}.jpg"
        for count in range(1, 4):
            engine.answer(
                job(*[(20.0 * n, 50.0) for n in range(1, count + 1)], references=[1, 3], address=address)
            )
            assert 0 < engine.nbytes <= limits.features + limits.references + 30_000


def test_an_image_larger_than_its_whole_cache_is_answered_all_the_same():
    store = Store()
    engine = make_engine(store, CacheLimits(1, 1), image_bytes=1)
    first, second = (engine.answer(job((50, 50), references=[1])) for _ in range(2))
    assert mask_of(first) == mask_of(second)
    assert engine.nbytes == 0


def encodings(engine: ClickEngine, monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Every reference that is encoded from now on."""
    found: list[object] = []
    encode = RefCutPredictor.encode_reference

    def counted(self: RefCutPredictor, *arguments: object) -> object:
        found.append(arguments)
        return encode(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(RefCutPredictor, "encode_reference", counted)
    return found


def test_image_bytes_changed_at_the_same_address_are_another_image():
    store = Store()
    engine = make_engine(store, recheck_s=0)
    before = engine.answer(job((50, 50)))
    store.files["/a.jpg"] = picture(99, 30, 80)
    after = engine.answer(job((50, 50)))
    assert (before.height, before.width, after.height, after.width) == (40, 60, 30, 80)
    fresh = make_engine(store).answer(job((50, 50)))
    assert mask_of(after) == mask_of(fresh)


def test_a_reference_whose_image_changed_is_encoded_again(monkeypatch):
    store = Store()
    engine = make_engine(store, recheck_s=0)
    encoded = encodings(engine, monkeypatch)
    for _ in range(3):
        engine.answer(job((50, 50), references=[1]))
    assert len(encoded) == 1
    store.files["/ref1.jpg"] = picture(99)
    changed = engine.answer(job((50, 50), references=[1]))
    assert len(encoded) == 2
    assert mask_of(changed) == mask_of(make_engine(store).answer(job((50, 50), references=[1])))


@pytest.mark.parametrize("part", ["model", "settings"])
def test_what_another_model_or_preprocessing_computed_is_not_used(monkeypatch, part):
    store = Store()
    engine = make_engine(store)
    encoded = encodings(engine, monkeypatch)
    asked = job((50, 50), references=[1])
    first = engine.answer(asked)
    if part == "model":
        serve(engine, network(7), "model-2", SETTINGS)
    else:
        serve(engine, network(), "model-1", dataclasses.replace(SETTINGS, network_px=56))
    changed = engine.answer(asked)
    assert len(encoded) == 2
    assert mask_of(changed) != mask_of(first)
    serve(engine, network(), "model-1", SETTINGS)
    assert mask_of(engine.answer(asked)) == mask_of(first)
    assert len(encoded) == 2
    assert store.loaded == ["/a.jpg", "/ref1.jpg"]


def test_the_same_bytes_in_two_projects_share_no_clicks_and_no_references():
    engine = make_engine(Store())
    first = engine.answer(job((50, 50), references=[1]))
    other = ClickJob(2, 2, "/a.jpg", "Door", (PercentClick(50, 50, True),), (1, 2))
    assert engine.answer(other).reference_versions == ("v2",)
    assert mask_of(engine.answer(job((50, 50), references=[1]))) == mask_of(first)


def never() -> bool:
    return False


def preload_job(*references: int) -> PreloadJob:
    """For one label."""
    return PreloadJob(1, 2, ("/a.jpg",), (references,))


def test_a_warmed_task_needs_no_fetch_and_no_encoding_at_its_first_click(monkeypatch):
    store = Store()
    engine = make_engine(store)
    assert engine.preload(preload_job(1), never)
    loaded, encoded = list(store.loaded), encodings(engine, monkeypatch)
    answer = engine.answer(job((50, 50), references=[1]))
    assert (store.loaded, encoded) == (loaded, [])
    assert mask_of(answer) == mask_of(make_engine(store).answer(job((50, 50), references=[1])))


def test_a_warmed_task_has_the_references_of_each_label_compared_with_its_image(monkeypatch):
    engine = make_engine(Store())
    expected = [mask_of(make_engine(Store()).answer(job((50, 50), references=ids))) for ids in ([1, 3], [3])]
    assert engine.preload(PreloadJob(1, 2, ("/a.jpg",), ((1, 3), (3,))), never)
    stages = engine._models.of(1).network
    monkeypatch.setattr(stages, "prepare_reference", lambda *_: pytest.fail("compared at the click"))
    monkeypatch.setattr(stages, "encode_image", lambda *_: pytest.fail("encoded at the click"))
    found = [mask_of(engine.answer(job((50, 50), references=ids))) for ids in ([1, 3], [3])]
    assert found == expected


@pytest.mark.parametrize("waits", [False, True])
def test_crops_of_second_looks_are_encoded_last_for_the_likeliest_labels_and_not_while_a_click_waits(
    waits, monkeypatch
):
    calls: list[tuple[bool, tuple[str, ...]]] = []
    original = RefCutPredictor.preload

    def preload(self: RefCutPredictor, reference: ReferenceTokens | None = None, **how: Any) -> bool:
        if reference is not None:
            calls.append((how.get("closer", True), reference.sources))
        return original(self, reference, **how)

    def must_stop() -> bool:
        return waits and any(closer for closer, _ in calls)

    monkeypatch.setattr(RefCutPredictor, "preload", preload)
    monkeypatch.setattr(crop_features, "expected_crops", lambda *_, **__: (Box(0, 20, 0, 20),))
    engine = make_engine(Store())
    serve(engine, random_network(TINY_READING), "model-2", SETTINGS)
    assert engine.preload(PreloadJob(1, 2, ("/a.jpg",), ((1,), (3,), (1, 3))), must_stop) != waits
    labels = [sources for closer, sources in calls if not closer]
    assert len(set(labels)) == 3
    assert [closer for closer, _ in calls[:3]] == [False] * 3
    assert [sources for _, sources in calls[3:]] == labels[: 1 if waits else CLOSER_LABELS]


def test_warming_twice_fetches_nothing_and_finds_a_changed_image():
    store = Store()
    engine = make_engine(store)
    engine.preload(preload_job(1), never)
    store.files["/a.jpg"] = picture(99, 30, 80)
    engine.preload(preload_job(1), never)
    assert store.loaded == ["/a.jpg", "/ref1.jpg", "/a.jpg"]
    assert engine.answer(job((50, 50))).height == 30


def test_warming_never_uses_a_reference_of_another_project():
    store = Store()
    assert make_engine(store).preload(preload_job(2, 7), never)
    assert store.loaded == ["/a.jpg"]


def test_a_click_that_comes_during_a_download_is_answered_before_it_ends():
    store = Store()
    engine = make_engine(store)
    engine.answer(job((50, 50), address="/other.jpg"))
    store.gate = threading.Event()
    looks = iter([False, False, True])
    assert not engine.preload(preload_job(), lambda: next(looks))
    answered = engine.answer(job((60, 60), address="/other.jpg"))
    store.gate.set()
    assert answered.height == 40
    assert engine.answer(job((50, 50))).height == 40
    assert store.loaded == ["/other.jpg", "/a.jpg"]


def test_a_click_that_waits_stops_warming_at_every_step():
    for patience in range(12):
        answers: list[bool] = []

        def must_stop(answers: list[bool] = answers, patience: int = patience) -> bool:
            answers.append(len(answers) >= patience)
            return answers[-1]

        store = Store()
        complete = make_engine(store).preload(preload_job(1, 3), must_stop)
        assert complete == (True not in answers)
        assert not complete or store.loaded == ["/a.jpg", "/ref1.jpg", "/ref3.jpg"]


def test_a_click_that_waits_is_not_delayed_by_checks_whether_cached_references_changed():
    store = Store()
    engine = make_engine(store, recheck_s=0)
    assert engine.preload(preload_job(1, 3), never)
    checked = len(store.loaded)

    def must_stop() -> bool:
        return store.loaded[checked:].count("/ref1.jpg") > 0

    assert not engine.preload(preload_job(1, 3), must_stop)
    assert "/ref3.jpg" not in store.loaded[checked:]


def test_a_task_whose_image_cannot_be_had_says_why_when_it_is_warmed():
    store = Store()
    store.problem = ImageError("gone", hint="look for it")
    with pytest.raises(ImageError, match="gone"):
        make_engine(store).preload(preload_job(), never)


def test_forgetting_leaves_nothing_and_the_next_click_works():
    store = Store()
    engine = make_engine(store)
    engine.answer(job((50, 50), references=[1]))
    engine.forget()
    assert engine.nbytes == 0
    assert engine.answer(job((50, 50))).height == 40


def test_an_output_that_is_not_a_number_is_a_reason_and_the_next_click_is_answered():
    engine = make_engine(Store())
    network = engine._models.of(1).network
    bias = network.state_dict()
    broken = {name: torch.full_like(value, torch.nan) for name, value in bias.items()}
    healthy = {name: value.clone() for name, value in bias.items()}
    network.load_state_dict(broken)
    with pytest.raises(ModelOutputError):
        engine.answer(job((50, 50)))
    network.load_state_dict(healthy)
    assert engine.answer(job((50, 50))).error_code is None


def test_a_failure_in_the_middle_of_a_click_changes_no_later_answer():
    store = Store()
    engine = make_engine(store)
    expected = mask_of(engine.answer(job((20, 20), references=[1])))
    engine.forget()
    assert mask_of(engine.answer(job((20, 20), references=[1]))) == expected
    assert store.loaded.count("/a.jpg") == 2


INTERRUPTED_FILES = (
    "inference/engine.py",
    "inference/reference_cache.py",
    "images/cache.py",
    "model/predictor.py",
)


class Alarm:
    """Interrupts a call at its n-th line in the code that changes caches, as an alarm does at any place."""

    def __init__(self, at_line: int) -> None:
        self.at_line = at_line
        self.lines = 0

    def __call__(self, frame: FrameType, event: str, _argument: object) -> Alarm | None:
        name = frame.f_code.co_filename
        if not name.endswith(INTERRUPTED_FILES) and "cachetools" not in name:
            return None
        if event == "line":
            self.lines += 1
            if self.lines == self.at_line:
                raise JobTimeoutError("too long")
        return self


def interrupted(action: Callable[[], object], at_line: int) -> int:
    """Runs the action until the alarm. Returns the number of lines that it came to."""
    alarm = Alarm(at_line)
    before = sys.gettrace()
    sys.settrace(alarm)  # type: ignore[arg-type]
    try:
        with contextlib.suppress(JobTimeoutError):
            action()
    finally:
        sys.settrace(before)
    return alarm.lines


@pytest.mark.slow
def test_a_click_that_is_cut_off_anywhere_keeps_what_is_complete_and_changes_no_later_answer():
    known = job((50, 50), references=[1])
    cut_off = job((20, 30), (70, 70), references=[3])
    elsewhere = job((50, 50), references=[1], address="/other.jpg")
    expected = {asked: mask_of(make_engine(Store()).answer(asked)) for asked in (known, cut_off, elsewhere)}

    def prepared() -> tuple[Store, ClickEngine]:
        store = Store()
        store.references[3] = dataclasses.replace(store.references[3], image_address="/reference-three.jpg")
        engine = make_engine(store)
        engine.answer(known)
        return store, engine

    expected[cut_off] = mask_of(prepared()[1].answer(cut_off))
    whole = prepared()[1]
    lines = interrupted(lambda: whole.answer(cut_off), 10**9)
    assert lines > 100
    for at_line in range(1, lines, max(lines // 30, 1)):
        store, engine = prepared()
        interrupted(lambda engine=engine: engine.answer(cut_off), at_line)
        loaded = list(store.loaded)
        engine.repair()
        for asked in (known, cut_off, elsewhere, known):
            assert mask_of(engine.answer(asked)) == expected[asked], at_line
        assert store.loaded.count("/a.jpg") == store.loaded.count("/ref1.jpg") == 1, at_line
        assert store.loaded.count("/reference-three.jpg") <= 1 + ("/reference-three.jpg" in loaded), at_line
        caches = (engine._open_images, engine._images._images, engine._references._encoded)
        for cache in caches:
            inner = cache._cache
            sizes = [inner.getsizeof(inner[key]) for key in list(inner)]
            assert cache.nbytes == sum(sizes), at_line


def test_a_first_click_that_is_cut_off_in_the_network_keeps_the_image_and_its_features(monkeypatch):
    store = Store()
    engine = make_engine(store)
    encoded: list[object] = []
    encode, segment = RefCut.encode_image, RefCut.segment
    monkeypatch.setattr(RefCut, "encode_image", lambda self, *a: encoded.append(a) or encode(self, *a))

    def too_slow(*_arguments: object) -> None:
        raise JobTimeoutError("too long")

    monkeypatch.setattr(RefCut, "segment", too_slow)
    with pytest.raises(JobTimeoutError):
        engine.answer(job((50, 50), references=[1]))
    engine.repair()
    monkeypatch.setattr(RefCut, "segment", segment)
    assert len(encoded) == 1, "the whole image"
    loaded = list(store.loaded)
    references = encodings(engine, monkeypatch)
    answer = engine.answer(job((50, 50), references=[1]))
    assert (store.loaded, references) == (loaded, []), "nothing is fetched, no reference is encoded again"
    assert len(encoded) <= 2, "only the closer look is new"
    assert mask_of(answer) == mask_of(make_engine(Store()).answer(job((50, 50), references=[1])))
