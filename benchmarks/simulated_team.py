"""A team that annotates while the model learns: `python -m benchmarks.simulated_team --faces DIR --folder OUT`.

In a real Label Studio, with a real backend: one photograph's parts are painted and made the labels' references, then a
robot annotates 50 photographs by clicks (DIR is made by benchmarks.face_parts). A training begins after every 20
annotations, by itself, and the last one by the button; the team waits for each. Every version is then measured on the
images that the backend held out and on 20 photographs that were never uploaded. At last a careless annotator submits 20
photographs with shifted masks: the version that comes of them must not be promoted.

OUT keeps the state of both servers, `results.json` and the plot. It takes an hour on two idle cores.
"""

from __future__ import annotations

import argparse
import json
import signal
import statistics
import sys
import time
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from benchmarks.report import machine, print_table
from benchmarks.robot_annotator import Annotated, RobotAnnotator, shifted
from benchmarks.team_plot import draw
from benchmarks.team_snapshot import photographs, team_snapshot
from benchmarks.team_world import TeamWorld, label_config, team_world
from benchmarks.version_figures import Measure
from model.checkpoints.version_folder import SHIPPED_DIR
from model.data.annotated_objects import AnnotatedObject
from model.data.snapshot import Snapshot
from model.evaluation.compare import CompareSettings
from refcut_backend.cli.demo_label_studio import LabelStudioProject
from refcut_backend.label_studio.label_config import REFERENCE_CHOICE
from refcut_backend.label_studio.regions import BrushRegion
from refcut_backend.versions.manifest import Manifest
from refcut_backend.versions.store import ModelStore
from tests.support.recorded import REPOSITORY


@dataclass(frozen=True)
class Trained:
    """A version and the run that made it. images: annotated by then. run: as `/status` tells of it."""

    images: int
    run: dict[str, Any]
    folder: Path
    manifest: Manifest

    @property
    def minutes(self) -> float:
        """Length of the training run in minutes."""
        return float(self.run["ended_at"] - self.run["begun_at"]) / 60


class Team:
    """Annotates one project, and waits for the trainings that come of it."""

    def __init__(self, world: TeamWorld, project: LabelStudioProject, config: str, folder: Path) -> None:
        self._world = world
        self._project = project
        self._robot = RobotAnnotator(world.client, project.id, config)
        self._store = ModelStore.open(str(world.state_dir / "models"))
        self._folder = folder
        self._runs: set[str] = set()
        self.annotated: list[list[Annotated]] = []

    def give_references(self, task_id: int, annotated_object: AnnotatedObject) -> None:
        """The lead paints all parts of a photograph and marks them."""
        regions = [
            BrushRegion(f"reference-{label}", label, mask_hw, REFERENCE_CHOICE)
            for label, mask_hw in annotated_object.masks().items()
        ]
        self._project.annotate(task_id, regions)

    def annotate(self, task_id: int, annotated_object: AnnotatedObject) -> None:
        """By clicks."""
        masks = self._robot.annotate(self._project.task(task_id), annotated_object)
        self._project.submit(task_id, [result for mask in masks for result in mask.results])
        self.annotated.append(masks)

    def annotate_carelessly(self, annotated_objects: list[AnnotatedObject]) -> None:
        """Mirrored photographs, which are new images, with every mask beside its part."""
        paths = []
        for annotated_object in annotated_objects:
            paths.append(self._folder / f"mirrored_{annotated_object.image_path.name}")
            cv2.imwrite(
                str(paths[-1]),
                cv2.cvtColor(np.ascontiguousarray(annotated_object.image()[:, ::-1]), cv2.COLOR_RGB2BGR),
            )
        for task_id, annotated_object in zip(
            self._project.upload_images(paths), annotated_objects, strict=True
        ):
            regions = [
                BrushRegion(f"careless-{task_id}-{label}", label, shifted(mask_hw[:, ::-1]))
                for label, mask_hw in annotated_object.masks().items()
            ]
            self._project.annotate(task_id, regions)

    def press_the_button(self) -> None:
        """Start a training as Label Studio's button does."""
        self._project.start_training()

    def wait_for_training(self) -> Trained:
        """Wait until the training has ended, and return what came of it."""
        run = self._world.wait_for_training(
            self._project.id, self._runs, lambda line: print(f"  {line}", flush=True)
        )
        self._runs.add(run["id"])
        print(f"{run['outcome']}: {run['version']}: {run['reason']}", flush=True)
        if run["version"] is None:
            raise SystemExit(f"the training made no version: {run['reason']}")
        version = run["version"]
        folder, manifest = self._store.local_folder(version), self._store.manifest(version)
        return Trained(len(self.annotated) + 1, run, folder, manifest)


def work(team: Team, annotated_objects: list[AnnotatedObject], tasks: list[int], every: int) -> list[Trained]:
    """The team's days. The first photograph is the references'."""
    team.give_references(tasks[0], annotated_objects[0])
    found = []
    for number, (task_id, annotated_object) in enumerate(
        zip(tasks[1:], annotated_objects[1:], strict=True), 2
    ):
        team.annotate(task_id, annotated_object)
        clicks = statistics.mean(mask.clicks for mask in team.annotated[-1])
        print(f"{number} of {len(tasks)} annotated, {clicks:.1f} clicks a mask", flush=True)
        if number % every == 0:
            found.append(team.wait_for_training())
    if len(tasks) % every:
        team.press_the_button()
        found.append(team.wait_for_training())
    return found


