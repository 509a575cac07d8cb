"""Does the score of a mask that nobody clicked say how good it is?

    python -m benchmarks.prelabel_score --data coco:DATA/car_parts/val.json,name=car --out FILE

On each photograph up to four labels that are there and two that are not are looked for, as `refcut prelabel` does, with
the next photograph that has the label as reference. Run again with the same --out to go on.

The constants of model/proposal_score.py are fitted on the development share of the training photographs, which no
training sees: --data coco:DATA/car_parts/train.json,name=car --development 0.05 --photographs 1000 --fit. Fit them again
for new weights.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from scipy.stats import spearmanr  # type: ignore[import-untyped]

from benchmarks.report import machine, print_table
from model.checkpoints.weights import SHIPPED_DIR
from model.cli.evaluate import PredictorFactory, parse_set
from model.data.annotated_objects import AnnotatedObject, is_development
from model.data.readers import SetDescription
from model.evaluation.references import ReferenceChoice
from model.masks import encode, intersection_over_union, union
from model.predictor import RefCutPredictor
from model.proposal_score import ProposalFeatures, score_of
from model.proposals import Proposal, ProposalLimits, find_candidates, without_overlaps
from model.types import BoolMask, Box, MaskResult
from refcut_backend.label_studio import brush_rle
from refcut_backend.prelabeling.rivals import without_rivals
from refcut_backend.prelabeling.task import task_score
from refcut_backend.queue.messages import FoundLabel, FoundMask

THERE, ABSENT = 4, 2
"""Labels of a photograph that are looked for."""
PIECE = 0.1
"""A piece of a label's mask counts as an object of its own from this share of the largest one on."""
BINS = (0.3, 0.4, 0.5, 0.6, 0.7, 1.0)
SEED = 1


@dataclass(frozen=True)
class Found:
    """A mask that was tried, and the IoU with the label's mask or the one of its pieces that it fits best."""

    proposal: Proposal
    iou: float


@dataclass(frozen=True)
class Looked:
    """A label on a photograph. target_hw: its mask (H, W), empty where it is not there."""

    set_name: str
    photograph: str
    label: str
    target_hw: BoolMask
    found: list[Found]

    def kept(self, limits: ProposalLimits) -> list[Found]:
        """What would be proposed, were this the only label."""
        iou_of = {id(found.proposal): found.iou for found in self.found}
        wanted = [f.proposal for f in self.found if f.proposal.score >= limits.min_score]
        return [Found(p, iou_of[id(p)]) for p in without_overlaps(wanted, limits.overlap)]


@dataclass(frozen=True)
class PrelabelledTask:
    """A photograph, and what is proposed of each label that was looked for."""

    labels: list[Looked]
    proposed: list[list[Found]]


def look(
    description: SetDescription,
    count: int,
    predictor: RefCutPredictor,
    out: Path,
    development: float | None = None,
) -> None:
    """Looks at the photographs of a set that are not in the file yet, and appends a line for each label.

    development: share of a training set that is left out of it; only these photographs are looked at. References may be
    any photographs of the set.
    """
    annotated_objects = description.read()
    chosen = [
        number
        for number in np.random.default_rng(SEED).permutation(len(annotated_objects))
        if development is None or is_development(annotated_objects[number], development)
    ]
    done = {(line["set"], line["photograph"]) for line in _lines(out)}
    for number in chosen[:count]:
        annotated_object = annotated_objects[number]
        if (description.name, annotated_object.image_path.name) in done:
            continue
        predictor.set_image(annotated_object.image())
        lines = [
            {"set": description.name, "photograph": annotated_object.image_path.name}
            | _look_for(label, annotated_objects, number, predictor)
            for label in _labels(annotated_objects, number)
        ]
        with out.open("a") as file:
            file.writelines(json.dumps(line) + "\n" for line in lines)


def _labels(annotated_objects: Sequence[AnnotatedObject], number: int) -> list[str]:
    """Labels with a reference elsewhere: some that are on the photograph, and one that is not."""
    random = np.random.default_rng([SEED, number])
    there = {name for name, mask in annotated_objects[number].masks().items() if mask.any()}
    known = {name for annotated_object in annotated_objects for name in annotated_object.part_rles}
    chosen = []
    for names, wanted in ((there, THERE), (known - there, ABSENT)):
        shuffled = [str(name) for name in random.permutation(sorted(names))]
        chosen += [name for name in shuffled if _reference(annotated_objects, number, name)][:wanted]
    return chosen


