"""How well the reader alone finds targets on the grid of patches: the curve of its training.

Samples and references are those of `model.evaluation`: every part, connected pair of parts and whole object; the
reference is the next photograph by file name that shows the same parts. Target and reference are whole photographs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from model.data.annotated_objects import AnnotatedObject
from model.data.feature_cache import FeatureSet
from model.evaluation.modes import parse_modes
from model.evaluation.references import ReferenceFinder
from model.evaluation.samples import Sample, enumerate_samples, limit_samples
from model.masks import deepest_point, union
from model.network.click_maps import disk_maps
from model.network.reader import Reader, label_shares
from model.network.similarity import PatchCosines

MEASURES = ("click_best", "click_half", "reference_best", "reference_half")
"""IoU with the robot's first click or with the reference alone; at the best threshold of each sample, or at one half."""


@dataclass(frozen=True)
class ReaderSample:
    """One sample of one evaluation set. shares are float32 (N,), clicks (2, N)."""

    key: str
    kind: str
    target_crop: int
    reference_crop: int
    target: NDArray[np.float32]
    positive: NDArray[np.float32]
    negative: NDArray[np.float32]
    clicks: NDArray[np.float32]


class ReaderEvaluation:
    """The evaluation sets of a training, ready to be run again and again."""

    def __init__(self, sets: Mapping[str, list[AnnotatedObject]], cache: Path, limit: int) -> None:
        """Reads cached crops and annotations.

        Args:
            sets: Annotated objects to evaluate on, by the set's name, in the order in which they were cached.
            cache: Folder that `cache-features` has written.
            limit: Samples of each kind and set.

        Raises:
            DataError: If a file is missing.
        """
        self._sets: dict[str, tuple[FeatureSet, list[ReaderSample]]] = {}
        for name, annotated_objects in sets.items():
            cached = FeatureSet(cache / f"{name}-0")
            self._sets[name] = cached, _samples(annotated_objects, cached, limit)

    @torch.no_grad()
    def __call__(self, reader: Reader) -> dict[str, dict[str, NDArray[np.float64]]]:
        """IoU of every sample, by cell ("set/kind") and by `MEASURES`, in an order that never changes."""
        was_training = reader.training
        reader.eval()
        device = reader.to_logit.weight.device
        found: dict[str, dict[str, list[float]]] = {}
        for name, (cached, samples) in self._sets.items():
            grid = (cached.grid, cached.grid)
            features = [
                torch.from_numpy(cached.features(number)).float().to(device)[None]
                for number in range(len(cached.crops))
            ]
            tokens = [reader.encode(one, grid) for one in features]
            for sample in samples:
                here, there = sample.target_crop, sample.reference_crop
                labels = label_shares(_row(sample.positive, device), _row(sample.negative, device))
                frozen = PatchCosines.of(features[here], features[there])
                matched = reader.match(tokens[here], tokens[there], frozen, labels[:, :, None])
                clicks = torch.from_numpy(np.stack([sample.clicks, np.zeros_like(sample.clicks)]))
                logits = reader.read(
                    tokens[here], features[here], matched.expand(-1, 2, -1, -1), clicks.to(device)[None], grid
                ).logits[0]
                scores = logits.double().cpu().numpy()
                cell = found.setdefault(f"{name}/{sample.kind}", {measure: [] for measure in MEASURES})
                for row, prefix in enumerate(("click", "reference")):
                    best, half = grid_ious(scores[row], sample.target)
                    cell[f"{prefix}_best"].append(best)
                    cell[f"{prefix}_half"].append(half)
        reader.train(was_training)
        return {
            cell: {measure: np.array(values) for measure, values in measures.items()}
            for cell, measures in found.items()
        }


def grid_ious(scores: NDArray[np.float64], shares: NDArray[np.float32]) -> tuple[float, float]:
    """IoU of a map with a target on the grid: at the best threshold, and at 0.

    Args:
        scores: (N,), larger = rather inside.
        shares: Share of each patch that belongs to the target, (N,); some patch has one above zero.
    """
    order = np.argsort(-scores, kind="stable")
    inside = np.cumsum(shares[order], dtype=np.float64)
    count = np.arange(1, len(scores) + 1)
    ious = inside / (count + inside[-1] - inside)
    chosen = int((scores > 0).sum())
    return float(ious.max()), float(ious[chosen - 1]) if chosen else 0.0


def _samples(annotated_objects: list[AnnotatedObject], cached: FeatureSet, limit: int) -> list[ReaderSample]:
    (mode,) = parse_modes(["right"])
    finder = ReferenceFinder(annotated_objects)
    every, _ = enumerate_samples(annotated_objects)
    usable = [sample for sample in every if finder.choose(sample, mode)]
    made = []
    for sample in limit_samples(usable, limit):
        (choice,) = finder.choose(sample, mode)
        target = _shares(cached, sample.annotated_object, sample.parts)
        if target.sum() <= 0:
            continue
        positive = _shares(cached, choice.annotated_object, choice.positive)
        made.append(
            ReaderSample(
                key=sample.key,
                kind=sample.kind,
                target_crop=sample.annotated_object,
                reference_crop=choice.annotated_object,
                target=target,
                positive=positive,
                negative=np.minimum(_shares(cached, choice.annotated_object, choice.negative), 1 - positive),
                clicks=_robot_click(annotated_objects[sample.annotated_object], sample, cached.grid),
            )
        )
    return made


def _shares(cached: FeatureSet, crop: int, parts: tuple[str, ...]) -> NDArray[np.float32]:
    rows = [piece.row for piece in cached.crops[crop].pieces if piece.name in parts]
    if not rows:
        return np.zeros(cached.grid**2, np.float32)
    shares: NDArray[np.float32] = np.minimum(cached.shares(rows).sum(axis=0), np.float32(1))
    return shares


def _robot_click(annotated_object: AnnotatedObject, sample: Sample, grid: int) -> NDArray[np.float32]:
    """Shares of the patches under the robot's first click, (2, N)."""
    mask = union(mask for name, mask in annotated_object.masks().items() if name in sample.parts)
    row, col = deepest_point(mask)
    size_px = grid * 14
    table = torch.tensor([[[row * size_px / mask.shape[0], col * size_px / mask.shape[1], 0.0], [-1.0] * 3]])
    pooled = F.adaptive_avg_pool2d(disk_maps(table, size_px, size_px), (grid, grid))
    return pooled[0].flatten(1).numpy()


def _row(values: NDArray[np.float32], device: torch.device) -> Tensor:
    return torch.from_numpy(values).to(device)[None]
