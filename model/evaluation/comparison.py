"""The result of a comparison of two networks: metrics of both, and the standard errors of their difference."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from model.evaluation.metrics import IOU_CLICKS, clicks_needed, iou_after
from model.types import BoolMask, Click


@dataclass(frozen=True)
class AnnotatedMask:
    """One label of one image, annotated by the robot.

    Attributes:
        image: File name of the image.
        label: The label.
        ious: IoU after each click.
        negative_click_changes: Whether a negative click inside the first mask changes it; None if the mask has no room
            for one.
        first_click: The first click.
        first_mask_hw: Mask after the first click (H, W).
        target_hw: The annotators' mask (H, W).
    """

    image: str
    label: str
    ious: list[float]
    negative_click_changes: bool | None
    first_click: Click = field(repr=False)
    first_mask_hw: BoolMask = field(repr=False, compare=False)
    target_hw: BoolMask = field(repr=False, compare=False)


@dataclass(frozen=True)
class MaskMetrics:
    """Metrics over some masks.

    Attributes:
        masks: Number of masks.
        noc85: Mean number of clicks to an IoU of .85.
        first_click_iou: Mean IoU after the first click.
        iou_after: Mean IoU by number of clicks.
    """

    masks: int
    noc85: float
    first_click_iou: float
    iou_after: dict[int, float]


@dataclass(frozen=True)
class NetworkMetrics(MaskMetrics):
    """Metrics of one network.

    Attributes:
        negative_clicks: Share of the negative clicks that changed the mask; None without any.
        by_label: Metrics of each label.
    """

    negative_clicks: float | None
    by_label: dict[str, MaskMetrics]


@dataclass(frozen=True)
class Spread:
    """Standard errors of the mean difference between two networks, measured mask by mask. Zero for fewer than two masks.

    Attributes:
        noc85: Of the number of clicks to an IoU of .85.
        first_click_iou: Of the IoU after the first click.
    """

    noc85: float = 0.0
    first_click_iou: float = 0.0


@dataclass(frozen=True)
class Comparison:
    """The result of a comparison.

    Attributes:
        snapshot: Digest of the snapshot.
        images: Number of holdout images that were annotated.
        serving: Metrics of the network that serves.
        candidate: Metrics of the network that may serve.
        spread: Standard errors over all masks.
        spread_by_label: Standard errors over the masks of each label.
        masks: The masks of the serving network and of the candidate: the same masks in the same order.
        masks_left_out: Masks for which there was no time.
    """

    snapshot: str
    images: int
    serving: NetworkMetrics
    candidate: NetworkMetrics
    spread: Spread = Spread()
    spread_by_label: dict[str, Spread] = field(default_factory=dict)
    masks: tuple[tuple[AnnotatedMask, ...], tuple[AnnotatedMask, ...]] = ((), ())
    masks_left_out: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return all metrics as JSON values, for a manifest."""
        return {
            "snapshot": self.snapshot,
            "images": self.images,
            "masks_left_out": self.masks_left_out,
            "serving": _as_json(self.serving),
            "candidate": _as_json(self.candidate),
            "spread": _rounded(self.spread),
            "spread_by_label": {label: _rounded(own) for label, own in self.spread_by_label.items()},
        }


def network_metrics(masks: Sequence[AnnotatedMask], max_clicks: int, noc_iou: float) -> NetworkMetrics:
    """Compute the metrics of one network.

    Args:
        masks: Its annotated masks. Without any, all metrics are zero.
        max_clicks: Number of clicks after which a session ended.
        noc_iou: IoU of `MaskMetrics.noc85`.
    """
    labels = sorted({mask.label for mask in masks})
    by_label = {
        label: _mask_metrics([mask for mask in masks if mask.label == label], max_clicks, noc_iou)
        for label in labels
    }
    tried = [m.negative_click_changes for m in masks if m.negative_click_changes is not None]
    return NetworkMetrics(
        **vars(_mask_metrics(masks, max_clicks, noc_iou)),
        negative_clicks=statistics.mean(tried) if tried else None,
        by_label=by_label,
    )


def paired_spread(
    serving: Sequence[AnnotatedMask], candidate: Sequence[AnnotatedMask], max_clicks: int, noc_iou: float
) -> Spread:
    """Compute the standard errors of the difference between two networks.

    Args:
        serving: Masks annotated with the serving network.
        candidate: The same masks in the same order, annotated with the candidate.
        max_clicks: Number of clicks after which a session ended.
        noc_iou: IoU of `Spread.noc85`.
    """
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


def _mask_metrics(masks: Sequence[AnnotatedMask], max_clicks: int, noc_iou: float) -> MaskMetrics:
    if not masks:
        return MaskMetrics(0, 0.0, 0.0, dict.fromkeys(IOU_CLICKS, 0.0))
    after = {clicks: statistics.mean(iou_after(mask.ious, clicks) for mask in masks) for clicks in IOU_CLICKS}
    needed = [clicks_needed(mask.ious, noc_iou, max_clicks) for mask in masks]
    return MaskMetrics(len(masks), statistics.mean(needed), after[1], after)


def _rounded(spread: Spread) -> dict[str, float]:
    return {name: round(value, 4) for name, value in vars(spread).items()}


def _as_json(metrics: MaskMetrics) -> dict[str, Any]:
    scalars = {key: value for key, value in vars(metrics).items() if key not in ("by_label", "iou_after")}
    content = {key: round(value, 4) if isinstance(value, float) else value for key, value in scalars.items()}
    content["iou_after"] = {str(clicks): round(iou, 4) for clicks, iou in metrics.iou_after.items()}
    if isinstance(metrics, NetworkMetrics):
        content["by_label"] = {label: _as_json(own) for label, own in metrics.by_label.items()}
    return content
