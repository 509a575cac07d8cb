from __future__ import annotations

import json
import os
import subprocess
import sys

from refcut_backend.training.process_priority import AUTOGROUP, NICENESS, THREAD_VARIABLES
from tests.support.recorded import REPOSITORY

SCRIPT = """
import json, os, sys
from refcut_backend.training.process_priority import AUTOGROUP, THREAD_VARIABLES, lower_priority
threads = lower_priority(int(sys.argv[1]))
group = AUTOGROUP.read_text() if AUTOGROUP.exists() else ""
print(json.dumps([threads, os.nice(0), [os.environ[v] for v in THREAD_VARIABLES], group, "torch" in sys.modules]))
"""


def with_lower_priority(threads: int, *, own_session: bool) -> list:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(threads)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
        start_new_session=own_session,
    )
    return json.loads(done.stdout)


def test_a_training_process_is_nice_and_takes_the_threads_that_it_is_given():
    threads, niceness, variables, _, has_torch = with_lower_priority(3, own_session=True)
    assert (threads, niceness, variables) == (3, os.nice(0) + NICENESS, ["3"] * len(THREAD_VARIABLES))
    assert not has_torch
    assert with_lower_priority(0, own_session=True)[0] >= 1


def test_the_terminal_that_it_was_started_in_keeps_its_priority():
    before = AUTOGROUP.read_text() if AUTOGROUP.exists() else ""
    with_lower_priority(1, own_session=False)
    assert (AUTOGROUP.read_text() if AUTOGROUP.exists() else "") == before
