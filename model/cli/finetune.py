"""Fine-tune a version on a project's annotations: `python -m model finetune SNAPSHOT --parent FOLDER --out RUN`.

Run the same command again to resume a run that was killed. On several GPUs: `torchrun --nproc-per-node N -m model
finetune ...`. `python -m model compare` then shows whether the result is better than its parent.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import torch

from model.cli.common import add_threads, command_parser
from model.data.snapshot import read_snapshot
from model.errors import ModelError
from model.finetuning.config import FineTuneSettings, Progress
from model.finetuning.run import fine_tune
from model.training.distributed import Processes


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command. Exits with status 2 and one line on stderr if the fine-tuning is impossible."""
    parser = command_parser("finetune", __doc__)
    parser.add_argument("snapshot", type=Path)
    parser.add_argument("--parent", type=Path, required=True, help="folder of the version to begin with")
    parser.add_argument(
        "--anchor",
        "--origin",
        type=Path,
        dest="anchor",
        help="folder of the weights that the result is averaged with (default: --parent)",
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    parser.add_argument(
        "--settings", default="{}", help="FineTuneSettings that differ from the default, JSON"
    )
    add_threads(parser)
    parser.add_argument("--afresh", action="store_true", help="delete what an earlier run left in --out")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(arguments.threads)
    processes = Processes.from_environment()
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
                arguments.anchor,
            )
    except (ModelError, ValueError) as error:
        parser.error(str(error))
