"""`python -m model compare SNAPSHOT SERVING CANDIDATE --out FILE`: two networks on images that neither
has learned from.

A robot annotates every label of the holdout, with the snapshot's references, once with each network. What comes of it is
for `model.evaluation.promotion` to decide.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from model.checkpoints.weights import load_network
from model.data.scenes import Scene
from model.data.snapshot import Snapshot, SnapshotReference
from model.evaluation.metrics import IOU_CLICKS, clicks_needed, iou_after
from model.evaluation.robot_annotator import Clicker, Predictor, annotate
from model.images import read_image
from model.masks import decode, distance_inside
from model.network.prompts import ReferenceTokens
from model.predictor import RefCutPredictor
from model.predictor_config import serving_settings
from model.runtime.select import RuntimeName, with_runtime
from model.types import BoolMask, Click


@dataclass(frozen=True)
class AnnotatedMask:
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
class Comparison:
    """snapshot: its digest. images: of the holdout, as far as they were looked at. spread: of all masks; spread_by_label:
    of a label's. masks: what the figures are of, the same masks in the same order for both."""

    snapshot: str
    images: int
    serving: NetworkFigures
    candidate: NetworkFigures
    spread: Spread = Spread()
    spread_by_label: dict[str, Spread] = field(default_factory=dict)
    masks: tuple[tuple[AnnotatedMask, ...], tuple[AnnotatedMask, ...]] = ((), ())

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


def figures_of(masks: Sequence[AnnotatedMask], max_clicks: int, noc_iou: float) -> NetworkFigures:
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
    serving: Sequence[AnnotatedMask], candidate: Sequence[AnnotatedMask], max_clicks: int, noc_iou: float
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


def _figures(masks: Sequence[AnnotatedMask], max_clicks: int, noc_iou: float) -> Figures:
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


NOC_IOU = 0.85
FIRST_CLICKS = 5
"""So many clicks are made in any case."""
MIN_ROOM_PX = 2
"""A negative click is tried at least so far inside the mask, and twice as far from the positive one."""


@dataclass(frozen=True)
class CompareSettings:
    """max_masks: a larger holdout is sampled, the same labels in the same proportion. max_references: of a label, as
    many as serving pools. runtime, runtime_cache_dir: what computes the networks; see `model.runtime.select`."""

    max_masks: int = 80
    max_clicks: int = 20
    max_references: int = 4
    runtime: RuntimeName = "auto"
    runtime_cache_dir: Path | None = None


def compare(
    snapshot: Snapshot,
    network_dirs: tuple[Path, Path],
    settings: CompareSettings | None = None,
    on_progress: Callable[[int, int], None] = lambda done, of: None,
) -> Comparison:
    """(serving, candidate) on the snapshot's holdout. on_progress: masks done, and how many there are, of both.

    Raises ModelError when weights or snapshot cannot be used.
    """
    settings = settings or CompareSettings()
    chosen = holdout_masks(snapshot, settings.max_masks)
    compared = []
    for number, folder in enumerate(network_dirs):
        predictor = make_predictor(folder, settings)
        references = encode_references(predictor, snapshot, settings.max_references)
        own = []
        for mask in annotate_masks(predictor, chosen, references, settings.max_clicks):
            own.append(mask)
            on_progress(number * len(chosen) + len(own), 2 * len(chosen))
        compared.append(own)
    labels = sorted({label for _, label in chosen})

    def spread(*labels: str) -> Spread:
        own = [[mask for mask in masks if mask.label in labels] for masks in compared]
        return spread_of(own[0], own[1], settings.max_clicks, NOC_IOU)

    return Comparison(
        snapshot=snapshot.digest,
        images=len({scene.image_path for scene, _ in chosen}),
        serving=figures_of(compared[0], settings.max_clicks, NOC_IOU),
        candidate=figures_of(compared[1], settings.max_clicks, NOC_IOU),
        spread=spread(*labels),
        spread_by_label={label: spread(label) for label in labels},
        masks=(tuple(compared[0]), tuple(compared[1])),
    )


