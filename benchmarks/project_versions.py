"""Projects with versions of their own: `python -m benchmarks.project_versions [--projects 14]`.

As many versions as projects are published, converted and promoted, as a training does it. They differ from the weights
that ship in what a fine-tuning changes. Then two fresh workers are measured, without queue and web server:

    memory         all versions stay loaded; resident memory before the first version and after the last one
    first clicks   as many stay loaded as by default; one click on each project in turn, all on the same photograph

Conversions are counted while clicks are answered. A click that gets another version than its project's is counted, too.
"""

from __future__ import annotations

import argparse
import gc
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from benchmarks.report import machine, print_table, write_json
from model.checkpoints.weights import BASE_FILE, SHIPPED_DIR, VERSION_FILE, load_network, save_version
from model.images import read_image
from model.network.refcut import RefCut
from model.predictor import RefCutPredictor
from model.runtime import openvino_export
from model.types import Click
from refcut_backend.inference.load_model import leave_cores_to_openvino, prepare_version, share_cores
from refcut_backend.inference.models import ProjectModels, ServedModel
from refcut_backend.inference.process import load_models
from refcut_backend.label_studio.project_ids import NO_PROJECT
from refcut_backend.settings import Settings
from refcut_backend.versions.store import ModelStore
from tests.support.recorded import REPOSITORY

PHOTOGRAPH = REPOSITORY / "label_studio_demo" / "car_parts_te66.jpg"
NOISE = 1e-3
MIB = 2**20
PHASES = ("memory", "first-clicks")
WAIT_S = 300.0


def settings_of(folder: Path, loaded: int | None) -> Settings:
    """Settings of a worker on the processor."""
    settings = Settings(state_dir=folder / "state", model_store=str(folder / "store"), device="cpu")
    return settings if loaded is None else settings.model_copy(update={"models_in_memory": loaded})


def trained_names(network: RefCut) -> set[str]:
    """Tensors that a fine-tuning changes."""
    network.requires_grad_(True)
    network.backbone.requires_grad_(False)
    return {name for name, parameter in network.named_parameters() if parameter.requires_grad}


def make_versions(folder: Path, count: int, settings: Settings) -> list[float]:
    """Publish, convert and promote a version per project. Returns the seconds of each conversion."""
    network = load_network()
    trained, seconds = trained_names(network), []
    store = ModelStore.open(str(folder / "store"))
    for project in range(1, count + 1):
        torch.manual_seed(project)
        run = folder / f"run-{project}"
        run.mkdir()
        (run / BASE_FILE).write_bytes((SHIPPED_DIR / BASE_FILE).read_bytes())
        tensors = {
            name: value * (1 + NOISE * torch.randn_like(value)) if name in trained else value
            for name, value in network.state_dict().items()
        }
        save_version(tensors, network.config, run / BASE_FILE, run / VERSION_FILE)
        version = store.publish(project, run, {"parent": "s14-00000000"})
        began = time.monotonic()
        prepare_version(store.local_folder(version), settings)
        seconds.append(time.monotonic() - began)
        store.promote(project, version)
    return seconds


@contextmanager
def counted_conversions() -> Iterator[list[str]]:
    """The conversions while the block runs, in this process and in others that it starts."""
    found: list[str] = []
    convert, run = openvino_export.convert, subprocess.run

    def counting_convert(*given: Any, **named: Any) -> Any:
        found.append("in the worker")
        return convert(*given, **named)

    def counting_run(command: Any, *given: Any, **named: Any) -> Any:
        if "prepare-runtime" in command:
            found.append("in another process")
        return run(command, *given, **named)

    with (
        mock.patch("model.runtime.openvino.convert", counting_convert),
        mock.patch("subprocess.run", counting_run),
    ):
        yield found


def memory_mb() -> dict[str, float]:
    """Resident memory of this process, and its share if pages of files are divided among their users."""
    gc.collect()
    text = Path("/proc/self/smaps_rollup").read_text()
    return {name: int(re.findall(rf"^{name}: +(\d+)", text, re.M)[0]) * 1024 / MIB for name in ("Rss", "Pss")}


def click(model: ServedModel) -> None:
    """One click on the photograph, all of its features computed."""
    predictor = RefCutPredictor(model.network, model.settings)
    image = read_image(PHOTOGRAPH)
    predictor.set_image(image)
    predictor.predict([Click(image.shape[0] / 2, image.shape[1] / 2)])


