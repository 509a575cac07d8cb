"""What a fine-tuning gains on its project and forgets elsewhere.

    python -m benchmarks.forgetting --team DIR --data DIR --out DIR

A child of the weights that ship learns from 50 photographs of a team's project (`benchmarks.face_parts` and `fish_parts`
make such a DIR), without Label Studio. Before and after: clicks per mask and first-click IoU on fresh photographs of the
same kind of thing, first-click IoU with the right reference on general sets (`car_parts` and `ccp` below --data). In
brackets: the change against the weights that ship, mask by mask, with one standard error, clustered by photograph.
`--settings` changes fine-tuning's defaults, so that choices can be compared; these are made with `--development`.
Figures of weights that were measured before are read from --out.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import torch

from benchmarks.report import print_table, write_json
from benchmarks.team_snapshot import photographs, team_snapshot
from benchmarks.version_figures import Measure, general_sets
from model.checkpoints.anchor import average
from model.checkpoints.version_folder import SHIPPED_DIR
from model.data.snapshot import Snapshot
from model.evaluation.compare import CompareSettings
from model.evaluation.samples import Sample
from model.evaluation.standard_errors import mean_of
from model.finetuning.config import FineTuneSettings
from model.finetuning.run import fine_tune

Figure = dict[tuple[str, str], float]
"""A value of each mask, by photograph and mask."""


def figures_of(measure: Measure, weights: Path, snapshot: Snapshot) -> dict[str, Figure]:
    """Clicks per mask and first-click IoU of the project, then first-click IoU of each general set."""
    masks = measure.project_summary(weights, snapshot)["by_mask"]
    found: dict[str, Figure] = {
        "NoC@85": {(image, label): clicks for image, label, clicks, _ in masks},
        "first click": {(image, label): iou for image, label, _, iou in masks},
    }
    for name, ious in measure.general(weights).items():
        found[name] = {(str(Sample.from_key(key).annotated_object), key): iou for key, iou in ious.items()}
    return found


def cell(figure: Figure, shipped: Figure, digits: int) -> str:
    """The mean, and the change against the weights that ship with one standard error."""
    mean = f"{statistics.mean(figure.values()):.{digits}f}"
    if figure == shipped:
        return f"{mean} (n = {len(figure)})"
    change = mean_of(
        [figure[key] - shipped[key] for key in shipped], [photograph for photograph, _ in shipped]
    )
    return f"{mean} ({change.value:+.{digits}f} ± {change.error:.{digits}f})"


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
    parser.add_argument("--team", type=Path, required=True, help="folder with team.json and fresh.json")
    parser.add_argument("--data", type=Path, required=True, help="folder of the general sets")
    parser.add_argument("--out", type=Path, required=True, help="folder of runs and figures")
    parser.add_argument("--images", type=int, default=50, help="photographs to learn from")
    parser.add_argument(
        "--settings", default="{}", help="FineTuneSettings that differ from the default, JSON"
    )
    parser.add_argument("--limit", type=int, default=36, help="samples of each kind in a general set")
    parser.add_argument(
        "--development",
        type=float,
        metavar="SHARE",
        help="general sets: this share of their train splits, which training leaves out (0.05), not their val splits",
    )
    parser.add_argument("--masks", type=int, default=100, help="masks of the fresh photographs")
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
        general_sets(arguments.data, "val" if arguments.development is None else "train"),
        arguments.limit,
        arguments.development,
        CompareSettings(max_masks=arguments.masks, runtime_cache_dir=arguments.out / "runtime"),
    )
    team, fresh = photographs(arguments.team, "team"), photographs(arguments.team, "fresh")
    snapshot = team_snapshot(
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
    rows, shipped = [], figures_of(measure, SHIPPED_DIR, snapshot)
    for name, weights in shares:
        found = figures_of(measure, weights, snapshot)
        digits = {figure: 2 if figure == "NoC@85" else 3 for figure in found}
        rows.append([name, *(cell(found[figure], shipped[figure], digits[figure]) for figure in found)])
    print(f"{arguments.settings}: {steps} steps planned, {minutes:.1f} minutes, in {run_dir}")
    print_table(["weights", *shipped], rows)
    write_json(arguments.json, {"settings": arguments.settings, "minutes": minutes, "rows": rows})


if __name__ == "__main__":
    main()
