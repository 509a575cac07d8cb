"""`refcut run` with workers around a fake model: `python -m tests.support.fake_run`."""

from __future__ import annotations

import sys

from refcut_backend.cli.run import Supervisor
from refcut_backend.errors import RefCutError
from refcut_backend.logs import set_up_logging
from refcut_backend.settings import read_settings

if __name__ == "__main__":
    set_up_logging()
    try:
        sys.exit(Supervisor(read_settings(), (sys.executable, "-m", "tests.support.fake_worker")).run())
    except RefCutError as error:
        sys.exit(f"refcut: {error}")
