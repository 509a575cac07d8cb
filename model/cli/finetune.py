"""`python -m model finetune SNAPSHOT --parent FOLDER --out RUN`: a version learns from a project's annotations.

Run again to go on after a kill. On several GPUs: `torchrun --nproc-per-node N -m model finetune ...`. Through
the loop of
`model.cli.train`; what is learned from is drawn by `model.finetuning.sampling`. Whether the outcome serves is for
`model.evaluation.compare`
and `model.evaluation.promotion` to say.
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
    """Exits with status 2 and one line on stderr when it cannot be done."""
    parser = command_parser("finetune", __doc__)
    parser.add_argument("snapshot", type=Path)
    parser.add_argument("--parent", type=Path, required=True, help="folder of the version to go on from")
    parser.add_argument(
        "--anchor",
        "--origin",
        type=Path,
        help="folder of the weights that the result is averaged with (default: --parent)",
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    parser.add_argument(
        "--settings", default="{}", help="FineTuneSettings that differ from the default, JSON"
    )
    add_threads(parser)
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
                arguments.anchor,
            )
    except (ModelError, ValueError) as error:
        parser.error(str(error))
