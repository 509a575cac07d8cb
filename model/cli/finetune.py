"""Train a version on a snapshot of a project's annotations.

The command resumes when it is run again with the same --out. The result is compared with the serving version by
`python -m model compare`.

    python -m model finetune SNAPSHOT --parent WEIGHTS --out RUN
    torchrun --nproc-per-node 4 -m model finetune SNAPSHOT --parent WEIGHTS --out RUN     # on several GPUs
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
    """Run the command. Input that cannot be used ends in one line on stderr and exit status 2."""
    parser = command_parser("finetune", __doc__)
    parser.add_argument("snapshot", type=Path, help="folder of the snapshot")
    parser.add_argument(
        "--parent",
        type=Path,
        required=True,
        help="weights to begin with: folder of a version or of a training, or file of `python -m model convert`",
    )
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
