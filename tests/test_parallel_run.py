"""Tests that share something costly run in one process, the longest first."""

from __future__ import annotations

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from tests.support.parallel_run import LONGEST_FIRST, RUNNING_BACKEND, GroupsStayTogether, group, place
from tests.support.recorded import REPOSITORY


@pytest.mark.parametrize("name", [*RUNNING_BACKEND, *LONGEST_FIRST])
def test_every_file_and_folder_that_is_named_exists(name: str):
    assert (REPOSITORY / "tests" / name).exists()


def test_a_file_is_a_group_and_files_that_share_something_are_one():
    assert group("tests/model/test_masks.py::test_a") == group("tests/model/test_masks.py::test_b[x::y]")
    assert group("tests/model/test_masks.py::test_a") != group("tests/model/test_images.py::test_a")
    assert len({group(f"tests/{path}::test_a") for path in RUNNING_BACKEND}) == 1
    assert group("tests/end_to_end/test_demo.py::test_a") == group(
        "tests/end_to_end/test_annotating.py::test_a"
    )


def test_the_tests_of_a_group_are_handed_out_at_one_place():
    assert len({place(f"tests/{path}::test_a") for path in RUNNING_BACKEND}) == 1
    assert place("tests/end_to_end/test_demo.py::test_a") == 0
    assert place("tests/test_docs.py::test_a") == len(LONGEST_FIRST)


def test_a_run_that_splits_a_group_fails_and_says_which():
    check = GroupsStayTogether()
    for path, process in (("end_to_end/test_demo.py", "gw0"), ("model/test_masks.py", "gw1")):
        check.pytest_runtest_logreport(SimpleNamespace(nodeid=f"tests/{path}::test_a", worker_id=process))
    session = SimpleNamespace(exitstatus=pytest.ExitCode.OK)
    check.pytest_sessionfinish(session)
    assert (check.split(), session.exitstatus) == ([], pytest.ExitCode.OK)

    check.pytest_runtest_logreport(
        SimpleNamespace(nodeid="tests/end_to_end/test_first_light.py::test_b", worker_id="gw1")
    )
    check.pytest_sessionfinish(session)
    assert (check.split(), session.exitstatus) == (["end_to_end"], pytest.ExitCode.TESTS_FAILED)


CONFTEST = """
from tests.support.parallel_run import DeadProcesses, GroupScheduling

def pytest_configure(config):
    if config.getoption("numprocesses", None):
        config.pluginmanager.register(DeadProcesses(config))

def pytest_xdist_make_scheduler(config, log):
    return GroupScheduling(config, log)
"""
DEADLY = """
import os, signal

def test_before():
    pass

def test_that_ends_its_process():
    os.kill(os.getpid(), signal.SIGKILL)

def test_after():
    pass
"""


def test_a_process_that_dies_is_named_with_its_test_which_is_not_run_again(tmp_path):
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_deadly.py").write_text(DEADLY)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-n", "1", "-p", "no:cacheprovider", str(tmp_path)],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == pytest.ExitCode.TESTS_FAILED, done.stdout
    assert "gw0 ended with status -9" in done.stdout
    assert "a process died during test_deadly.py::test_that_ends_its_process" in done.stdout
    assert "1 failed, 2 passed" in done.stdout
    assert done.stdout.count("ended with status") == 1
