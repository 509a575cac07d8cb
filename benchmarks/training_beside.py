"""A fine-tuning as a training worker runs it: `python -m benchmarks.training_beside SNAPSHOT FOLDER`."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from model.checkpoints.version_folder import SHIPPED_DIR
from refcut_backend.training.process_priority import lower_priority

BEGINS_WITHIN_S = 300
FIRST_FILE = "plan.json"
"""Written when the first steps have been made."""


@contextmanager
def training_beside(snapshot: Path) -> Iterator[None]:
    """A fine-tuning is at work through the block, and killed then. Raises SystemExit when it is not."""
    with tempfile.TemporaryDirectory(prefix="refcut-training-") as folder:
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.training_beside", str(snapshot), folder],
            start_new_session=True,
            stdout=subprocess.DEVNULL,
        )
        try:
            _wait_for_steps(process, Path(folder))
            yield
            if process.poll() is not None:
                raise SystemExit("the training ended too early: give a larger snapshot")
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _wait_for_steps(process: subprocess.Popen[bytes], folder: Path) -> None:
    deadline = time.monotonic() + BEGINS_WITHIN_S
    while not list(folder.rglob(FIRST_FILE)):
        if process.poll() is not None or time.monotonic() > deadline:
            raise SystemExit("the training did not start; its output is above")
        time.sleep(0.5)


def main() -> None:
    """Run the training that the command line describes, as a training worker does."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("snapshot", type=Path)
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    threads = lower_priority(0)
    from model.cli.finetune import main as fine_tune

    where = [str(arguments.snapshot), "--parent", str(SHIPPED_DIR), "--out", str(arguments.folder)]
    fine_tune([*where, "--threads", str(threads)])


if __name__ == "__main__":
    main()
