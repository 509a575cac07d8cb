"""What a fine-tuning gains on its project and forgets elsewhere.

    python -m benchmarks.forgetting --faces DIR --data DIR --out DIR

A child of the weights that ship learns from 50 photographs of faces (`benchmarks.face_parts` makes DIR), without Label
Studio. Before and after: clicks per mask and first-click IoU on 20 fresh faces, first-click IoU with the right
reference on general sets (`car_parts` and `ccp` below --data). `--settings` changes fine-tuning's defaults, so that
choices can be compared; figures of weights that were measured before are read from --out.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch

from benchmarks.face_snapshot import face_snapshot, faces
from benchmarks.report import print_table, write_json
from benchmarks.version_figures import Measure, general_sets
from model.checkpoints.anchor import average
from model.checkpoints.version_folder import SHIPPED_DIR
from model.evaluation.compare import CompareSettings
from model.finetuning.config import FineTuneSettings
from model.finetuning.run import fine_tune


def blended(run_dir: Path, share: float) -> Path:
    """A folder with the average of a run's weights and the shipped ones."""
    folder = run_dir / f"share-{share}"
    average(run_dir, SHIPPED_DIR, share, folder)
    return folder


def main() -> None:
    """Measure and print the result; see the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--faces", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True, help="folder of the general sets")
    parser.add_argument("--out", type=Path, required=True, help="folder of runs and figures")
    parser.add_argument("--images", type=int, default=50, help="photographs to learn from")
    parser.add_argument(
        "--settings", default="{}", help="FineTuneSettings that differ from the default, JSON"
    )
    parser.add_argument("--limit", type=int, default=24, help="samples of each kind in a general set")
    parser.add_argument("--masks", type=int, default=100, help="masks of the fresh faces")
    parser.add_argument(
        "--shares",
        type=float,
        nargs="*",
        default=[],
        help="measure averages too: these shares of the shipped weights",
    )
    parser.add_argument("--run", type=Path, help="folder of an earlier run to measure, instead of a new one")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    settings = FineTuneSettings.model_validate_json(arguments.settings)
    measure = Measure(
        arguments.out / "figures",
        general_sets(arguments.data),
        arguments.limit,
        CompareSettings(max_masks=arguments.masks, runtime_cache_dir=arguments.out / "runtime"),
    )
    team, fresh = faces(arguments.faces, "team"), faces(arguments.faces, "fresh")
    snapshot = face_snapshot(
        arguments.out / f"snapshot-{arguments.images}", team[: arguments.images], fresh, team[0]
    )
    run_dir = arguments.run or arguments.out / f"run-{time.strftime('%H%M%S')}"
    started = time.monotonic()
    if arguments.run is None:
        fine_tune(snapshot, SHIPPED_DIR, run_dir, settings)
    minutes = (time.monotonic() - started) / 60
    steps = json.loads((run_dir / "plan.json").read_text())["steps"]
    shares = [("shipped", SHIPPED_DIR), ("fine-tuned", run_dir)]
    shares += [(f"of which {share} shipped", blended(run_dir, share)) for share in arguments.shares]
    rows = []
    for name, weights in shares:
        project = measure.project_summary(weights, snapshot)
        general = measure.general(weights)
        found = [f"{project['noc85']:.2f}", f"{project['first_click_iou']:.3f}"]
        rows.append([name, *found, *(f"{iou:.3f}" for iou in general.values())])
    print(f"{arguments.settings}: {steps} steps planned, {minutes:.1f} minutes, in {run_dir}")
    print_table(["weights", "NoC@85", "first click", *general], rows)
    write_json(arguments.json, {"settings": arguments.settings, "minutes": minutes, "rows": rows})


if __name__ == "__main__":
    main()
