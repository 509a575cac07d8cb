"""How good two networks are on a holdout: plain values, for the gate, the manifest and the picture."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from model.evaluation.summary import IOU_CLICKS, clicks_needed, iou_after
from model.types import BoolMask, Click


@dataclass(frozen=True)
class JudgedMask:
    """One label of one image, annotated. ious: one a click. negative_click_changes: None where none could be tried.

    first_mask_hw, target_hw: (H, W).
    """

    image: str
    label: str
    ious: list[float]
    negative_click_changes: bool | None
    first_click: Click = field(repr=False)
    first_mask_hw: BoolMask = field(repr=False, compare=False)
    target_hw: BoolMask = field(repr=False, compare=False)


@dataclass(frozen=True)
class Figures:
    """Means over masks. noc85: clicks until the IoU is .85. iou_after: by number of clicks."""

    masks: int
    noc85: float
    first_click_iou: float
    iou_after: dict[int, float]


@dataclass(frozen=True)
class NetworkFigures(Figures):
    """Of one network. negative_clicks: share of negative clicks that changed the mask; None without any."""

    negative_clicks: float | None
    by_label: dict[str, Figures]


@dataclass(frozen=True)
class Spread:
    """Standard errors of the difference between two networks, mask by mask: how far the holdout's choice of masks alone
    may carry it. Zero where there are no two masks."""

    noc85: float = 0.0
    first_click_iou: float = 0.0


@dataclass(frozen=True)
class Judgement:
    """snapshot: its digest. images: of the holdout, as far as they were looked at. spread: of all masks; spread_by_label:
    of a label's. masks: what the figures are of, the same masks in the same order for both."""

    snapshot: str
    images: int
    serving: NetworkFigures
    candidate: NetworkFigures
    spread: Spread = Spread()
    spread_by_label: dict[str, Spread] = field(default_factory=dict)
    masks: tuple[tuple[JudgedMask, ...], tuple[JudgedMask, ...]] = ((), ())

    def to_json(self) -> dict[str, Any]:
        """All figures, for a manifest."""
        return {
            "snapshot": self.snapshot,
            "images": self.images,
            "serving": _as_json(self.serving),
            "candidate": _as_json(self.candidate),
            "spread": _rounded(self.spread),
            "spread_by_label": {label: _rounded(own) for label, own in self.spread_by_label.items()},
        }


def figures_of(masks: Sequence[JudgedMask], max_clicks: int, noc_iou: float) -> NetworkFigures:
    """The figures of one network; all zero where there is no mask."""
    labels = sorted({mask.label for mask in masks})
    by_label = {
        label: _figures([mask for mask in masks if mask.label == label], max_clicks, noc_iou)
        for label in labels
    }
    tried = [m.negative_click_changes for m in masks if m.negative_click_changes is not None]
    return NetworkFigures(
        **vars(_figures(masks, max_clicks, noc_iou)),
        negative_clicks=statistics.mean(tried) if tried else None,
        by_label=by_label,
    )


def spread_of(
    serving: Sequence[JudgedMask], candidate: Sequence[JudgedMask], max_clicks: int, noc_iou: float
) -> Spread:
    """Of the same masks in the same order."""
    pairs = list(zip(serving, candidate, strict=True))
    if len(pairs) < 2:
        return Spread()
    clicks = [
        clicks_needed(after.ious, noc_iou, max_clicks) - clicks_needed(before.ious, noc_iou, max_clicks)
        for before, after in pairs
    ]
    ious = [iou_after(after.ious, 1) - iou_after(before.ious, 1) for before, after in pairs]
    root = math.sqrt(len(pairs))
    return Spread(statistics.stdev(clicks) / root, statistics.stdev(ious) / root)


def _figures(masks: Sequence[JudgedMask], max_clicks: int, noc_iou: float) -> Figures:
    if not masks:
        return Figures(0, 0.0, 0.0, dict.fromkeys(IOU_CLICKS, 0.0))
    after = {clicks: statistics.mean(iou_after(mask.ious, clicks) for mask in masks) for clicks in IOU_CLICKS}
    needed = [clicks_needed(mask.ious, noc_iou, max_clicks) for mask in masks]
    return Figures(len(masks), statistics.mean(needed), after[1], after)


def _rounded(spread: Spread) -> dict[str, float]:
    return {name: round(value, 4) for name, value in vars(spread).items()}


def _as_json(figures: Figures) -> dict[str, Any]:
    found = {key: value for key, value in vars(figures).items() if key not in ("by_label", "iou_after")}
    said = {key: round(value, 4) if isinstance(value, float) else value for key, value in found.items()}
    said["iou_after"] = {str(clicks): round(iou, 4) for clicks, iou in figures.iou_after.items()}
    if isinstance(figures, NetworkFigures):
        said["by_label"] = {label: _as_json(own) for label, own in figures.by_label.items()}
    return said
