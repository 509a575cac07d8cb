"""`make benchmarks`: all scripts in order, bounded, with ratios against a baseline."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import run_all
from benchmarks.run_all import BENCHMARKS, HELPERS, NEED_MORE, Benchmark, Outcome, Result
from tests.support.recorded import REPOSITORY
from tests.support.worker_farm import wait_for

QUICK = """
print("a machine")
print("| | ms | of |")
print("| --- | ---: | --- |")
print("| first | %s | 1,000 |")
print("| first | 3 | - |")
"""
FAILING = "print('| | ms |'); print('| --- | ---: |'); raise SystemExit('nothing to measure')"
HANGING = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
open("child", "w").write(str(child.pid))
time.sleep(600)
"""


def tree_of(folder: Path, **scripts: str) -> Path:
    """A working tree with scripts in `benchmarks/`."""
    (folder / "benchmarks").mkdir(parents=True)
    for name, code in scripts.items():
        (folder / "benchmarks" / f"{name}.py").write_text(code)
    return folder


def test_every_script_is_run_or_there_is_a_reason_why_not() -> None:
    scripts = {
        path.stem
        for path in (REPOSITORY / "benchmarks").glob("*.py")
        if 'if __name__ == "__main__"' in path.read_text()
    }
    run = [benchmark.name for benchmark in BENCHMARKS]
    assert len(run) == len(set(run))
    assert not set(run) & (NEED_MORE | HELPERS)
    assert scripts == set(run) | NEED_MORE | HELPERS


def test_numbers_are_read_from_tables_and_nothing_else_is() -> None:
    text = "| 9 |\n\nload 3\n| | ms | MB |\n| --- | ---: | ---: |\n| a | 1,200 | - |\n| a | 2.5 | x |\n"
    assert run_all.numbers(text) == {(2, "a", 0, "ms"): 1200.0, (2, "a", 1, "ms"): 2.5}


def test_both_sides_run_by_turns_and_the_file_has_the_ratio_of_their_medians(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    here = tree_of(tmp_path / "here", quick=QUICK % "5", other=QUICK % "7")
    baseline = tree_of(tmp_path / "baseline", quick=QUICK % "10")
    monkeypatch.setattr(run_all, "REPOSITORY", here)
    out = tmp_path / "out" / "figures.md"
    benchmarks = [Benchmark("quick", 60, compared=True), Benchmark("other", 60)]
    results = run_all.run_all(benchmarks, baseline, 2, out, ["a head"])
    assert not any(result.problems for result in results)
    sides = [line.split(", ")[:2] for line in capsys.readouterr().out.splitlines() if "run" in line]
    assert sides == [*(["quick", side] for side in ("baseline", "here") * 2), ["other", "here"]]
    text = out.read_text()
    assert "| first, ms | 10 | 5 | 0.50 |" in text
    assert "| first, of | 1000 | 1000 | 1.00 |" in text
    assert "a head" in text
    assert "Nothing failed." in text


def test_a_benchmark_that_fails_is_named_and_the_next_one_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_all, "REPOSITORY", tree_of(tmp_path / "here", bad=FAILING, quick=QUICK % "5"))
    out = tmp_path / "figures.md"
    benchmarks = [Benchmark("bad", 60), Benchmark("missing", 60), Benchmark("quick", 60)]
    results = run_all.run_all(benchmarks, None, 1, out, [])
    assert [bool(result.problems) for result in results] == [True, True, False]
    text = out.read_text()
    assert "Failed: bad, missing." in text
    assert "nothing to measure" in text
    assert "| first | 5 | 1,000 |" in text


def test_a_benchmark_that_takes_too_long_is_stopped_with_all_that_it_has_started(tmp_path: Path) -> None:
    tree = tree_of(tmp_path / "tree", slow=HANGING)
    outcome = run_all.run(Benchmark("slow", 5), tree)
    assert "longer than 5 s" in outcome.problem
    wait_until_ended(int((tree / "child").read_text()))


def test_a_run_that_is_terminated_leaves_no_process_behind(tmp_path: Path) -> None:
    tree = tree_of(tmp_path / "tree", slow=HANGING)
    code = (
        "import sys; from pathlib import Path; from benchmarks import run_all; run_all.end_at_sigterm();"
        "run_all.run(run_all.Benchmark('slow', 600), Path(sys.argv[1]))"
    )
    runner = subprocess.Popen([sys.executable, "-c", code, str(tree)], cwd=REPOSITORY)
    wait_for(lambda: (tree / "child").exists() and (tree / "child").read_text(), "the benchmark runs")
    runner.send_signal(signal.SIGTERM)
    assert runner.wait(60) == 128 + signal.SIGTERM
    wait_until_ended(int((tree / "child").read_text()))


def wait_until_ended(process: int) -> None:
    """A killed process takes a moment to end on a busy machine."""
    state = Path(f"/proc/{process}/stat")

    def has_ended() -> bool:
        try:
            return state.read_text().rpartition(")")[2].split()[0] == "Z"
        except (FileNotFoundError, ProcessLookupError):
            return True

    wait_for(has_ended, "the child was killed")


def test_no_setting_of_the_caller_reaches_a_benchmark(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REFCUT_WORKERS", "7")
    tree = tree_of(tmp_path / "tree", shows="import os; print([n for n in os.environ if 'REFCUT' in n])")
    assert run_all.run(Benchmark("shows", 60), tree).output == "[]\n"


def test_a_baseline_that_fails_leaves_the_figures_without_a_ratio() -> None:
    good, bad = (
        Outcome("| | ms |\n| --- | --- |\n| a | 1 |\n", "", 1.0, 0.0),
        Outcome("", "no module", 1.0, 0.0),
    )
    result = Result(Benchmark("quick", 1, compared=True), [good], [bad])
    text = run_all.report([result], [])
    assert "on the baseline: no module" in text
    assert "| a | 1 |" in text
    assert "ratio" not in text


def test_the_baseline_is_its_commit_with_todays_scripts_and_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def git(*arguments: str) -> None:
        identity = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"}
        who = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
        subprocess.run(
            ["git", *who, *arguments],
            cwd=repository,
            check=True,
            env=os.environ | identity,
            capture_output=True,
        )

    repository = tree_of(tmp_path / "repository", old="1")
    (repository / "benchmarks" / "README.md").write_text("figures")
    (repository / "code.py").write_text("before")
    git("init", "--quiet")
    git("add", ".")
    git("commit", "--quiet", "-m", "before")
    (repository / "code.py").write_text("after")
    git("commit", "--quiet", "-a", "-m", "after")
    (repository / "benchmarks" / "new.py").write_text("2")
    monkeypatch.setattr(run_all, "REPOSITORY", repository)
    with run_all.baseline_tree(run_all.default_baseline()) as tree:
        assert (tree / "code.py").read_text() == "before"
        assert (tree / "benchmarks" / "new.py").exists()
    assert not tree.exists()
    left = subprocess.run(
        ["git", "worktree", "list"], cwd=repository, capture_output=True, text=True, check=True
    )
    assert len(left.stdout.splitlines()) == 1
