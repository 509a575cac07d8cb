from __future__ import annotations

import numpy as np
import pytest

from model.errors import ModelError
from model.evaluation.first_masks import first_mask
from model.network.config import NetworkConfig
from model.predictor import RefCutPredictor
from model.predictor_config import PredictorSettings
from model.types import Box, Click, MaskResult
from tests.support.synthetic import (
    TINY_FROZEN,
    TINY_SIMPLECLICK,
    drawn_image,
    obedient_network,
    random_network,
)

SETTINGS = PredictorSettings(network_px=56, resampling="area", second_look=True)
CLICKS = [Click(20, 30), Click(60, 80), Click(10, 90, False)]


def predictor_of(config: NetworkConfig = TINY_FROZEN, size: int = 56) -> RefCutPredictor:
    settings = PredictorSettings(network_px=size, resampling="area", second_look=True, zoom_min_px=20)
    predictor = RefCutPredictor(obedient_network(config), settings)
    predictor.set_image(drawn_image(90, 120))
    return predictor


def square() -> MaskResult:
    probability_hw = np.zeros((90, 120), np.float32)
    probability_hw[10:40, 15:60] = 0.9
    return MaskResult(probability_hw > 0.5, probability_hw, predictor_of().predict([CLICKS[0]]).crop)


def test_the_first_click_builds_on_the_mask_and_later_clicks_on_their_own() -> None:
    predictor = predictor_of()
    without = [predictor.predict(CLICKS[:count]).probability_hw for count in (1, 2)]
    predictor.start_from(square())
    first, second = (predictor.predict(CLICKS[:count]) for count in (1, 2))
    assert not np.allclose(first.probability_hw, without[0])
    assert first.crop.row_max < 89
    predictor.start_from(square())
    np.testing.assert_array_equal(predictor.predict(CLICKS[:2]).probability_hw, second.probability_hw)


def test_clicks_taken_back_lead_to_the_same_masks_again() -> None:
    predictor = predictor_of()
    predictor.start_from(square())
    masks = [predictor.predict(CLICKS[:count]).probability_hw for count in (1, 2, 3)]
    for count in (2, 1, 3):
        np.testing.assert_array_equal(predictor.predict(CLICKS[:count]).probability_hw, masks[count - 1])


def test_without_clicks_the_mask_is_the_given_one_and_another_image_ends_that() -> None:
    predictor = predictor_of()
    start, alone = square(), predictor.predict([]).probability_hw
    predictor.start_from(start)
    predictor.predict(CLICKS)
    assert predictor.predict([]) is start
    predictor.set_image(drawn_image(90, 120))
    np.testing.assert_array_equal(predictor.predict([]).probability_hw, alone)


def test_a_box_does_not_use_the_mask() -> None:
    predictor, box = predictor_of(), Box(20, 60, 30, 90)
    expected = predictor.predict([], box).probability_hw
    predictor.start_from(square())
    predictor.predict(CLICKS)
    np.testing.assert_array_equal(predictor.predict([], box).probability_hw, expected)


def test_without_a_mask_it_is_the_predictor_that_serves() -> None:
    predictor = predictor_of()
    predictor.start_from(square())
    predictor.predict(CLICKS)
    predictor.start_from(None)
    served = RefCutPredictor(predictor.network, predictor.settings)
    served.set_image(drawn_image(90, 120))
    for count in (0, 1, 3):
        np.testing.assert_array_equal(
            predictor.predict(CLICKS[:count]).probability_hw, served.predict(CLICKS[:count]).probability_hw
        )


@pytest.mark.parametrize("kind", ["nearest", "prototype"])
def test_a_matched_mask_finds_the_reference_in_its_own_image(kind: str) -> None:
    image = np.full((112, 112, 3), 60, np.uint8)
    image[28:84, 14:56] = (200, 40, 40)
    part_hw = image[..., 0] == 200
    predictor = RefCutPredictor(random_network(TINY_FROZEN), SETTINGS)
    predictor.set_image(image)
    reference = predictor.encode_reference(image, part_hw, ~part_hw)
    found = first_mask(predictor, reference, kind, (112, 112))  # type: ignore[arg-type]
    assert (found.mask_hw & part_hw).sum() / (found.mask_hw | part_hw).sum() > 0.6


def test_a_network_without_features_to_compare_says_so() -> None:
    predictor = predictor_of(TINY_SIMPLECLICK, size=64)
    part_hw = np.zeros((90, 120), bool)
    part_hw[:40] = True
    reference = predictor.encode_reference(drawn_image(90, 120), part_hw, ~part_hw)
    with pytest.raises(ModelError, match="no frozen features"):
        first_mask(predictor, reference, "nearest", (90, 120))
    assert first_mask(predictor, reference, "alone", (90, 120)).mask_hw.shape == (90, 120)