def _reference(
    annotated_objects: Sequence[AnnotatedObject], number: int, label: str
) -> ReferenceChoice | None:
    """The next photograph that has the label and something beside it."""
    for other in (*range(number + 1, len(annotated_objects)), *range(number)):
        parts = annotated_objects[other].part_rles
        if (
            label in parts
            and len(parts) > 1
            and annotated_objects[other].image_path != annotated_objects[number].image_path
        ):
            return ReferenceChoice(other, (label,), tuple(name for name in parts if name != label))
    return None


def _look_for(
    label: str, annotated_objects: Sequence[AnnotatedObject], number: int, predictor: RefCutPredictor
) -> dict[str, Any]:
    choice = _reference(annotated_objects, number, label)
    assert choice is not None
    reference, masks = (
        annotated_objects[choice.annotated_object],
        annotated_objects[choice.annotated_object].masks(),
    )
    rest = union(masks[name] for name in choice.negative)
    predictor.set_reference(predictor.encode_reference(reference.image(), masks[label], rest))
    target_hw = annotated_objects[number].masks().get(label, np.zeros(predictor.image_size, bool))
    candidates = find_candidates(predictor, ProposalLimits().locations) or []
    return {
        "label": label,
        "target": encode(target_hw),
        "masks": [encode(c.result.mask_hw) for c in candidates],
        "evidence": [dataclasses.asdict(c.features) for c in candidates],
    }


def read(out: Path) -> list[Looked]:
    """What was found, scored as the program would do now."""
    return [_looked(line) for line in _lines(out)]


def _looked(line: dict[str, Any]) -> Looked:
    target_hw = coco_mask.decode(line["target"]).astype(bool)
    objects = list(_objects(target_hw))
    found = []
    for rle, features_of in zip(line["masks"], line["evidence"], strict=True):
        mask_hw, features = coco_mask.decode(rle).astype(bool), ProposalFeatures(**features_of)
        result = MaskResult(mask_hw, mask_hw.astype(np.float32), Box.whole(*mask_hw.shape))
        iou = max(intersection_over_union(one, mask_hw) for one in objects)
        found.append(Found(Proposal(result, features, score_of(features)), iou))
    return Looked(line["set"], line["photograph"], line["label"], target_hw, found)


def _objects(target_hw: BoolMask) -> Iterator[BoolMask]:
    """A label's mask, and its larger pieces: one of two wheels is as good a mask as both."""
    yield target_hw
    count, pieces, stats, _ = cv2.connectedComponentsWithStats(target_hw.astype(np.uint8), connectivity=8)
    areas = stats[1:, cv2.CC_STAT_AREA]
    for piece in range(1, count):
        if areas[piece - 1] >= PIECE * areas.max():
            yield pieces == piece


def tasks_of(looked: Sequence[Looked], limits: ProposalLimits) -> list[PrelabelledTask]:
    """What the program would propose on each photograph."""
    by_photograph: dict[tuple[str, str], list[Looked]] = {}
    for one in looked:
        by_photograph.setdefault((one.set_name, one.photograph), []).append(one)
    return [_prelabelled(labels, limits) for labels in by_photograph.values()]


def _prelabelled(labels: list[Looked], limits: ProposalLimits) -> PrelabelledTask:
    kept = [one.kept(limits) for one in labels]
    found_of: dict[int, Found] = {}
    answers = []
    for one, masks in zip(labels, kept, strict=True):
        made = [
            FoundMask(brush_rle.encode(found.proposal.result.mask_hw), found.proposal.score)
            for found in masks
        ]
        found_of |= {id(mask): found for mask, found in zip(made, masks, strict=True)}
        height, width = one.target_hw.shape
        answers.append(FoundLabel(one.label, "image", width, height, tuple(made), ()))
    stay = [[found_of[id(mask)] for mask in label.masks] for label in without_rivals(answers)]
    return PrelabelledTask(labels, stay)