def wait_for_version(models: ProjectModels, project: int) -> ServedModel:
    """The model of a project's version, when it is loaded."""
    deadline = time.monotonic() + WAIT_S
    while (model := models.of(project)) is models.shared and time.monotonic() < deadline:
        time.sleep(0.01)
    return model


def measure_memory(models: ProjectModels, projects: int) -> dict[str, Any]:
    """Megabytes of a further version."""
    click(models.of(NO_PROJECT))
    click(wait_for_version(models, 1))
    before = memory_mb()
    for project in range(2, projects + 1):
        click(wait_for_version(models, project))
    after = memory_mb()
    further = projects - 1
    return {name: (after[name] - before[name]) / further for name in before} | {"worker": before["Rss"]}


def measure_first_clicks(models: ProjectModels, projects: int) -> dict[str, Any]:
    """Seconds of the first click of each project."""
    click(models.of(NO_PROJECT))
    clicks = []
    for project in range(1, projects + 1):
        began, processor = time.monotonic(), time.process_time()
        with counted_conversions() as conversions:
            model = models.of(project)
            waited = time.monotonic() - began
            click(model)
            answered, spent = time.monotonic() - began, time.process_time() - processor
            version = wait_for_version(models, project)
        clicks.append(
            {
                "waited_s": waited,
                "answered_s": answered,
                "processor_s": spent,
                "own_version": model is version,
                "own_version_after_s": time.monotonic() - began,
                "conversions": len(conversions),
            }
        )
    return {"clicks": clicks}


def run_phase(phase: str, folder: Path, projects: int) -> dict[str, Any]:
    """A phase in this process."""
    settings = settings_of(folder, projects if phase == "memory" else None)
    device = torch.device("cpu")
    models = load_models(settings, device, share_cores(device, 1))
    leave_cores_to_openvino(models.shared.network)
    measure = measure_memory if phase == "memory" else measure_first_clicks
    found = measure(models, projects)
    models.stop()
    return found


def in_a_fresh_process(phase: str, folder: Path, projects: int) -> dict[str, Any]:
    """A phase in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.project_versions", "--projects", str(projects)]
    done = subprocess.run(
        [*command, "--phase", phase, "--folder", str(folder)],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Measure and print the result; see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--projects", type=int, default=14)
    parser.add_argument("--json", type=Path, help="file for the figures")
    parser.add_argument("--phase", choices=PHASES, help="for the script itself: measure in this process")
    parser.add_argument("--folder", type=Path, help="for the script itself")
    arguments = parser.parse_args()
    if arguments.phase:
        print(json.dumps(run_phase(arguments.phase, arguments.folder, arguments.projects)))
        return
    with tempfile.TemporaryDirectory(prefix="refcut-projects-") as temporary:
        folder = Path(temporary)
        settings = settings_of(folder, None)
        promotions = make_versions(folder, arguments.projects, settings)
        cache = sum(file.stat().st_size for file in settings.runtime_cache_dir.rglob("*") if file.is_file())
        memory, first = (in_a_fresh_process(phase, folder, arguments.projects) for phase in PHASES)
    clicks = first["clicks"]
    print(f"{machine()}; {arguments.projects} projects")
    rows: list[list[object]] = [
        ["memory per further version, RSS, MB", f"{memory['Rss']:.0f}"],
        ["memory per further version, PSS, MB", f"{memory['Pss']:.0f}"],
        ["worker with the shared model and one version, RSS, MB", f"{memory['worker']:.0f}"],
        ["converted networks on disk per project, MB", f"{cache / MIB / arguments.projects:.0f}"],
        ["conversion at a promotion, median s", f"{statistics.median(promotions):.1f}"],
        ["conversions while clicks were answered", sum(one["conversions"] for one in clicks)],
        ["first clicks that another version answered", sum(not one["own_version"] for one in clicks)],
        ["first click of a project waits for its version, median s", _median(clicks, "waited_s")],
        ["the same, longest s", f"{max(one['waited_s'] for one in clicks):.2f}"],
        ["first click of a project, median s", _median(clicks, "answered_s")],
        ["first click of the last project, s", f"{clicks[-1]['answered_s']:.2f}"],
        ["processor time of a first click with its load, median s", _median(clicks, "processor_s")],
    ]
    print_table(["", "value"], rows)
    write_json(
        arguments.json,
        {"memory_mb": memory, "clicks": clicks, "promotions_s": promotions, "cache_bytes": cache},
    )


def _median(clicks: list[dict[str, Any]], field: str) -> str:
    return f"{statistics.median(one[field] for one in clicks):.2f}"


if __name__ == "__main__":
    main()
