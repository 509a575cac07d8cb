"""Whether a candidate may serve: a pure decision on the figures of a holdout, with its reasons in words."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from model.evaluation.compare import Comparison, Figures, NetworkFigures, Spread


@dataclass(frozen=True)
class PromotionRules:
    """What a candidate must show on images that it has not learned from.

    A holdout has few masks, and a network that is as good as another needs up to a tenth more or fewer clicks on fifty
    of them: so what counts as better or worse also depends on the spread that the two networks show mask by mask.

    min_images: with fewer in the holdout nothing is promoted.
    iou_margin, noc_margin: the first click's mean IoU rises at least so much, or the mean number of clicks to .85 falls
        by at least this share, and by more than `errors` standard errors; the other of the two is not worse by more than
        a third of its margin, or `errors` standard errors.
    label_iou_loss, label_noc_loss: a label is clearly worse when its first click's IoU falls by more, or its clicks rise
        by more than this share and by half a click; and by more than `label_errors` standard errors. label_min_masks:
        labels with fewer masks count in the mean only.
    flat: what still counts as rising with the clicks.
    negative_share: so many of the negative clicks must change the mask.
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
    """reasons: for people; what speaks against it when it is not promoted, else what speaks for it."""

    promote: bool
    reasons: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return {"promote": self.promote, "reasons": list(self.reasons)}


def decide(comparison: Comparison, rules: PromotionRules | None = None) -> Decision:
    """Promoted only if nothing speaks against it."""
    rules = rules or PromotionRules()
    against = tuple(_against(comparison, rules))
    return Decision(not against, against or (_gain(comparison),))


def _against(comparison: Comparison, rules: PromotionRules) -> Iterator[str]:
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


def _is_better(serving: Figures, candidate: Figures, spread: Spread, rules: PromotionRules) -> bool:
    gains = (
        (candidate.first_click_iou - serving.first_click_iou, rules.iou_margin, spread.first_click_iou),
        (serving.noc85 - candidate.noc85, rules.noc_margin * serving.noc85, spread.noc85),
    )
    gained = any(gain >= margin and gain > rules.errors * error for gain, margin, error in gains)
    return gained and all(gain >= -max(margin / 3, rules.errors * error) for gain, margin, error in gains)


def _is_clearly_worse(before: Figures, after: Figures, spread: Spread, rules: PromotionRules) -> bool:
    if before.masks < rules.label_min_masks:
        return False
    lost = before.first_click_iou - after.first_click_iou
    more = after.noc85 - before.noc85
    return lost > max(rules.label_iou_loss, rules.label_errors * spread.first_click_iou) or more > max(
        rules.label_noc_loss * before.noc85, 0.5, rules.label_errors * spread.noc85
    )


def _misbehaviour(candidate: NetworkFigures, rules: PromotionRules) -> Iterator[str]:
    """What a network that annotators can steer does not do."""
    rising = [candidate.iou_after[clicks] for clicks in sorted(candidate.iou_after)]
    if any(later < earlier - rules.flat for earlier, later in pairwise(rising)):
        yield f"more clicks do not help: IoU {', '.join(f'{iou:.3f}' for iou in rising)}"
    if candidate.negative_clicks is not None and candidate.negative_clicks < rules.negative_share:
        yield f"only {candidate.negative_clicks:.0%} of negative clicks change the mask"


def _gain(comparison: Comparison) -> str:
    before, after = comparison.serving, comparison.candidate
    return (
        f"first click {before.first_click_iou:.3f} to {after.first_click_iou:.3f}, "
        f"clicks to .85 {before.noc85:.2f} to {after.noc85:.2f} on {after.masks} masks"
    )
