"""The predictor: any way of clicking, any image, with and without references."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from model import crop_features
from model.box_prompts import box_limits
from model.candidate_masks import mean_of_looks
from model.network.config import PRESETS
from model.network.prompts import ReferenceTokens
from model.network.refcut import RefCut
from model.predictor import RefCutPredictor
from model.predictor_config import CLOSE_SHARE, SERVING, PredictorSettings, serving_settings
from model.transforms import mirrored
from model.types import Box, Click, MaskResult
from tests.support.synthetic import TINY_CONFIGS, drawn_image, obedient_network

NETWORKS = {kind: obedient_network(config) for kind, config in TINY_CONFIGS.items()}
HEIGHT, WIDTH = 61, 90
IMAGE = drawn_image(HEIGHT, WIDTH)
SETTINGS = {
    "simpleclick": PredictorSettings(zoom_min_px=10),
    "demo": PredictorSettings(zoom_min_px=10, zoom_skip_clicks=1),
    "served": PredictorSettings(zoom_min_px=10, second_look=True, expected_crops=True, resampling="area"),
    "whole": PredictorSettings(zoom=False),
    "flip": PredictorSettings(zoom_min_px=10, flip=True),
}
BOTH = pytest.mark.parametrize("kind", sorted(NETWORKS))
ANY_WAY = pytest.mark.parametrize("way", sorted(SETTINGS))
BOX = Box(20, 44, 30, 60)
POOL = [Click(30, 40), Click(36, 48), Click(5, 7), Click(12, 80, False), Click(26.5, 45.5, False)]


def make(network: RefCut, way: str, image: NDArray[np.uint8] = IMAGE) -> RefCutPredictor:
    fitted = dataclasses.replace(SETTINGS[way], network_px=network.config.network_px)
    predictor = RefCutPredictor(network, fitted)
    predictor.set_image(image)
    return predictor


def same(first: MaskResult, second: MaskResult) -> bool:
    return first.crop == second.crop and np.array_equal(first.probability_hw, second.probability_hw)


def box(height: int, width: int, top: int, left: int, side: int) -> NDArray[np.bool_]:
    mask = np.zeros((height, width), bool)
    mask[top : top + side, left : left + side] = True
    return mask


def from_scratch(network: RefCut, way: str, clicks: Sequence[Click], within: Box | None = None) -> MaskResult:
    return make(network, way).predict(clicks, within)


@ANY_WAY
@settings(database=None, deadline=None, max_examples=6)
@given(
    st.lists(
        st.tuples(st.lists(st.sampled_from(POOL), max_size=6), st.sampled_from([None, BOX])),
        min_size=2,
        max_size=5,
    )
)
def test_any_list_of_clicks_gives_what_it_gives_from_scratch(
    way: str, calls: list[tuple[list[Click], Box | None]]
) -> None:
    network = NETWORKS["frozen"]
    predictor = make(network, way)
    for clicks, within in calls:
        assert same(predictor.predict(clicks, within), from_scratch(network, way, clicks, within))


@ANY_WAY
@BOTH
def test_undo_replace_and_long_runs_give_what_they_give_from_scratch(kind: str, way: str) -> None:
    network = NETWORKS[kind]
    predictor = make(network, way)
    run = POOL + POOL[::-1]
    replaced = [*run[:6], Click(33, 33), *run[7:]]
    for clicks in (run, run[:-1], run[:-2], replaced, run[:1], [], run[:2]):
        assert same(predictor.predict(clicks), from_scratch(network, way, clicks))


@BOTH
def test_the_networks_of_these_tests_do_look_closer(kind: str) -> None:
    predictor = make(NETWORKS[kind], "simpleclick")
    seen = {predictor.predict(POOL[:count]).crop for count in range(1, 6)}
    assert len(seen) > 1, "else these tests would not see the zoom"


@BOTH
def test_absent_references_are_simpleclick_bit_for_bit(kind: str) -> None:
    predictor = make(NETWORKS[kind], "served")
    plain = predictor.predict(POOL)
    other = drawn_image(40, 70, seed=1)
    for masks in ((None, None), (np.zeros((40, 70), bool), np.zeros((40, 70), bool))):
        predictor.set_reference(predictor.encode_reference(other, *masks))
        assert same(predictor.predict(POOL), plain)
    predictor.set_reference(None)
    assert same(predictor.predict(POOL), plain)


@ANY_WAY
@BOTH
def test_a_cached_reference_is_a_fresh_one(kind: str, way: str) -> None:
    predictor = make(NETWORKS[kind], way)
    other = drawn_image(40, 70, seed=1)
    marked = box(40, 70, 5, 5, 20), box(40, 70, 5, 40, 20)
    cached = predictor.encode_reference(other, *marked)
    predictor.set_reference(cached)
    first = predictor.predict(POOL)
    assert not same(first, from_scratch(NETWORKS[kind], way, POOL))
    predictor.set_reference(None)
    predictor.predict(POOL[:2])
    predictor.set_reference(cached)
    assert same(predictor.predict(POOL), first)
    fresh = make(NETWORKS[kind], way)
    fresh.set_reference(fresh.encode_reference(other, *marked))
    assert same(fresh.predict(POOL), first)


@BOTH
def test_several_references_are_another_than_each_of_them(kind: str) -> None:
    predictor = make(NETWORKS[kind], "served")
    other = drawn_image(40, 70, seed=1)
    two = [predictor.encode_reference(other, box(40, 70, 5, left, 15), None) for left in (5, 50)]
    results = []
    for reference in (*two, ReferenceTokens.join(two), ReferenceTokens.join(two[::-1])):
        predictor.set_reference(reference)
        results.append(predictor.predict(POOL[:1]).probability_hw)
    first, second, joined, swapped = results
    assert not np.allclose(joined, first, atol=1e-5)
    assert not np.allclose(joined, second, atol=1e-5)
    assert np.allclose(joined, swapped, atol=1e-4)


@BOTH
@pytest.mark.parametrize("reference_zoom", [False, True])
def test_a_reference_of_one_pixel_still_counts(kind: str, reference_zoom: bool) -> None:
    network = NETWORKS[kind]
    config = PredictorSettings(network_px=network.config.network_px, reference_zoom=reference_zoom)
    predictor = RefCutPredictor(network, config)
    predictor.set_image(IMAGE)
    plain = predictor.predict(POOL[:1])
    tokens = predictor.encode_reference(drawn_image(997, 803), box(997, 803, 501, 333, 1), None)
    assert tokens.positive.sum() > 0
    predictor.set_reference(tokens)
    assert not same(predictor.predict(POOL[:1]), plain)


@ANY_WAY
@BOTH
@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 7), (3, 1), (57, 91), (2, 300)])
def test_images_of_any_size_have_a_mask_of_that_size(kind: str, way: str, height: int, width: int) -> None:
    predictor = make(NETWORKS[kind], way, drawn_image(height, width))
    for clicks in ([], [Click(0, 0)], [Click(0, 0), Click(height - 1, width - 1, False)]):
        result = predictor.predict(clicks)
        assert result.mask_hw.shape == result.probability_hw.shape == (height, width)
        assert np.isfinite(result.probability_hw).all()
        assert result.mask_hw.dtype == bool


@BOTH
def test_outside_the_crop_the_probability_is_zero(kind: str) -> None:
    predictor = make(NETWORKS[kind], "simpleclick")
    for count in range(1, len(POOL) + 1):
        result = predictor.predict(POOL[:count])
        outside = result.probability_hw.copy()
        outside[result.crop.slices] = 0
        assert not outside.any()


@BOTH
def test_a_new_image_forgets_the_old_one_and_keeps_the_reference(kind: str) -> None:
    predictor = make(NETWORKS[kind], "served")
    reference = predictor.encode_reference(IMAGE, box(HEIGHT, WIDTH, 5, 5, 20), None)
    predictor.set_reference(reference)
    expected = predictor.predict(POOL)
    predictor.set_image(drawn_image(77, 99, seed=3))
    predictor.preload()
    predictor.predict(POOL[:3])
    predictor.set_image(IMAGE)
    assert same(predictor.predict(POOL), expected)


@BOTH
def test_a_preloaded_reference_changes_no_click_and_is_not_prepared_again(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor = make(NETWORKS[kind], "whole")
    references = [
        predictor.encode_reference(drawn_image(40, 70, seed), box(40, 70, 5, 5, 20), None) for seed in (1, 2)
    ]
    expected = []
    for reference in references:
        predictor.set_reference(reference)
        expected.append(predictor.predict(POOL[:2]))
    predictor.set_image(IMAGE)
    predictor.set_reference(references[0])
    predictor.predict(POOL[:1])
    for reference in references:
        predictor.preload(reference)
    predictor.start_from(None)  # forgets the steps, which would answer without any of this
    monkeypatch.setattr(predictor.network, "prepare_reference", lambda *_: pytest.fail("prepared again"))
    monkeypatch.setattr(predictor.network, "encode_image", lambda *_: pytest.fail("encoded again"))
    assert same(predictor.predict(POOL[:2]), expected[0])
    for index in (1, 0):
        # Joined anew, as for each click.
        predictor.set_reference(ReferenceTokens.join([references[index]]))
        assert same(predictor.predict(POOL[:2]), expected[index])


def expecting(monkeypatch: pytest.MonkeyPatch, *crops: Box) -> tuple[RefCutPredictor, ReferenceTokens]:
    """A predictor that expects a label in these crops, and a reference for it that is not set yet."""
    predictor = make(obedient_network(TINY_CONFIGS["reader"]), "served")
    monkeypatch.setattr(crop_features, "expected_crops", lambda *_, **__: crops)
    return predictor, predictor.encode_reference(
        drawn_image(40, 70, seed=1), box(40, 70, 5, 5, 20), box(40, 70, 30, 40, 8)
    )


def test_a_second_look_at_an_expected_crop_costs_no_encoding_and_preloading_changes_no_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    predictor, reference = expecting(monkeypatch)
    predictor.set_reference(reference)
    wanted = predictor.predict([POOL[0]]).crop
    near = dataclasses.replace(wanted, row_max=wanted.row_max + 2)
    predictor, reference = expecting(monkeypatch, near)
    predictor.set_reference(reference)
    unprepared = predictor.predict([POOL[0]])
    assert unprepared.crop == near
    predictor.set_image(IMAGE)
    assert predictor.preload(reference)
    monkeypatch.setattr(predictor.network, "encode_image", lambda *_: pytest.fail("encoded at the click"))
    assert same(predictor.predict([POOL[0]]), unprepared)


def test_what_is_expected_elsewhere_changes_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    predictor, reference = expecting(monkeypatch, Box(0, 9, 0, 9))
    predictor.set_reference(reference)
    found = predictor.predict([POOL[0]])
    plain = dataclasses.replace(predictor.settings, expected_crops=False)
    without = RefCutPredictor(predictor.network, plain)
    without.set_image(IMAGE)
    without.set_reference(reference)
    assert same(found, without.predict([POOL[0]]))


@pytest.mark.parametrize(
    ("closer", "stopped", "encoded"), [(True, False, 2), (False, False, 1), (True, True, 1)]
)
def test_expected_crops_are_encoded_when_asked_for_and_not_while_something_else_waits(
    closer: bool, stopped: bool, encoded: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor, reference = expecting(monkeypatch, Box(5, 30, 5, 30))
    predictor.set_image(IMAGE)
    seen: list[int] = []
    original = predictor.network.encode_image

    def encode_image(image: torch.Tensor) -> Any:
        seen.append(len(image))
        return original(image)

    monkeypatch.setattr(predictor.network, "encode_image", encode_image)
    complete = predictor.preload(reference, closer=closer, must_stop=lambda: stopped)
    assert (complete, len(seen)) == (not stopped, encoded)


@ANY_WAY
@BOTH
def test_a_box_is_answered_within_its_limits_until_a_click_lies_outside_them(kind: str, way: str) -> None:
    predictor = make(NETWORKS[kind], way)
    limits = box_limits(BOX, [], HEIGHT, WIDTH)
    assert limits is not None
    inside, outside = Click(30, 40), Click(5, 7)
    for clicks in ([], [inside], [inside, Click(40, 50, False)]):
        probability_hw = predictor.predict(clicks, BOX).probability_hw.copy()
        assert probability_hw.any()
        probability_hw[limits.slices] = 0
        assert not probability_hw.any()
    freed_hw = predictor.predict([inside, outside], BOX).probability_hw
    assert freed_hw[int(outside.row), int(outside.col)] > 0


@BOTH
def test_a_box_differs_from_its_clicks(kind: str) -> None:
    predictor = make(NETWORKS[kind], "served")
    boxed, plain = predictor.predict([POOL[0]], BOX), predictor.predict([POOL[0]])
    assert not same(boxed, plain)


@ANY_WAY
@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 7), (57, 91)])
def test_a_box_round_anything_has_a_mask_of_the_images_size(way: str, height: int, width: int) -> None:
    predictor = make(NETWORKS["frozen"], way, drawn_image(height, width))
    for within in (Box.whole(height, width), Box(0, 0, 0, 0), Box(height - 1, height - 1, 0, width - 1)):
        for clicks in ([], [Click(0, 0)], [Click(height - 1, width - 1, False)]):
            result = predictor.predict(clicks, within)
            assert result.mask_hw.shape == (height, width)
            assert np.isfinite(result.probability_hw).all()


@BOTH
def test_with_flip_the_mirrored_image_has_the_mirrored_mask(kind: str) -> None:
    network = NETWORKS[kind]
    side = network.config.network_px
    image = drawn_image(side, side)
    clicks = [Click(20, 30), Click(40, 10, False)]
    predictor = RefCutPredictor(network, PredictorSettings(network_px=side, zoom=False, flip=True))
    predictor.set_image(image)
    plain = predictor.predict(clicks)
    predictor.set_image(np.ascontiguousarray(image[:, ::-1]))
    flipped = predictor.predict(mirrored(clicks, side))
    assert np.allclose(plain.probability_hw[:, ::-1], flipped.probability_hw, atol=1e-5)


@pytest.mark.parametrize("click", [Click(-1, 3), Click(3, -0.5), Click(HEIGHT, 3), Click(3, WIDTH)])
def test_clicks_outside_the_image_are_refused(click: Click) -> None:
    with pytest.raises(ValueError, match="outside the image"):
        make(NETWORKS["frozen"], "served").predict([click])


@pytest.mark.parametrize(
    "within", [Box(-1, 3, 0, 3), Box(0, HEIGHT, 0, 3), Box(5, 4, 0, 3), Box(0, 3, 7, 6), Box(0, 3, 0, WIDTH)]
)
def test_boxes_outside_the_image_are_refused(within: Box) -> None:
    with pytest.raises(ValueError, match="outside the image"):
        make(NETWORKS["frozen"], "served").predict([], within)


def test_calls_in_the_wrong_order_or_with_the_wrong_arrays_are_refused() -> None:
    predictor = RefCutPredictor(NETWORKS["frozen"], PredictorSettings(network_px=56))
    with pytest.raises(ValueError, match="no image is set"):
        predictor.predict([Click(1, 1)])
    with pytest.raises(ValueError, match="no image is set"):
        predictor.preload()
    with pytest.raises(ValueError, match="RGB image"):
        predictor.set_image(np.zeros((5, 5), np.uint8))
    with pytest.raises(ValueError, match="as large as its image"):
        predictor.encode_reference(IMAGE, np.zeros((5, 5), bool), None)


def test_settings_that_no_network_can_follow_are_refused() -> None:
    with pytest.raises(ValueError, match="not a multiple of the patch"):
        RefCutPredictor(NETWORKS["frozen"], PredictorSettings(network_px=57))
    with pytest.raises(ValueError, match="second_look"):
        PredictorSettings(zoom_skip_clicks=0)


def test_our_network_is_served_as_settled_and_any_other_as_simpleclick_evaluates() -> None:
    assert serving_settings(PRESETS["s14"]) is SERVING
    assert serving_settings(PRESETS["vit_h14"]) == PredictorSettings(network_px=448)


def test_a_first_click_with_two_looks_is_answered_by_their_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = make(obedient_network(TINY_CONFIGS["reader"]), "served")
    looks: list[MaskResult] = []
    original = predictor._segment_crop

    def segment_crop(*arguments: Any) -> MaskResult:
        looks.append(original(*arguments))
        return looks[-1]

    monkeypatch.setattr(predictor, "_segment_crop", segment_crop)
    result = predictor.predict([POOL[0]])
    first, second = looks
    assert same(result, mean_of_looks(first, second))
    assert not same(result, second)


def close_up_predictor() -> RefCutPredictor:
    network = obedient_network(TINY_CONFIGS["reader"])
    fitted = dataclasses.replace(
        SETTINGS["served"], network_px=network.config.network_px, second_look_share=1.0, close_ups=True
    )
    predictor = RefCutPredictor(network, fitted)
    predictor.set_image(IMAGE)
    return predictor


def test_crops_of_an_image_are_compared_with_the_close_up_of_a_reference(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    predictor = close_up_predictor()
    small_hw, rest_hw = box(HEIGHT, WIDTH, 5, 5, 8), box(HEIGHT, WIDTH, 30, 40, 20)
    reference = predictor.encode_reference(IMAGE, small_hw, rest_hw)
    assert reference.close_up is not None
    near = Box(3, 14, 3, 14)
    alone = predictor.encode_reference(IMAGE[near.slices], small_hw[near.slices], rest_hw[near.slices])
    assert torch.equal(reference.close_up.tokens, alone.tokens)
    assert torch.equal(reference.close_up.positive, alone.positive)
    compared: list[tuple[str, ...]] = []
    prepared = predictor._features.prepared

    def prepare(crop: Box, features: Any, given: ReferenceTokens) -> Any:
        compared.append(given.sources)
        return prepared(crop, features, given)

    monkeypatch.setattr(predictor._features, "prepared", prepare)
    predictor.set_reference(reference)
    result = predictor.predict([POOL[0]])
    assert result.crop.height * result.crop.width < CLOSE_SHARE * HEIGHT * WIDTH
    assert list(dict.fromkeys(compared)) == [reference.sources, reference.close_up.sources]


@pytest.mark.parametrize("positive_hw", [None, np.zeros((HEIGHT, WIDTH), bool), box(HEIGHT, WIDTH, 2, 2, 55)])
def test_a_reference_without_a_small_positive_mask_has_no_close_up(
    positive_hw: NDArray[np.bool_] | None,
) -> None:
    negative_hw = box(HEIGHT, WIDTH, 5, 65, 8)
    assert close_up_predictor().encode_reference(IMAGE, positive_hw, negative_hw).close_up is None


def test_a_first_mask_that_is_not_small_is_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    network = obedient_network(TINY_CONFIGS["frozen"])
    crops: list[Box] = []
    for share in (1.0, 0.01):
        once = dataclasses.replace(make(network, "served").settings, second_look_share=share)
        predictor = RefCutPredictor(network, once)
        predictor.set_image(IMAGE)
        original = predictor._segment_crop

        def segment_crop(clicks: Any, crop: Box, *rest: Any, original: Any = original) -> MaskResult:
            crops.append(crop)
            result: MaskResult = original(clicks, crop, *rest)
            return result

        monkeypatch.setattr(predictor, "_segment_crop", segment_crop)
        predictor.predict([POOL[0]])
    assert len(crops) == 3
