"""Another version of the model while annotators click: `python -m benchmarks.switch_version [--runtime torch]`.

Two versions are promoted and rolled back by the command, as their lead does it, while one annotator clicks on and on.
How long until a click is answered with the other version, counted from the start of the command and from its end, and
what the clicks meanwhile say of it. The first promotion on OpenVINO makes that version's form first, in the command.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch

from benchmarks.backend import ANSWERED, Backend, Outcome, running_backend
from benchmarks.report import machine, percentile_ms, print_table, write_json
from benchmarks.stream import clicks_of
from refcut_backend.versions.store import ModelStore
from tests.support.recorded import REPOSITORY

PROJECT = 1
PAUSE_S = 0.2
"""Between an answer and the next click."""
LIMIT_S = 600
NOT_LOST = frozenset({ANSWERED, "empty_mask"})
NOISE = 1e-3


@dataclass
class Annotator:
    """Clicks one after the other in a thread. outcomes: of all clicks, in order."""

    backend: Backend
    outcomes: list[Outcome] = field(default_factory=list)

    @contextmanager
    def clicking(self) -> Iterator[None]:
        """Keep clicking on a thread until the block ends."""
        stopping = threading.Event()

        def click_on() -> None:
            for click in clicks_of(0):
                self.outcomes.append(self.backend.click(click))
                if stopping.wait(PAUSE_S):
                    return

        thread = threading.Thread(target=click_on)
        thread.start()
        try:
            yield
        finally:
            stopping.set()
            thread.join()

    def answered_with(self, version: str, since: float) -> float:
        """When a click that was sent since then was answered with that version."""
        deadline = time.monotonic() + LIMIT_S
        while time.monotonic() < deadline:
            for outcome in list(self.outcomes):
                if outcome.sent >= since and outcome.version == version:
                    return outcome.sent + outcome.seconds
            time.sleep(0.01)
        raise SystemExit(f"no click was answered with {version}")


@dataclass(frozen=True)
class Switch:
    """Seconds of the command, and from its end until a click was answered with the version. clicks: meanwhile."""

    name: str
    command_s: float
    answered_s: float
    clicks: list[Outcome]


def versions(store: ModelStore, folder: Path) -> list[str]:
    """Two children of the weights that ship, which hardly differ from them."""
    from model.checkpoints.weights import BASE_FILE, SHIPPED_DIR, VERSION_FILE, load_network, save_version

    names = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        network = load_network()
        own = folder / str(seed)
        own.mkdir()
        (own / BASE_FILE).write_bytes((SHIPPED_DIR / BASE_FILE).read_bytes())
        tensors = {
            name: value * (1 + NOISE * torch.randn_like(value)) if value.is_floating_point() else value
            for name, value in network.state_dict().items()
        }
        save_version(tensors, network.config, own / BASE_FILE, own / VERSION_FILE)
        names.append(store.publish(PROJECT, own, {"parent": "s14-00000000"}))
    return names


def switch(annotator: Annotator, name: str, arguments: Sequence[str], version: str) -> Switch:
    """Runs a command and waits for the version that it makes the one that serves."""
    first, started = len(annotator.outcomes), time.monotonic()
    subprocess.run(
        [sys.executable, "-m", "refcut_backend", "models", *arguments, "--project", str(PROJECT)],
        env=annotator.backend.environment,
        cwd=REPOSITORY,
        check=True,
        capture_output=True,
    )
    ended = time.monotonic()
    answered = annotator.answered_with(version, started)
    return Switch(name, ended - started, max(answered - ended, 0.0), annotator.outcomes[first:])


def main() -> None:
    """Measure and print the result; see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runtime", choices=("auto", "openvino", "torch"), default="auto")
    parser.add_argument(
        "--quiet-s", type=float, default=20.0, help="seconds of clicks before the first switch"
    )
    parser.add_argument("--json", type=Path, help="file for the figures")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="refcut-versions-") as folder:
        store = ModelStore.open(f"{folder}/store")
        one, other = versions(store, Path(folder))
        more = {"REFCUT_RUNTIME": arguments.runtime, "REFCUT_MODEL_STORE": f"{folder}/store"}
        with running_backend(more=more) as backend:
            annotator = Annotator(backend)
            with annotator.clicking():
                time.sleep(arguments.quiet_s)
                before = list(annotator.outcomes[len(annotator.outcomes) // 3 :])
                shared = before[-1].version
                switches = [
                    switch(annotator, "first promotion", ["promote", one], one),
                    switch(annotator, "second promotion", ["promote", other], other),
                    switch(annotator, "rollback", ["rollback"], one),
                    switch(annotator, "promotion of a known version", ["promote", other], other),
                    switch(annotator, "rollback", ["rollback"], one),
                    switch(annotator, "rollback to the shared model", ["rollback"], shared),
                ]
    lost = [outcome.reason for outcome in annotator.outcomes if outcome.reason not in NOT_LOST]
    print(
        f"{machine()}; runtime {arguments.runtime}; {len(annotator.outcomes)} clicks, {len(lost)} lost {lost}"
    )
    rows: list[list[object]] = [["before", "-", "-", len(before), _p95(before)]]
    rows += [
        [s.name, f"{s.command_s:.1f}", f"{s.answered_s:.1f}", len(s.clicks), _p95(s.clicks)] for s in switches
    ]
    print_table(["", "command s", "then until a click has it s", "clicks meanwhile", "their p95 ms"], rows)
    write_json(arguments.json, {"switches": [asdict(s) for s in switches], "lost": lost})
    sys.exit(bool(lost))


def _p95(outcomes: Sequence[Outcome]) -> str:
    return percentile_ms([outcome.seconds for outcome in outcomes], 95)


if __name__ == "__main__":
    main()
