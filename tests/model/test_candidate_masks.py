"""Which of the proposed masks is taken, and all of them in the image frame."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from model import Box, Click, RefCutPredictor
from model.candidate_masks import CHOICE_CLICKS, Placement, mask_result, mean_of_looks
from model.network.candidates import LARGER, MEANT, SMALLER, Segmentation
from model.predictor_config import PredictorSettings
from tests.support.synthetic import TINY_FROZEN, TINY_READING, obedient_network

PLACEMENT = Placement(Box(10, 29, 0, 39), 56, (40, 60), None, 0.49)
WHOLE = Placement(Box.whole(40, 60), 56, (40, 60), None, 0.49)


def segmentation(quality: list[float]) -> Segmentation:
    """Three discs, each larger than the one before."""
    rows, cols = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
    distance = ((rows - 8) ** 2 + (cols - 8) ** 2).sqrt()
    logits = torch.stack([radius - distance for radius in (2.0, 4.0, 7.0)])[None]
    return Segmentation(logits, torch.tensor([quality]))


@pytest.mark.parametrize("best", [SMALLER, MEANT, LARGER])
def test_at_first_the_mask_with_clearly_the_largest_expected_iou_is_taken(best: int) -> None:
    quality = [0.0, 0.0, 0.0]
    quality[best] = 1.5
    result = mask_result(segmentation(quality), PLACEMENT, prompts=CHOICE_CLICKS)
    assert result.expected_iou == pytest.approx(1 / (1 + np.exp(-1.5)))
    assert np.array_equal(result.mask_hw, result.candidates[best].mask_hw)


def test_after_more_clicks_the_mask_that_is_meant_is_taken() -> None:
    result = mask_result(segmentation([0.0, 1.0, 2.0]), PLACEMENT, prompts=CHOICE_CLICKS + 1)
    assert np.array_equal(result.mask_hw, result.candidates[MEANT].mask_hw)
    assert result.expected_iou == pytest.approx(1 / (1 + np.exp(-1.0)))


def test_candidates_lie_in_the_image_frame_the_smallest_first() -> None:
    result = mask_result(segmentation([0.0, 1.0, 2.0]), PLACEMENT, prompts=1)
    areas = [np.count_nonzero(candidate.mask_hw) for candidate in result.candidates]
    assert 0 < areas[0] < areas[1] < areas[2]
    for candidate in result.candidates:
        assert candidate.mask_hw.shape == (40, 60)
        assert not candidate.probability_hw[:10].any()
        assert not candidate.probability_hw[:, 40:].any()


def test_limits_cut_off_every_candidate() -> None:
    placement = Placement(Box.whole(40, 60), 56, (40, 60), Box(0, 20, 0, 59), 0.49)
    result = mask_result(segmentation([0.0, 1.0, 2.0]), placement, prompts=1)
    assert all(not candidate.mask_hw[21:].any() for candidate in result.candidates)


def test_a_network_with_one_mask_has_one_candidate_without_an_expected_iou() -> None:
    result = mask_result(Segmentation(segmentation([0, 0, 0]).logits[:, :1]), PLACEMENT, prompts=1)
    assert result.expected_iou is None
    (candidate,) = result.candidates
    assert np.array_equal(candidate.mask_hw, result.mask_hw)


def test_two_looks_weigh_as_much_as_the_odds_of_what_is_expected_of_them() -> None:
    first = mask_result(segmentation([0.0, 0.0, 0.0]), WHOLE, prompts=1)
    second = mask_result(segmentation([-1.0, np.log(3.0), 0.0]), PLACEMENT, prompts=1)
    mean = mean_of_looks(first, second)
    assert mean.crop == PLACEMENT.crop
    inside = PLACEMENT.crop.slices
    for number, weights in ((SMALLER, (0.25, 0.75)), (MEANT, (0.25, 0.75)), (LARGER, (0.25, 0.75))):
        looks = [look.candidates[number].probability_hw[inside] for look in (first, second)]
        expected = weights[0] * looks[0] + weights[1] * looks[1]
        found = mean.candidates[number].probability_hw
        assert np.allclose(found[inside], expected, atol=1e-6)
        assert np.count_nonzero(found) == np.count_nonzero(found[inside])
        assert np.array_equal(mean.candidates[number].mask_hw, found > 0.49)
    assert np.array_equal(mean.mask_hw, mean.candidates[mean.chosen].mask_hw)


def test_the_mean_of_two_looks_is_expected_to_be_worth_something_between_them() -> None:
    first = mask_result(segmentation([0.0, 0.0, 0.0]), WHOLE, prompts=1)
    second = mask_result(segmentation([0.0, 1.0, 0.0]), PLACEMENT, prompts=1)
    mean = mean_of_looks(first, second)
    assert first.expected_iou is not None
    assert second.expected_iou is not None
    assert mean.expected_iou is not None
    assert first.expected_iou < mean.expected_iou < second.expected_iou


def test_of_a_network_that_expects_nothing_the_second_look_is_the_answer() -> None:
    first, second = (
        mask_result(Segmentation(segmentation([0, 0, 0]).logits[:, :1]), placement, prompts=1)
        for placement in (WHOLE, PLACEMENT)
    )
    assert mean_of_looks(first, second) is second


@pytest.mark.parametrize("flip", [False, True])
def test_the_predictor_returns_all_candidates_and_what_they_are_worth(flip: bool) -> None:
    settings = PredictorSettings(network_px=56, resampling="area", second_look=True, flip=flip)
    predictor = RefCutPredictor(obedient_network(TINY_READING), settings)
    predictor.set_image(np.random.default_rng(0).integers(0, 255, (70, 90, 3)).astype(np.uint8))
    result = predictor.predict([Click(30, 40)])
    assert len(result.candidates) == 3
    worth = [candidate.expected_iou for candidate in result.candidates]
    assert result.expected_iou in worth
    assert any(np.array_equal(result.mask_hw, candidate.mask_hw) for candidate in result.candidates)


def test_full_size_maps_of_other_candidates_are_counted_as_memory_of_the_predictor() -> None:
    predictor = RefCutPredictor(
        obedient_network(TINY_READING), PredictorSettings(network_px=56, resampling="area")
    )
    predictor.set_image(np.random.default_rng(0).integers(0, 255, (70, 90, 3)).astype(np.uint8))
    result = predictor.predict([Click(30, 40)])
    before = predictor.nbytes
    assert result.stepped(1 if result.chosen < LARGER else -1) is not result
    assert predictor.nbytes == before + 70 * 90 * (4 + 1)


def test_a_network_with_an_input_for_boxes_gets_no_clicks_in_their_place() -> None:
    """Seen at a click of the user in the box: the older way adds five more."""
    drawn: list[int] = []

    def count_disks(network: object, coords: torch.Tensor) -> None:
        drawn.append(int((coords[:, 1:3].sum(dim=(2, 3)) > 0).sum()))

    for config, expected in ((TINY_READING, 0), (TINY_FROZEN, 2)):
        network = obedient_network(config)
        original = network.segment

        def segment(features, coords, reference=None, original=original):  # type: ignore[no-untyped-def]
            count_disks(None, coords)
            return original(features, coords, reference)

        network.segment = segment  # type: ignore[method-assign]
        predictor = RefCutPredictor(network, PredictorSettings(network_px=56, resampling="area"))
        predictor.set_image(np.full((70, 90, 3), 120, np.uint8))
        drawn.clear()
        predictor.predict([], Box(20, 40, 20, 60))
        assert drawn == [expected]


def test_an_answer_steps_to_its_smaller_and_larger_masks_and_no_further() -> None:
    result = mask_result(segmentation([0.0, 1.0, 0.0]), PLACEMENT, prompts=1)
    assert result.chosen == MEANT
    for steps, number in ((-1, SMALLER), (-5, SMALLER), (1, LARGER), (9, LARGER)):
        other = result.stepped(steps)
        assert np.array_equal(other.mask_hw, result.candidates[number].mask_hw)
        assert other.expected_iou == result.candidates[number].expected_iou
    assert result.stepped(0) is result
    alone = mask_result(Segmentation(segmentation([0, 0, 0]).logits[:, :1]), PLACEMENT, prompts=1)
    assert alone.stepped(1) is alone