def report(looked: Sequence[Looked]) -> None:
    """Tables: how scores and IoUs go together, score by score."""
    tasks = tasks_of(looked, ProposalLimits())
    proposed = [pair for task in tasks for pair in zip(task.labels, task.proposed, strict=True)]
    kept = [found for _, masks in proposed for found in masks]
    there = [masks for one, masks in proposed if one.target_hw.any()]
    absent = [masks for one, masks in proposed if not one.target_hw.any()]
    print(f"{machine()}; {len(tasks)} photographs\n")
    print_table(
        ["what is compared", "n", "Spearman"],
        [
            _correlation("each mask's score, its IoU", [(f.proposal.score, f.iou) for f in kept]),
            _correlation(
                "... of all that were tried", [(f.proposal.score, f.iou) for o in looked for f in o.found]
            ),
            _correlation("each task's score, the mean IoU of its labels", list(_tasks(tasks))),
        ],
    )
    print()
    print_table(["score", "masks", "mean score", "mean IoU", "IoU at least .5"], list(_reliability(kept)))
    print()
    best = [max(f.iou for f in masks) for masks in there if masks]
    print_table(
        ["labels", "n", "with a mask", "best mask's mean IoU"],
        [
            ["on the photograph", len(there), len(best), f"{np.mean(best or [0]):.2f}"],
            ["not on it", len(absent), sum(bool(masks) for masks in absent), "-"],
        ],
    )


def _tasks(tasks: Sequence[PrelabelledTask]) -> Iterator[tuple[float, float]]:
    """Of each photograph: its prediction's score, and the mean IoU of what is proposed of the labels that are there."""
    for task in tasks:
        ious = [
            intersection_over_union(
                one.target_hw,
                union([np.zeros_like(one.target_hw), *(f.proposal.result.mask_hw for f in masks)]),
            )
            for one, masks in zip(task.labels, task.proposed, strict=True)
            if one.target_hw.any()
        ]
        if ious:
            yield (
                task_score([[f.proposal.score for f in masks] for masks in task.proposed]),
                float(np.mean(ious)),
            )


def _correlation(name: str, pairs: Sequence[tuple[float, float]]) -> list[object]:
    found = spearmanr(np.array(pairs)) if len(pairs) > 2 else None
    return [name, len(pairs), "-" if found is None else f"{found.statistic:.2f}"]


def _reliability(kept: Sequence[Found]) -> Iterator[list[object]]:
    for low, high in pairwise(BINS):
        chosen = [(f.proposal.score, f.iou) for f in kept if low <= f.proposal.score < high]
        if chosen:
            scores, ious = np.array(chosen).T
            row = [f"{scores.mean():.2f}", f"{ious.mean():.2f}", f"{100 * (ious >= 0.5).mean():.0f} %"]
            yield [f"{low:.1f} to {high:.1f}", len(chosen), *row]


def fit(looked: Sequence[Looked], ridge: float = 1.0) -> tuple[float, ProposalFeatures]:
    """Bias and weights of the logistic curve under which the IoUs are likeliest (every mask that was tried counts).

    ridge: pull of the standardised weights towards 0. Newton's method.
    """
    found = [found for one in looked for found in one.found]
    ious = np.array([f.iou for f in found])
    values = np.array([dataclasses.astuple(f.proposal.features) for f in found])
    mean, spread = values.mean(axis=0), values.std(axis=0)
    columns = np.c_[np.ones(len(values)), (values - mean) / spread]
    pull = ridge * np.r_[0, np.ones(values.shape[1])]
    weights: NDArray[np.float64] = np.zeros(columns.shape[1])
    for _ in range(50):
        expected = 1 / (1 + np.exp(-columns @ weights))
        curvature = (columns * (expected * (1 - expected))[:, None]).T @ columns + np.diag(pull)
        weights = weights + np.linalg.solve(curvature, columns.T @ (ious - expected) - pull * weights)
    slopes = weights[1:] / spread
    return float(weights[0] - slopes @ mean), ProposalFeatures(*(round(float(slope), 3) for slope in slopes))


def _lines(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []


def main() -> None:
    """Measure and print the result; see the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=parse_set, action="append", required=True, metavar="SET")
    parser.add_argument("--out", type=Path, required=True, help="file of what was found, a line a label")
    parser.add_argument(
        "--photographs", type=int, default=40, help="of each set, chosen at random but always the same"
    )
    parser.add_argument(
        "--development",
        type=float,
        metavar="SHARE",
        help="only this share of the photographs, which trainings leave out",
    )
    parser.add_argument("--runtime", choices=("auto", "openvino", "torch"), default="auto")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--fit", action="store_true", help="print the constants that these photographs give")
    arguments = parser.parse_args()
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    predictor = PredictorFactory(SHIPPED_DIR, {}, arguments.threads, arguments.runtime)()
    for description in arguments.data:
        look(description, arguments.photographs, predictor, arguments.out, arguments.development)
    looked = read(arguments.out)
    report(looked)
    if arguments.fit:
        bias, weights = fit(looked)
        print(f"\nBIAS = {bias:.2f}\nWEIGHTS = {weights}")


if __name__ == "__main__":
    main()
