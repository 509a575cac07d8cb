"""The first clicks that a visitor of the demo makes: a robot clicks in the middle of every labelled part.

    python -m benchmarks.demo_clicks [--weights DIR]

For each label of the demo projects (`refcut demo`), the label's reference on the first photograph, and one click on every
other photograph that has the label, 44 in all. The network is used as it is served. The photographs are few: the counts
are for finding bad masks, not for quoting.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.report import machine, print_table, write_json
from model.checkpoints.version_folder import version_name
from model.cli.common import add_threads, add_weights
from model.cli.evaluate import PredictorFactory
from model.data.annotated_objects import read_annotated_objects
from model.images import read_image
from model.masks import deepest_point, intersection_over_union, union
from model.predictor import RefCutPredictor
from model.types import BoolMask, Click
from refcut_backend.cli.demo import DEMO_PROJECTS, DemoProject
from refcut_backend.playground.demo import PARTS_FILE, PHOTOGRAPHS

GOOD_IOU, BAD_IOU = 0.75, 0.5


@dataclass(frozen=True)
class DemoClick:
    """One first click.

    Attributes:
        photograph: Name of the photograph without suffix.
        label: The label.
        iou: IoU of the mask with the label's parts.
        expected_iou: IoU that the network expected; None if it expects none.
    """

    photograph: str
    label: str
    iou: float
    expected_iou: float | None


def demo_clicks(predictor: RefCutPredictor) -> Iterator[DemoClick]:
    """Click on every label of every demo photograph but those with the references."""
    parts_of = {
        one.image_path.stem: one.masks()
        for one in read_annotated_objects(PARTS_FILE, PHOTOGRAPHS, grouping="object")
    }
    for project in DEMO_PROJECTS:
        reference_path, *paths = project.photograph_paths()
        shown = _targets(project, parts_of[reference_path.stem])
        references = {
            label: predictor.encode_reference(
                read_image(reference_path), mask_hw, union(m for name, m in shown.items() if name != label)
            )
            for label, mask_hw in shown.items()
        }
        for path in paths:
            predictor.set_image(read_image(path))
            for label, target_hw in _targets(project, parts_of[path.stem]).items():
                predictor.set_reference(references[label])
                row, col = deepest_point(target_hw)
                result = predictor.predict([Click(float(row), float(col))])
                iou = intersection_over_union(target_hw, result.mask_hw)
                yield DemoClick(path.stem, label, iou, result.expected_iou)


def _targets(project: DemoProject, masks: dict[str, BoolMask]) -> dict[str, BoolMask]:
    """Masks of the project's labels on a photograph, by label; labels that it does not show are left out."""
    return {
        label: union(masks[part] for part in parts if part in masks)
        for label, parts in project.label_parts.items()
        if any(part in masks for part in parts)
    }


def main() -> None:
    """Measure and print the result; see the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_weights(parser)
    add_threads(parser)
    parser.add_argument("--runtime", choices=("auto", "openvino", "torch"), default="auto")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    predictor = PredictorFactory(arguments.weights, {}, arguments.threads, arguments.runtime)()
    clicks = sorted(demo_clicks(predictor), key=lambda click: click.iou)
    good, bad = sum(c.iou >= GOOD_IOU for c in clicks), sum(c.iou < BAD_IOU for c in clicks)
    print(f"{machine()}; {version_name(arguments.weights)}, runtime {arguments.runtime}\n")
    print(f"{len(clicks)} first clicks: {good} with an IoU of {GOOD_IOU} or more, {bad} below {BAD_IOU}\n")
    print_table(
        ["photograph", "label", "IoU", "expected"],
        [
            [
                c.photograph,
                c.label,
                f"{c.iou:.2f}",
                "-" if c.expected_iou is None else f"{c.expected_iou:.2f}",
            ]
            for c in clicks
        ],
    )
    write_json(arguments.json, {"good": good, "bad": bad, "clicks": [vars(click) for click in clicks]})


if __name__ == "__main__":
    main()