def holdout_masks(snapshot: Snapshot, max_masks: int) -> list[tuple[Scene, str]]:
    """What is annotated: every label of every annotation, or as many, evenly spread, as shall be."""
    scenes = snapshot.holdout_scenes()
    by_label = {
        label: [(scene, label) for scene in scenes if label in scene.part_rles] for label in snapshot.labels
    }
    each = max(1, max_masks // max(len(by_label), 1))
    chosen = []
    for pairs in by_label.values():
        count = min(each, len(pairs))
        chosen += [pairs[int((place + 0.5) * len(pairs) / count)] for place in range(count)]
    return sorted(chosen, key=lambda pair: (str(pair[0].image_path), pair[1]))


def make_predictor(folder: Path, settings: CompareSettings) -> RefCutPredictor:
    """The network of a folder, as it is served."""
    network = load_network(folder)
    if torch.cuda.is_available():
        network = network.cuda()
    served = serving_settings(network.config)
    return RefCutPredictor(
        with_runtime(network, served, settings.runtime, settings.runtime_cache_dir), served
    )


def encode_references(
    predictor: Predictor, snapshot: Snapshot, max_references: int
) -> dict[str, ReferenceTokens]:
    """What each label with a reference means."""
    of_label: dict[str, list[SnapshotReference]] = {}
    for reference in snapshot.references:
        of_label.setdefault(reference.label, []).append(reference)
    return {
        label: ReferenceTokens.join([_encode(predictor, snapshot, one) for one in ones[:max_references]])
        for label, ones in of_label.items()
    }


def _encode(predictor: Predictor, snapshot: Snapshot, reference: SnapshotReference) -> ReferenceTokens:
    negative_hw = None if reference.negative is None else decode(reference.negative)
    image = read_image(snapshot.image_dir / reference.file_name)
    return predictor.encode_reference(image, decode(reference.positive), negative_hw)


def annotate_masks(
    predictor: Predictor,
    chosen: Sequence[tuple[Scene, str]],
    references: Mapping[str, ReferenceTokens],
    max_clicks: int,
) -> Iterator[AnnotatedMask]:
    """Each mask annotated by the robot. An image whose masks follow one another is encoded once."""
    shown: Path | None = None
    for scene, label in chosen:
        if scene.image_path != shown:
            predictor.set_image(scene.image())
            shown = scene.image_path
        predictor.set_reference(references.get(label))
        yield _annotate_mask(predictor, scene, label, max_clicks)


def _annotate_mask(predictor: Predictor, scene: Scene, label: str, max_clicks: int) -> AnnotatedMask:
    """One mask of the image that is set, and whether a negative click in the first mask changes it."""
    target_hw = scene.masks()[label]
    robot = Clicker(target_hw)
    session = annotate(
        predictor, target_hw, robot, max_clicks=max_clicks, min_clicks=FIRST_CLICKS, stop_iou=NOC_IOU
    )
    return AnnotatedMask(
        image=scene.image_path.name,
        label=label,
        ious=session.ious,
        negative_click_changes=_negative_click_changes(predictor, session.clicks[0], session.first_mask_hw),
        first_click=session.clicks[0],
        first_mask_hw=session.first_mask_hw,
        target_hw=target_hw,
    )


def _negative_click_changes(predictor: Predictor, first: Click, mask_hw: BoolMask) -> bool | None:
    """A negative click deep inside the first mask, away from the positive one. None when there is no room for it."""
    rows, cols = np.indices(mask_hw.shape)
    depth = distance_inside(mask_hw)
    away = np.hypot(rows - first.row, cols - first.col)
    places = np.where(depth > 0, np.minimum(depth, away / 2), 0)
    row, col = np.unravel_index(int(places.argmax()), places.shape)
    if places[row, col] < MIN_ROOM_PX:
        return None
    after_hw = predictor.predict([first, Click(float(row), float(col), False)]).mask_hw
    return bool((after_hw != mask_hw).any())