def measured(measure: Measure, trained: list[Trained], fresh: Snapshot) -> list[dict[str, Any]]:
    """One row a version, the shipped one first. holdout: what the backend itself found when it was trained."""
    rows: list[dict[str, Any]] = []
    for images, weights, one in [(0, SHIPPED_DIR, None), *((t.images, t.folder, t) for t in trained)]:
        rows.append({"images": images, "fresh": measure.project_summary(weights, fresh)})
        if one is not None:
            comparison = one.manifest.metadata["judgement"]
            rows[-1] |= {"minutes": one.minutes, "run": one.run, "holdout_images": comparison["images"]}
            rows[-1] |= {"holdout": comparison["candidate"], "holdout_before": comparison["serving"]}
        print(json.dumps(rows[-1]), flush=True)
    return rows


def clicks_by_version(annotated: list[list[Annotated]], every: int) -> list[dict[str, float]]:
    """What the team needed itself, between one training and the next."""
    starts = [0, *range(every - 1, len(annotated), every)]
    found = []
    for start, end in zip(starts, [*starts[1:], len(annotated)], strict=True):
        masks = [mask for photograph in annotated[start:end] for mask in photograph]
        found.append(
            {
                "photographs": end - start,
                "clicks": statistics.mean(mask.clicks for mask in masks),
                "first_click_iou": statistics.mean(mask.first_iou for mask in masks),
                "by_hand": sum(mask.by_hand for mask in masks),
            }
        )
    return found


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Run the whole simulation. Returns the figures of every stage."""
    annotated_objects = photographs(arguments.faces, "team")[: arguments.images]
    labels = sorted(annotated_objects[0].part_rles)
    config = label_config(labels)
    folder: Path = arguments.folder
    settings = {"REFCUT_TRAIN_AFTER_ANNOTATIONS": str(arguments.every)} | dict(arguments.set or [])
    with ExitStack() as stack:
        world = stack.enter_context(team_world(folder, arguments.label_studio, settings))
        project = LabelStudioProject.create(world.label_studio, "Faces", config, world.token)
        stack.enter_context(closing(project))
        tasks = project.upload_images([annotated_object.image_path for annotated_object in annotated_objects])
        project.connect_backend(world.backend)
        team = Team(world, project, config, folder)
        trained = work(team, annotated_objects, tasks, arguments.every)
        team.annotate_carelessly(annotated_objects[1 : 1 + arguments.every])
        careless = team.wait_for_training()
    fresh = team_snapshot(folder / "fresh", [], photographs(arguments.faces, "fresh"), annotated_objects[0])
    how = CompareSettings(max_masks=arguments.fresh_masks, runtime_cache_dir=folder / "runtime")
    measure = Measure(folder / "figures", compare=how)
    return {
        "machine": machine(),
        "distinct_photographs": len(
            {annotated_object.image().tobytes() for annotated_object in annotated_objects}
        ),
        "versions": measured(measure, trained, fresh),
        "team": clicks_by_version(team.annotated, arguments.every),
        "careless": {
            "outcome": careless.run["outcome"],
            "reason": careless.run["reason"],
            "minutes": careless.minutes,
        },
    }


def print_report(found: dict[str, Any]) -> None:
    """Tables in Markdown."""
    labels = sorted(found["versions"][0]["fresh"]["by_label"])
    for figure, name in (("noc85", "NoC@85"), ("first_click_iou", "first click")):
        rows = []
        for version in found["versions"]:
            of = [
                version["fresh"][figure],
                *(version["fresh"]["by_label"][label][figure] for label in labels),
            ]
            row = [version["images"], *(f"{value:.3g}" for value in of), "-", "-", "-"]
            if "run" in version:
                row[-3] = f"{version['holdout_before'][figure]:.3g} to {version['holdout'][figure]:.3g}"
                row[-2:] = [f"{version['minutes']:.1f}", version["run"]["outcome"]]
            rows.append(row)
        print_table([f"{name} after", "fresh", *labels, "holdout", "minutes", "gate"], rows)
        print()
    print_table(list(found["team"][0]), [[f"{value:.3g}" for value in one.values()] for one in found["team"]])
    print(f"\nshifted masks: {found['careless']['outcome']}: {found['careless']['reason']}")


def parse_setting(text: str) -> tuple[str, str]:
    """Split NAME=VALUE of the command line."""
    name, _, value = text.partition("=")
    return name, value


def main() -> None:
    """Measure and print the result; see the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--faces", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument(
        "--label-studio", type=Path, default=REPOSITORY / ".venv-label-studio/bin/label-studio"
    )
    parser.add_argument("--images", type=int, default=50)
    parser.add_argument("--every", type=int, default=20, help="annotations after which a training begins")
    parser.add_argument(
        "--fresh-masks", type=int, default=100, help="masks of the fresh photographs to measure"
    )
    parser.add_argument(
        "--set", type=parse_setting, action="append", metavar="REFCUT_X=VALUE", help="of the backend"
    )
    parser.add_argument("--threads", type=int, default=2, help="for measuring")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    arguments.folder = arguments.folder.resolve()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # both servers are stopped on the way out
    started = time.monotonic()
    found = run(arguments)
    (arguments.folder / "results.json").write_text(json.dumps(found, indent=2) + "\n")
    draw(arguments.folder / "simulated_team.png", found)
    print_report(found)
    print(f"\n{(time.monotonic() - started) / 60:.0f} minutes in all")


if __name__ == "__main__":
    main()
