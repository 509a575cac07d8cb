"""`python -m model.cli.finetune SNAPSHOT --parent FOLDER --out RUN`: a version learns from a project's annotations.

Run again to go on after a kill. On several GPUs: `torchrun --nproc-per-node N -m model.cli.finetune ...`. Through
the loop of
`model.cli.train`; what is learned from is drawn by `model.finetuning.sampling`. Whether the outcome serves is for
`model.evaluation.compare`
and `model.evaluation.promotion` to say.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from model.cli.common import OneLineParser
from model.data.snapshot import Snapshot, read_snapshot
from model.errors import ModelError, TrainingError
from model.finetuning.config import FineTuneSettings, Progress, StopTraining
from model.finetuning.run import FineTuning
from model.training.distributed import ALONE, Processes

__all__ = ["FineTuneSettings", "Progress", "StopTraining", "fine_tune"]


def fine_tune(
    snapshot: Snapshot,
    parent_dir: Path,
    run_dir: Path,
    settings: FineTuneSettings | None = None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    processes: Processes = ALONE,
    origin_dir: Path | None = None,
) -> Path:
    """Trains a child of the version in `parent_dir`, or goes on where a run in `run_dir` was killed.

    origin_dir: the weights with which the outcome is averaged, the parent's by default. They are to be those that the
    parent comes from: with a share of a half no descendant gets further away from them than one training goes.
    on_progress is called often, and may raise StopTraining: the run is saved, and that error goes on to the caller.
    Returns the folder with base.safetensors and version.safetensors. Raises DataError when there is nothing to learn
    from, TrainingError when memory does not do or numbers are none, WeightsError for weights that cannot be used.
    """
    settings = settings or FineTuneSettings()
    run_dir.mkdir(parents=True, exist_ok=True)

    def run(accumulate: int) -> Path:
        return FineTuning(
            snapshot,
            parent_dir,
            run_dir,
            settings,
            on_progress,
            processes,
            accumulate=accumulate,
            origin_dir=origin_dir,
        ).run()

    try:
        return run(accumulate=1)
    except torch.OutOfMemoryError:
        torch.cuda.empty_cache()
    try:
        return run(accumulate=settings.groups)
    except torch.OutOfMemoryError as error:
        raise TrainingError(
            "the GPU has no memory for one group at a time either",
            hint="end what else uses it, or train at a smaller size_px",
        ) from error


def main(argv: Sequence[str] | None = None) -> None:
    """Exits with status 2 and one line on stderr when it cannot be done."""
    parser = OneLineParser(prog="python -m model.cli.finetune", description=__doc__)
    parser.add_argument("snapshot", type=Path)
    parser.add_argument("--parent", type=Path, required=True, help="folder of the version to go on from")
    parser.add_argument(
        "--origin",
        type=Path,
        help="folder of the weights with which the outcome is averaged (default: --parent)",
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    parser.add_argument(
        "--settings", default="{}", help="FineTuneSettings that differ from the default, JSON"
    )
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--afresh", action="store_true", help="forget what an earlier run left in --out")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(arguments.threads)
    processes = Processes.from_environment()
    if torch.cuda.is_available():
        torch.cuda.set_device(processes.local_rank)
    if arguments.afresh and processes.writes:
        shutil.rmtree(arguments.out, ignore_errors=True)

    def show(progress: Progress) -> None:
        if progress.stage != "training" and processes.writes:
            print(progress, flush=True)

    try:
        settings = FineTuneSettings.model_validate_json(arguments.settings)
        with processes:
            fine_tune(
                read_snapshot(arguments.snapshot),
                arguments.parent,
                arguments.out,
                settings,
                show,
                processes,
                arguments.origin,
            )
    except (ModelError, ValueError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
