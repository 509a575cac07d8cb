"""Promotion: the decision whether a candidate may serve, made on the metrics of a comparison, with its reasons in words.

`decide` is a pure function. Change `PromotionRules` to change what a candidate must achieve.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from model.evaluation.comparison import Comparison, MaskMetrics, NetworkMetrics, Spread


@dataclass(frozen=True)
class PromotionRules:
    """What a candidate must achieve on images that it has not learned from.

    A holdout has few masks. On fifty of them, a network that is as good as another needs up to a tenth more or fewer
    clicks. What counts as better or worse therefore also depends on the standard error of the difference, measured mask
    by mask.

    A candidate is better if the IoU after the first click rises by `iou_margin`, or the number of clicks to .85 falls by
    the share `noc_margin`, and by more than `errors` standard errors; the other of the two may not get worse by more than
    a third of its margin, or `errors` standard errors.

    A label is clearly worse if the IoU after its first click falls by more than `label_iou_loss`, or its number of clicks
    rises by more than the share `label_noc_loss` and by half a click; and by more than `label_errors` standard errors.

    Attributes:
        min_images: With fewer images in the holdout, nothing is promoted.
        iou_margin: Required gain of the IoU after the first click.
        noc_margin: Required gain of the number of clicks, as a share.
        errors: Number of standard errors that a gain must exceed.
        label_iou_loss: Tolerated loss of a label's IoU after the first click.
        label_noc_loss: Tolerated rise of a label's number of clicks, as a share.
        label_errors: Number of standard errors that a label's loss must exceed to count.
        label_min_masks: Labels with fewer masks count in the mean only.
        flat: Tolerated fall of the mean IoU from one click to a later one.
        negative_share: Required share of negative clicks that change the mask, 0 to 1.
    """

    min_images: int = 5
    iou_margin: float = 0.015
    noc_margin: float = 0.05
    errors: float = 1.0
    label_iou_loss: float = 0.08
    label_noc_loss: float = 0.25
    label_errors: float = 1.645
    label_min_masks: int = 3
    flat: float = 0.005
    negative_share: float = 0.9


@dataclass(frozen=True)
class Decision:
    """Whether a candidate is promoted, and why.

    Attributes:
        promote: Whether it may serve.
        reasons: Sentences for people: the objections if it is not promoted, else the gain.
    """

    promote: bool
    reasons: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the decision as JSON values, for a manifest."""
        return {"promote": self.promote, "reasons": list(self.reasons)}


def decide(comparison: Comparison, rules: PromotionRules | None = None) -> Decision:
    """Decide whether a candidate may serve. It is promoted only if there is no objection.

    Args:
        comparison: Metrics of the serving network and of the candidate.
        rules: None takes the defaults.

    Example:
        >>> from model.evaluation.comparison import Comparison, network_metrics
        >>> nothing = network_metrics([], max_clicks=20, noc_iou=0.85)
        >>> decide(Comparison("", 0, nothing, nothing)).promote
        False
    """
    rules = rules or PromotionRules()
    objections = tuple(_objections(comparison, rules))
    return Decision(not objections, objections or (_gain(comparison),))


def _objections(comparison: Comparison, rules: PromotionRules) -> Iterator[str]:
    serving, candidate = comparison.serving, comparison.candidate
    if comparison.images < rules.min_images:
        yield f"the holdout has {comparison.images} images, {rules.min_images} are needed to tell"
    if not _is_better(serving, candidate, comparison.spread, rules):
        yield f"not better by the margin: {_gain(comparison)}"
    for label, before in serving.by_label.items():
        after = candidate.by_label.get(label)
        spread = comparison.spread_by_label.get(label, Spread())
        if after is not None and _is_clearly_worse(before, after, spread, rules):
            yield (
                f"{label} is worse: first click {before.first_click_iou:.3f} to {after.first_click_iou:.3f}, "
                f"clicks {before.noc85:.2f} to {after.noc85:.2f}"
            )
    yield from _misbehaviour(candidate, rules)


def _is_better(serving: MaskMetrics, candidate: MaskMetrics, spread: Spread, rules: PromotionRules) -> bool:
    gains = (
        (candidate.first_click_iou - serving.first_click_iou, rules.iou_margin, spread.first_click_iou),
        (serving.noc85 - candidate.noc85, rules.noc_margin * serving.noc85, spread.noc85),
    )
    gained = any(gain >= margin and gain > rules.errors * error for gain, margin, error in gains)
    return gained and all(gain >= -max(margin / 3, rules.errors * error) for gain, margin, error in gains)


def _is_clearly_worse(before: MaskMetrics, after: MaskMetrics, spread: Spread, rules: PromotionRules) -> bool:
    if before.masks < rules.label_min_masks:
        return False
    lost = before.first_click_iou - after.first_click_iou
    more = after.noc85 - before.noc85
    return lost > max(rules.label_iou_loss, rules.label_errors * spread.first_click_iou) or more > max(
        rules.label_noc_loss * before.noc85, 0.5, rules.label_errors * spread.noc85
    )


def _misbehaviour(candidate: NetworkMetrics, rules: PromotionRules) -> Iterator[str]:
    """Name behaviour of a network that annotators cannot steer."""
    rising = [candidate.iou_after[clicks] for clicks in sorted(candidate.iou_after)]
    if any(later < earlier - rules.flat for earlier, later in pairwise(rising)):
        yield f"more clicks do not help: IoU {', '.join(f'{iou:.3f}' for iou in rising)}"
    if candidate.negative_clicks is not None and candidate.negative_clicks < rules.negative_share:
        yield f"only {candidate.negative_clicks:.0%} of negative clicks change the mask"


def _gain(comparison: Comparison) -> str:
    before, after, left_out = comparison.serving, comparison.candidate, comparison.masks_left_out
    return (
        f"first click {before.first_click_iou:.3f} to {after.first_click_iou:.3f}, "
        f"clicks to .85 {before.noc85:.2f} to {after.noc85:.2f} on {after.masks} masks"
        f"{f', no time for {left_out} more' if left_out else ''}"
    )
