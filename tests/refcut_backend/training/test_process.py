"""A training worker that has nothing to train costs little."""

from __future__ import annotations

import subprocess
import sys


def test_an_idle_training_worker_has_not_loaded_torch():
    script = (
        "import sys, refcut_backend.training.process, refcut_backend.training.worker; "
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
