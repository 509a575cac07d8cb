"""A fine-tuning in a process that has a handler of SIGCHLD of its own, which must be there again afterwards.

python -m tests.support.own_child_handler PARENT FOLDER STEP      stops the run at STEP; 0: lets it end
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path

from torch.utils.data._utils import signal_handling

from model.finetuning.config import Progress, StopTraining
from model.finetuning.run import fine_tune
from tests.support.synthetic_snapshot import QUICK, fish_snapshot


def own(*_: object) -> None:
    """What the process had before."""


def main() -> None:
    """Fail if the handler is another one after the run, or if torch has installed none."""
    parent, folder, stop_at = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    settings = QUICK.model_copy(update={"loader_workers": 1})

    def stop(progress: Progress) -> None:
        if 0 < stop_at == progress.step:
            raise StopTraining

    signal.signal(signal.SIGCHLD, own)
    was_stopped = False
    try:
        fine_tune(fish_snapshot(folder / "snapshot"), parent, folder / "run", settings, stop)
    except StopTraining:
        was_stopped = True
    assert was_stopped == (stop_at > 0)
    assert signal.getsignal(signal.SIGCHLD) is own
    assert signal_handling._SIGCHLD_handler_set, "torch installed none: there was nothing to test"


if __name__ == "__main__":
    main()
