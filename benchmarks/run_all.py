"""All benchmarks that need no external data, in order: `make benchmarks`, or `python -m benchmarks.run_all`.

    python -m benchmarks.run_all --only click_latency brush_rle --baseline v1.0 --rounds 3 --out figures.md

A benchmark of speed runs on two commits by turns (A B A B): on a baseline, checked out beside this tree with the scripts
of this tree, and here. What changes between the runs, such as the machine's temperature or other work on it, then meets
both. The ratio of the medians is given for every number of its tables. The others run once, here.

Each benchmark has a time limit. One that fails, or takes longer, is named, and the next one runs. The file is written
again after each, so that an early end (Ctrl-C) loses nothing. The exit status is 1 if anything failed.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
DEFAULT_OUT = REPOSITORY / "build" / "benchmarks.md"
QUIET_LOAD = 0.5
"""Load average per core above which a machine is not quiet."""
ERROR_LINES = 15
STOP_S = 10.0


@dataclass(frozen=True)
class Benchmark:
    """A script of this folder.

    Attributes:
        name: Of its module.
        limit_s: Longest time of one run in seconds.
        compared: Whether it measures speed, so that it also runs on the baseline.
        arguments: Of the command line.
    """

    name: str
    limit_s: float
    compared: bool = False
    arguments: tuple[str, ...] = ()


BENCHMARKS = (
    Benchmark("brush_rle", 600, compared=True),
    Benchmark("request_overhead", 600, compared=True),
    Benchmark("body_with_masks", 600, compared=True),
    Benchmark("label_studio_waits", 600, compared=True),
    Benchmark("click_latency", 1200, compared=True),
    Benchmark("preload_task", 600, compared=True),
    Benchmark("click_throughput", 600, compared=True),
    Benchmark("many_workers", 900, compared=True),
    Benchmark("project_versions", 1800, compared=True),
    Benchmark("large_project", 3600, compared=True, arguments=("--repeats", "3")),
    Benchmark("demo_clicks", 1200),
    Benchmark("runtime_differences", 1800),
    Benchmark("simpleclick_speed", 1800),
    Benchmark("switch_version", 1200),
    Benchmark("click_load", 600),
    Benchmark("overload", 1200),
    Benchmark("worker_recovery", 1200),
    Benchmark("fuzz_requests", 1800),
    Benchmark("cache_soak", 3600),
    Benchmark("soak", 7200),
    Benchmark("random_kills", 3600),
    Benchmark("kill_runs", 7200),
)
NEED_MORE = frozenset(
    {
        "box_prompts",
        "clicks_while_training",
        "demo_start",
        "face_parts",
        "fish_parts",
        "forgetting",
        "kind_sets",
        "kinds_by_likeness",
        "many_machines",
        "part_sets",
        "parts_by_likeness",
        "prelabel_score",
        "simulated_team",
        "table2",
        "touching_pairs",
    }
)
"""Scripts that need photographs which are not in this repository, an installed Label Studio, or the rights of root."""
HELPERS = frozenset(
    {"capacity_model", "eager_run", "instant_server", "run_all", "training_beside", "worker_without_network"}
)
"""Scripts that others start."""

Cell = tuple[int, str, int, str]
"""Where a number stands: number of the table, first cell of the row, how often it came before, name of the column."""


@dataclass(frozen=True)
class Outcome:
    """What one run came to.

    Attributes:
        output: What it printed.
        problem: Why it failed; empty if it did not.
        seconds: How long it took.
        load: Load average before it.
    """

    output: str
    problem: str
    seconds: float
    load: float


@dataclass
class Result:
    """The runs of a benchmark: here, and on the baseline."""

    benchmark: Benchmark
    here: list[Outcome] = field(default_factory=list)
    baseline: list[Outcome] = field(default_factory=list)

    @property
    def problems(self) -> list[str]:
        """Every failure, each once."""
        named = [f"here: {one.problem}" for one in self.here if one.problem]
        named += [f"on the baseline: {one.problem}" for one in self.baseline if one.problem]
        return list(dict.fromkeys(named))


def run(benchmark: Benchmark, tree: Path) -> Outcome:
    """Run a benchmark in a working tree. At its limit it is stopped with everything that it has started.

    Args:
        benchmark: The script.
        tree: Folder with `benchmarks/`, `model/` and `refcut_backend/`.
    """
    began, load = time.monotonic(), os.getloadavg()[0]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("REFCUT_")}
    with tempfile.TemporaryFile("w+") as printed, tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", f"benchmarks.{benchmark.name}", *benchmark.arguments],
            cwd=tree,
            env=environment | {"PYTHONPATH": str(tree)},
            stdin=subprocess.DEVNULL,
            stdout=printed,
            stderr=errors,
            start_new_session=True,
        )
        problem = ""
        try:
            if process.wait(benchmark.limit_s):
                problem = f"it ended with status {process.returncode}"
        except subprocess.TimeoutExpired:
            problem = f"it took longer than {benchmark.limit_s:g} s"
        finally:
            _stop(process)
        printed.seek(0)
        errors.seek(0)
        output = printed.read()
        if problem:
            last = errors.read().strip().splitlines()[-ERROR_LINES:]
            problem = "\n".join([problem, *last])
    return Outcome(output, problem, time.monotonic() - began, load)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Ends a process and all of its session that is still there; at first politely."""
    with suppress(ProcessLookupError):
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                process.wait(STOP_S)
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@contextmanager
def baseline_tree(commit: str) -> Iterator[Path]:
    """A working tree of a commit, with the benchmarks of this tree, that is removed afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="refcut-baseline-"))
    tree = folder / "tree"
    _git("worktree", "add", "--detach", "--quiet", str(tree), commit)
    try:
        shutil.rmtree(tree / "benchmarks", ignore_errors=True)
        shutil.copytree(
            REPOSITORY / "benchmarks", tree / "benchmarks", ignore=shutil.ignore_patterns("__pycache__")
        )
        yield tree
    finally:
        _git("worktree", "remove", "--force", str(tree))
        shutil.rmtree(folder, ignore_errors=True)


def default_baseline() -> str:
    """The commit that last changed `benchmarks/README.md`: the one whose figures stand there."""
    return _git("log", "-1", "--format=%H", "--", "benchmarks/README.md")


def _git(*arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=300
    )
    if done.returncode:
        raise SystemExit(f"git {arguments[0]} failed: {done.stderr.strip()}")
    return done.stdout.strip()


def numbers(output: str) -> dict[Cell, float]:
    """The numbers in the Markdown tables of an output."""
    found: dict[Cell, float] = {}
    columns: list[str] = []
    table = 0
    rows: Counter[str] = Counter()
    for line in output.splitlines():
        if not line.strip().startswith("|"):
            columns = []
            continue
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if not columns:
            columns, table, rows = cells, table + 1, Counter()
            continue
        if set("".join(cells)) <= set("-: "):
            continue
        for column, cell in zip(columns[1:], cells[1:], strict=False):
            with suppress(ValueError):
                found[table, cells[0], rows[cells[0]], column] = float(cell.replace(",", ""))
        rows[cells[0]] += 1
    return found


def comparison(result: Result) -> str:
    """A Markdown table with the medians of both sides and their ratio, for every number that both have."""
    here, before = (
        [numbers(one.output) for one in side if not one.problem] for side in (result.here, result.baseline)
    )
    if not here or not before:
        return ""
    lines = ["| | baseline | here | ratio |", "| --- | ---: | ---: | ---: |"]
    for cell in here[0]:
        sides = [[found[cell] for found in side if cell in found] for side in (before, here)]
        if not all(sides):
            continue
        old, new = (statistics.median(values) for values in sides)
        ratio = f"{new / old:.2f}" if old else "-"
        lines.append(f"| {cell[1]}, {cell[3]} | {old:g} | {new:g} | {ratio} |")
    return "\n".join(lines)


def report(results: Sequence[Result], head: Sequence[str]) -> str:
    """All figures as one Markdown text."""
    failed = [result.benchmark.name for result in results if result.problems]
    parts = ["# Benchmarks", "\n".join(head)]
    parts.append(f"Failed: {', '.join(failed)}." if failed else "Nothing failed.")
    for result in results:
        name, arguments = result.benchmark.name, " ".join(result.benchmark.arguments)
        parts.append(f"## {name}")
        runs = [*result.baseline, *result.here]
        seconds = ", ".join(f"{one.seconds:.0f}" for one in runs)
        loads = ", ".join(f"{one.load:.1f}" for one in runs)
        parts.append(f"`python -m benchmarks.{name} {arguments}".strip() + "`")
        parts.append(
            f"{len(result.here)} runs here, {len(result.baseline)} on the baseline; {seconds} s; load before: {loads}."
        )
        parts += [f"```\nFAILED {problem}\n```" for problem in result.problems]
        ratios = comparison(result)
        if ratios:
            parts += ["Medians of all runs:", ratios]
        good = [one for one in result.here if not one.problem]
        if good:
            parts += ["The last run here:", good[-1].output.strip()]
    return "\n\n".join(parts) + "\n"


def heading(baseline: str | None, rounds: int) -> list[str]:
    """Machine, commits and load, as lines."""
    # Only here: torch takes seconds to import.
    from benchmarks.report import machine

    cores = len(os.sched_getaffinity(0))
    load = os.getloadavg()[0]
    changed = " with uncommitted changes" if _git("status", "--porcelain") else ""
    lines = [
        f"{datetime.now(UTC):%d %B %Y, %H:%M} UTC; {machine()}.",
        f"Here: {_git('rev-parse', '--short', 'HEAD')}{changed}.",
    ]
    if baseline is not None:
        lines.append(f"Baseline: {_git('rev-parse', '--short', baseline)}, {rounds} rounds by turns.")
    if load > QUIET_LOAD * cores:
        lines.append(f"**The machine was not quiet: load {load:.1f} on {cores} cores at the start.**")
    return lines


def run_all(
    benchmarks: Sequence[Benchmark], baseline: Path | None, rounds: int, out: Path, head: Sequence[str]
) -> list[Result]:
    """Run benchmarks one after the other and write the file after each.

    Args:
        benchmarks: In order.
        baseline: Working tree of the baseline; None compares nothing.
        rounds: Runs on each side of a benchmark that is compared.
        out: The file.
        head: Its first lines.
    """
    results: list[Result] = []
    out.parent.mkdir(parents=True, exist_ok=True)
    for benchmark in benchmarks:
        result = Result(benchmark)
        results.append(result)
        is_compared = benchmark.compared and baseline is not None
        for number in range(rounds if is_compared else 1):
            for side, tree in ((result.baseline, baseline), (result.here, REPOSITORY)):
                if tree is None or (tree is baseline and not is_compared):
                    continue
                where = "baseline" if tree is baseline else "here"
                print(f"{benchmark.name}, {where}, run {number + 1} ...", flush=True)
                side.append(run(benchmark, tree))
                problem = side[-1].problem.splitlines()
                print(f"  {side[-1].seconds:.0f} s{': ' + problem[0] if problem else ''}", flush=True)
        out.write_text(report(results, head))
    return results


def end_at_sigterm() -> None:
    """At SIGTERM end as at any error: the benchmark is stopped, and the baseline's working tree is removed."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command; see the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [benchmark.name for benchmark in BENCHMARKS]
    parser.add_argument("--only", nargs="+", choices=names, help="run these (default: all)")
    parser.add_argument(
        "--baseline", help="commit to compare with (default: the last one that changed benchmarks/README.md)"
    )
    parser.add_argument("--no-baseline", action="store_true", help="compare with nothing; each runs once")
    parser.add_argument("--rounds", type=int, default=2, help="runs on each side")
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT, help="file for the figures")
    arguments = parser.parse_args(argv)
    end_at_sigterm()
    chosen = [one for one in BENCHMARKS if arguments.only is None or one.name in arguments.only]
    commit = None if arguments.no_baseline else arguments.baseline or default_baseline()
    head = heading(commit, arguments.rounds)
    print("\n".join(head), flush=True)
    try:
        if commit is None:
            results = run_all(chosen, None, 1, arguments.out, head)
        else:
            with baseline_tree(commit) as tree:
                results = run_all(chosen, tree, arguments.rounds, arguments.out, head)
    except KeyboardInterrupt:
        raise SystemExit(f"stopped; what was measured is in {arguments.out}") from None
    print(f"written to {arguments.out}")
    sys.exit(any(result.problems for result in results))


if __name__ == "__main__":
    main()
