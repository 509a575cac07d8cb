"""How far masks and expected IoUs of OpenVINO differ from those of torch in float32, click by click.

    python -m benchmarks.runtime_differences [--weights DIR] [--parts FILE --photographs DIR]

For each photograph, up to `--labels` parts that another photograph shows, too: that one is the reference. A robot clicks
three times on torch's masks, and each form of the network gets the same clicks, so differences add up over clicks as they
do for an annotator. The photographs of the demo are the default; any COCO-style part file will do.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks.report import machine, print_table, write_json
from model.checkpoints.version_folder import version_name
from model.checkpoints.weights import load_network
from model.cli.common import add_threads, add_weights
from model.data.annotated_objects import AnnotatedObject, read_annotated_objects
from model.evaluation.robot_annotator import Clicker
from model.masks import evenly_spaced, intersection_over_union
from model.predictor import RefCutPredictor
from model.predictor_config import serving_settings
from model.runtime.base import NetworkStages
from model.runtime.openvino import OpenVinoStages
from model.types import BoolMask, Click, MaskResult
from refcut_backend.playground.demo import PARTS_FILE, PHOTOGRAPHS

CLICKS = 3


@dataclass(frozen=True)
class Target:
    """A part to be clicked, and the photograph that is its reference."""

    shown: AnnotatedObject
    reference: AnnotatedObject
    part: str

    @property
    def mask_hw(self) -> BoolMask:
        """The part, bool (H, W)."""
        return self.shown.masks()[self.part]


def targets(annotated: Sequence[AnnotatedObject], per_photograph: int) -> Iterator[Target]:
    """Parts of each photograph; the next photograph with the same part is the reference."""
    for index, shown in enumerate(annotated):
        found = []
        for part in sorted(shown.part_rles):
            others = [*annotated[index + 1 :], *annotated[:index]]
            reference = next((other for other in others if part in other.part_rles), None)
            if reference is not None:
                found.append(Target(shown, reference, part))
        yield from evenly_spaced(found, per_photograph)


def answers(
    predictor: RefCutPredictor, target: Target, clicks: Sequence[Click] | None
) -> tuple[list[MaskResult], list[Click]]:
    """The result after each click, and the clicks; None lets a robot choose them."""
    predictor.set_image(target.shown.image())
    reference_hw = target.reference.masks()[target.part]
    predictor.set_reference(predictor.encode_reference(target.reference.image(), reference_hw, None))
    robot, results, given = Clicker(target.mask_hw), list[MaskResult](), list[Click]()
    for count in range(CLICKS):
        mask_hw = results[-1].mask_hw if results else np.zeros_like(target.mask_hw)
        given.append(robot.next_click(mask_hw) if clicks is None else clicks[count])
        results.append(predictor.predict(given))
    return results, given


def differences(expected: MaskResult, found: MaskResult, target_hw: BoolMask) -> dict[str, float]:
    """How one answer differs from torch's: pixels in percent of the photograph, IoU as it is."""
    pairs = list(zip(expected.candidates, found.candidates, strict=True))
    worth = [(one.expected_iou, other.expected_iou) for one, other in pairs]
    before, after = (intersection_over_union(target_hw, one.mask_hw) for one in (expected, found))
    return {
        "pixels": 100 * float((expected.mask_hw != found.mask_hw).mean()),
        "candidates": 100 * float(np.mean([(one.mask_hw != other.mask_hw).mean() for one, other in pairs])),
        "choice": float(expected.chosen != found.chosen),
        "expected IoU": float(
            np.mean([abs(a - b) for a, b in worth if a is not None and b is not None] or 0)
        ),
        "IoU": after - before,
    }


def main() -> None:
    """Measure and print the result; see the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_weights(parser)
    add_threads(parser)
    parser.add_argument("--parts", type=Path, default=PARTS_FILE, help="COCO-style part file")
    parser.add_argument("--photographs", type=Path, default=PHOTOGRAPHS, help="folder of its photographs")
    parser.add_argument("--limit", type=int, default=12, help="number of photographs, evenly spaced")
    parser.add_argument("--labels", type=int, default=2, help="parts per photograph")
    parser.add_argument("--cache", type=Path, help="folder for converted networks")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    network = load_network(arguments.weights)
    settings = serving_settings(network.config)
    size, cache = settings.network_px, arguments.cache
    forms: dict[str, NetworkStages] = {
        "OpenVINO, float32": OpenVinoStages(network, size, cache, bfloat16=False),
        "OpenVINO, as served": OpenVinoStages(network, size, cache),
    }
    annotated = read_annotated_objects(arguments.parts, arguments.photographs, grouping="object")
    chosen = list(targets(evenly_spaced(annotated, arguments.limit), arguments.labels))
    measured: dict[str, dict[int, list[dict[str, float]]]] = {form: defaultdict(list) for form in forms}
    for target in chosen:
        expected, clicks = answers(RefCutPredictor(network, settings), target, None)
        for form, stages in forms.items():
            found, _ = answers(RefCutPredictor(stages, settings), target, clicks)
            for count, pair in enumerate(zip(expected, found, strict=True), start=1):
                measured[form][count].append(differences(*pair, target.mask_hw))
    print(f"{machine()}; {version_name(arguments.weights)}, {len(chosen)} parts\n")
    print_table(
        [
            "form",
            "click",
            "pixels that differ",
            "largest",
            "of candidates",
            "other choice",
            "expected IoU",
            "IoU",
        ],
        [_row(form, count, rows) for form, clicks in measured.items() for count, rows in clicks.items()],
    )
    write_json(arguments.json, {"differences": measured})


def _row(form: str, count: int, rows: Sequence[dict[str, float]]) -> list[str]:
    def values(name: str) -> list[float]:
        return [row[name] for row in rows]

    error = np.std(values("IoU"), ddof=1) / len(rows) ** 0.5
    return [
        form,
        str(count),
        f"{np.mean(values('pixels')):.2f} %",
        f"{max(values('pixels')):.2f} %",
        f"{np.mean(values('candidates')):.2f} %",
        f"{int(sum(values('choice')))} of {len(rows)}",
        f"{np.mean(values('expected IoU')):.3f}",
        f"{np.mean(values('IoU')):+.3f} +- {error:.3f}",
    ]


if __name__ == "__main__":
    main()
