"""Figures of one version's weights, on photographs of a project and on general sets.

Photographs of a project are evaluated as `model.evaluation.compare` does it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from model.checkpoints.version_folder import VERSION_FILE, file_digest
from model.cli.evaluate import read_set
from model.data.readers import SetDescription
from model.data.snapshot import Snapshot
from model.evaluation.compare import (
    NOC_IOU,
    CompareSettings,
    annotate_masks,
    encode_references,
    holdout_masks,
    make_predictor,
)
from model.evaluation.comparison import AnnotatedMask, network_metrics
from model.evaluation.metrics import clicks_needed
from model.evaluation.modes import Mode
from model.evaluation.runner import ClickLimits, EvaluationSet, Evaluator, Task
from model.evaluation.samples import enumerate_samples, limit_samples


@dataclass(frozen=True)
class Measure:
    """What versions are measured on. Figures are kept in `folder`, by weights, and not computed twice.

    general_sets: named as for `python -m model evaluate`. general_limit: samples of each kind in a set. development: take
    only this share of the sets, the one that training leaves out; None takes all.
    """

    folder: Path
    general_sets: tuple[str, ...] = ()
    general_limit: int = 24
    development: float | None = None
    compare: CompareSettings = field(default_factory=CompareSettings)

    def project(self, weights: Path, snapshot: Snapshot) -> list[AnnotatedMask]:
        """The masks of the snapshot's holdout, annotated with its references."""
        predictor = make_predictor(weights, self.compare)
        references = encode_references(predictor, snapshot, self.compare.max_references)
        chosen = holdout_masks(snapshot, self.compare.max_masks)
        return list(annotate_masks(predictor, chosen, references, self.compare.max_clicks))

    def project_summary(self, weights: Path, snapshot: Snapshot) -> dict[str, Any]:
        """Clicks to .85 and first-click IoU, in the mean and by label."""
        path = self._path(weights, f"project-{snapshot.digest[:8]}-{self.compare.max_masks}")
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(summary(self.project(weights, snapshot), self.compare.max_clicks)))
        return dict(json.loads(path.read_text()))

    def general(self, weights: Path) -> dict[str, dict[str, float]]:
        """IoU of the first click with the right reference, by set and by sample (`Sample.key`)."""
        path = self._path(weights, f"general-{self.general_limit}-{self.development}")
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(self._first_clicks(weights)))
        return dict(json.loads(path.read_text()))

    def _path(self, weights: Path, what: str) -> Path:
        return self.folder / f"{file_digest(weights / VERSION_FILE)[:12]}-{what}.json"

    def _first_clicks(self, weights: Path) -> dict[str, dict[str, float]]:
        sets = [read_set(SetDescription.parse(text), self.development) for text in self.general_sets]
        predictor = make_predictor(weights, self.compare)
        evaluator = Evaluator(sets, predictor, ClickLimits(1, 1))
        return {one.name: self._first_click(evaluator, number, one) for number, one in enumerate(sets)}

    def _first_click(self, evaluator: Evaluator, number: int, one: EvaluationSet) -> dict[str, float]:
        right = (Mode.parse("right"),)
        samples = limit_samples(enumerate_samples(one.annotated_objects)[0], self.general_limit)
        records = [record for sample in samples for record in evaluator.run(Task(number, sample, right))]
        return {record.sample: record.ious[0] for record in records if record.referenced}


def summary(masks: list[AnnotatedMask], max_clicks: int) -> dict[str, Any]:
    """What tables and plots show of one network. by_mask: image, label, clicks, first IoU."""
    figures = network_metrics(masks, max_clicks, NOC_IOU)
    by_label = {
        label: {"noc85": own.noc85, "first_click_iou": own.first_click_iou}
        for label, own in figures.by_label.items()
    }
    return {
        "masks": figures.masks,
        "noc85": figures.noc85,
        "first_click_iou": figures.first_click_iou,
        "by_label": by_label,
        "by_mask": [
            [mask.image, mask.label, clicks_needed(mask.ious, NOC_IOU, max_clicks), mask.ious[0]]
            for mask in masks
        ],
    }


def general_sets(
    folder: Path, split: str = "val", names: Sequence[str] = ("car_parts", "ccp")
) -> tuple[str, ...]:
    """The general sets of a folder that has them as docs/data-formats.md describes."""
    return tuple(f"{folder / name / split}.json,name={name}" for name in names)
