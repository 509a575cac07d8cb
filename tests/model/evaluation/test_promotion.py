"""What a candidate must show before it serves."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from model.evaluation.comparison import Comparison, MaskMetrics, NetworkMetrics, Spread
from model.evaluation.promotion import PromotionRules, decide


def label(iou: float = 0.6, noc: float = 4.0, masks: int = 10) -> MaskMetrics:
    return MaskMetrics(masks, noc, iou, {1: iou, 3: iou + 0.1, 5: iou + 0.15})


def network(iou: float = 0.6, noc: float = 4.0, **changes: Any) -> NetworkMetrics:
    own = {"negative_clicks": 1.0, "by_label": {"door": label(iou, noc), "wheel": label(iou, noc)}} | changes
    return NetworkMetrics(**{**vars(label(iou, noc, 20)), **own})


def compared(candidate: NetworkMetrics, images: int = 8) -> Comparison:
    return Comparison("digest", images, network(), candidate)


def test_a_better_network_is_promoted_and_the_reason_has_the_figures():
    decision = decide(compared(network(iou=0.7, noc=3.0)))
    assert decision.promote
    assert decision.reasons == ("first click 0.600 to 0.700, clicks to .85 4.00 to 3.00 on 20 masks",)


@pytest.mark.parametrize(("iou", "noc"), [(0.65, 4.0), (0.6, 3.5), (0.65, 4.05), (0.598, 3.5)])
def test_either_figure_may_carry_it_while_the_other_holds(iou, noc):
    assert decide(compared(network(iou, noc))).promote


@pytest.mark.parametrize(
    ("candidate", "why"),
    [
        (network(), "not better by the margin"),
        (network(iou=0.61, noc=3.9), "not better by the margin"),
        (network(iou=0.5, noc=5.0, by_label={}), "not better by the margin"),
        (network(iou=0.65, noc=4.5), "not better by the margin"),
        (network(iou=0.55, noc=3.0), "not better by the margin"),
        (network(0.7, 3.0, by_label={"door": label(0.5, 3.0), "wheel": label(0.9)}), "door is worse"),
        (network(0.7, 3.0, by_label={"door": label(0.7, 5.5), "wheel": label(0.7)}), "door is worse"),
        (network(0.7, 3.0, iou_after={1: 0.7, 3: 0.6, 5: 0.8}), "more clicks do not help"),
        (network(0.7, 3.0, iou_after={1: 0.7, 3: 0.8, 5: 0.7}), "more clicks do not help"),
        (network(0.7, 3.0, negative_clicks=0.5), "only 50% of negative clicks change the mask"),
    ],
)
def test_objections_to_a_network_are_named(candidate, why):
    decision = decide(compared(candidate))
    assert not decision.promote
    (reason,) = decision.reasons
    assert reason.startswith(why)


def test_a_gain_that_the_choice_of_masks_explains_does_not_count():
    def decided(spread: Spread) -> bool:
        return decide(Comparison("digest", 8, network(), network(0.6, 3.6), spread)).promote

    assert decided(Spread(noc85=0.3))
    assert not decided(Spread(noc85=0.5))


def test_a_loss_that_the_choice_of_masks_explains_does_not_hold_up_a_gain():
    def decided(spread: Spread) -> bool:
        return decide(Comparison("digest", 8, network(), network(0.58, 3.0), spread)).promote

    assert not decided(Spread(noc85=0.3))
    assert decided(Spread(noc85=0.3, first_click_iou=0.03))


def test_a_label_is_worse_only_by_more_than_its_masks_spread():
    candidate = network(0.7, 3.0, by_label={"door": label(0.5, 5.5), "wheel": label(0.8)})

    def decided(spread: Spread) -> bool:
        return decide(Comparison("digest", 8, network(), candidate, spread_by_label={"door": spread})).promote

    assert not decided(Spread(noc85=0.5, first_click_iou=0.03))
    assert not decided(Spread(noc85=1.0, first_click_iou=0.03))
    assert not decided(Spread(noc85=0.5, first_click_iou=0.1))
    assert decided(Spread(noc85=1.0, first_click_iou=0.1))


def test_with_fewer_than_five_images_nothing_is_promoted():
    decision = decide(compared(network(0.9, 1.0), images=4))
    assert not decision.promote
    assert decision.reasons == ("the holdout has 4 images, 5 are needed to tell",)


def test_a_label_with_hardly_any_masks_does_not_decide():
    serving = network(by_label={"door": label(0.9, 1.0, masks=2)})
    candidate = network(0.7, 3.0, by_label={"door": label(0.2, 9.0, masks=2)})
    assert decide(Comparison("digest", 8, serving, candidate)).promote


def test_rules_are_the_callers():
    rules = dataclasses.replace(PromotionRules(), iou_margin=0.2, noc_margin=0.9)
    assert not decide(compared(network(0.7, 3.0)), rules).promote


def test_all_objections_are_named_at_once():
    candidate = network(0.5, 5.0, negative_clicks=0.0, iou_after={1: 0.5, 3: 0.4, 5: 0.3})
    reasons = decide(compared(candidate, images=1)).reasons
    wanted = ("the holdout", "not better", "door is worse", "wheel is worse", "more clicks", "only 0%")
    assert [reason.startswith(why) for reason, why in zip(reasons, wanted, strict=True)] == [True] * 6
