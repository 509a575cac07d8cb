"""What a box is worth: `python -m benchmarks.box_prompts --data SET [--data SET] [--limit N] [--threads N]`.

IoU of the first mask for boxes drawn by a hand that misses each edge by up to 5 % of the box, on parts of the development
share of train splits, without a reference and with the right one. Beside it, on the same parts: the box itself as a
mask, a click in its middle (as served, and cut to the box), and the robot's first click, which knows where the part is
thickest.
"""

from __future__ import annotations

import argparse
import os
import statistics
import zlib
from collections import defaultdict

import numpy as np
import torch
from numpy.typing import NDArray

from model.box_prompts import box_limits, cut_off
from model.checkpoints.weights import load_network
from model.data.annotated_objects import AnnotatedObject, is_development
from model.data.readers import SetDescription
from model.evaluation.modes import Mode
from model.evaluation.references import ReferenceFinder
from model.evaluation.samples import Sample, enumerate_samples, limit_samples
from model.masks import bounding_box, deepest_point, intersection_over_union, union
from model.predictor import RefCutPredictor
from model.predictor_config import serving_settings
from model.types import BoolMask, Box, Click

DEVELOPMENT_SHARE = 0.05
MISSED_SHARE = 0.05
RIGHT = Mode.parse("right")


def hand_drawn(target_hw: BoolMask, random: np.random.Generator) -> Box:
    """The box round a target, each edge off by up to MISSED_SHARE of the box's side."""
    box = bounding_box(target_hw)
    off = random.uniform(-MISSED_SHARE, MISSED_SHARE, 4) * (box.height, box.height, box.width, box.width)
    edges = np.rint(np.array([box.row_min, box.row_max, box.col_min, box.col_max]) + off).astype(int)
    height, width = target_hw.shape
    top, bottom = sorted(np.clip(edges[:2], 0, height - 1).tolist())
    left, right = sorted(np.clip(edges[2:], 0, width - 1).tolist())
    return Box(top, bottom, left, right)


def first_masks(predictor: RefCutPredictor, target_hw: BoolMask, box: Box) -> dict[str, BoolMask]:
    """The masks that are compared."""
    row, col = deepest_point(target_hw)
    middle = Click((box.row_min + box.row_max) / 2, (box.col_min + box.col_max) / 2)
    filled_hw = np.zeros_like(target_hw)
    filled_hw[box.slices] = True
    clicked = predictor.predict([middle])
    limits = box_limits(box, [], *target_hw.shape)
    assert limits is not None
    cut_hw: NDArray[np.float32] = cut_off(clicked.probability_hw, limits)
    return {
        "the box itself": filled_hw,
        "click in its middle": clicked.mask_hw,
        "click in its middle, cut": cut_hw > predictor.settings.threshold,
        "box": predictor.predict([], box).mask_hw,
        "robot's click": predictor.predict([Click(float(row), float(col))]).mask_hw,
    }


def measure(
    predictor: RefCutPredictor,
    annotated_objects: list[AnnotatedObject],
    samples: list[Sample],
    *,
    referenced: bool,
) -> dict[str, list[float]]:
    """IoUs of all samples that have a reference, by what was done."""
    finder = ReferenceFinder(annotated_objects)
    ious: dict[str, list[float]] = defaultdict(list)
    for sample in samples:
        choices = finder.choose(sample, RIGHT)
        if not choices:
            continue
        annotated_object, choice = annotated_objects[sample.annotated_object], choices[0]
        target_hw = union(annotated_object.masks()[name] for name in sample.parts)
        predictor.set_image(annotated_object.image())
        predictor.set_reference(None)
        if referenced:
            shown = annotated_objects[choice.annotated_object]
            masks = shown.masks()
            positive_hw, negative_hw = (
                union(masks[name] for name in names) if names else None
                for names in (choice.positive, choice.negative)
            )
            predictor.set_reference(predictor.encode_reference(shown.image(), positive_hw, negative_hw))
        box = hand_drawn(target_hw, np.random.default_rng(zlib.crc32(sample.key.encode())))
        for name, mask_hw in first_masks(predictor, target_hw, box).items():
            ious[name].append(intersection_over_union(target_hw, mask_hw))
    return ious


def main() -> None:
    """Measure and print the result; see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=SetDescription.parse, action="append", required=True)
    parser.add_argument("--limit", type=int, default=30, help="parts of each set")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    network = load_network()
    predictor = RefCutPredictor(network, serving_settings(network.config))
    print("| set | reference | n | what | mean IoU | median |\n| --- | --- | ---: | --- | ---: | ---: |")
    for data in arguments.data:
        annotated_objects = [
            annotated_object
            for annotated_object in data.read()
            if is_development(annotated_object, DEVELOPMENT_SHARE)
        ]
        parts = [sample for sample in enumerate_samples(annotated_objects)[0] if sample.kind == "single"]
        samples = limit_samples(parts, arguments.limit)
        for referenced in (False, True):
            for what, ious in measure(predictor, annotated_objects, samples, referenced=referenced).items():
                values = f"{len(ious)} | {what} | {statistics.mean(ious):.3f} | {statistics.median(ious):.3f}"
                print(f"| {data.name} | {'right' if referenced else 'none'} | {values} |", flush=True)


if __name__ == "__main__":
    main()
