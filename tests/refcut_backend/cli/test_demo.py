"""`refcut demo` as a process: whatever ends it, nothing is left. Label Studio is a program that never answers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import psutil
import pytest

from tests.support.recorded import REPOSITORY
from tests.support.running_backend import free_port
from tests.support.trained_folders import trained_folder
from tests.support.worker_farm import GENEROUS_S, wait_for


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGKILL])
def test_whatever_ends_the_demo_nothing_is_left_of_it(tmp_path, signum):
    label_studio = tmp_path / "label-studio"
    label_studio.write_text("#!/bin/sh\nexec sleep 600\n")
    label_studio.chmod(0o700)
    environment = os.environ | {
        "REFCUT_PORT": str(free_port()),
        "REFCUT_MODEL_DIR": str(trained_folder(tmp_path / "tiny")),
        "REFCUT_RUNTIME": "torch",
    }
    environment.pop("REFCUT_REDIS_URL", None)
    command = [sys.executable, "-m", "refcut_backend", "demo", "--folder", str(tmp_path / "demo")]
    command += ["--label-studio", str(label_studio), "--label-studio-port", str(free_port())]
    with (tmp_path / "log").open("w") as log:
        demo = subprocess.Popen(command, env=environment, cwd=REPOSITORY, stdout=log, stderr=log)
    try:
        wait_for(lambda: "Starting Label Studio" in (tmp_path / "log").read_text(), "all is started", 240)
        wait_for(lambda: len(children_of(demo.pid)) == 6, "run, Redis, two workers, web server, Label Studio")
        assert (tmp_path / "demo").stat().st_mode & 0o077 == 0
        children = children_of(demo.pid)
        demo.send_signal(signum)
        demo.wait(2 * GENEROUS_S)
        wait_for(lambda: not any(is_alive(child) for child in children), "nothing is left")
    finally:
        demo.kill()
        demo.wait()


def children_of(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children(recursive=True)


def is_alive(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
