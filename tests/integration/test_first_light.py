"""The whole way with real processes: `refcut run`, the model that ships, and a Label Studio that serves photographs."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Any

import httpx
import numpy as np
import psutil
import pytest

from model.checkpoints.version_folder import BASE_FILE, VERSION_FILE
from model.masks import deepest_point, intersection_over_union
from refcut_backend.cli.demo import demo_mask
from refcut_backend.label_studio import brush_rle
from tests.integration.conftest import TOKEN
from tests.support.demo_regions import CAR, demo_region, other_regions
from tests.support.recorded import LABEL_CONFIG, REPOSITORY, brush_result, click_result, role_result
from tests.support.running_backend import RunningBackend, free_port, start

pytestmark = pytest.mark.slow


TARGET, REFERENCE = "car_parts_te66", "car_parts_car118"
FOLLOWED_WITHIN_S = 2
REPLACED_WITHIN_S = 15


@dataclass
class Backend:
    """A running `refcut run` and the Label Studio that it serves."""

    client: httpx.Client
    process: subprocess.Popen[str]
    label_studio: str

    def connect(self, project: int) -> None:
        """/setup as Label Studio sends it."""
        body = {"project": f"{project}.1", "schema": LABEL_CONFIG, "hostname": self.label_studio}
        self.client.post("/setup", json=body | {"access_token": TOKEN}).raise_for_status()

    def give_reference(self, project: int, meaning: str) -> None:
        """An annotation on the reference photograph: a part or the whole car is marked as the reference of Wheel."""
        wheel = brush_result("r", "Wheel", demo_region(REFERENCE, meaning))
        rest = other_regions(REFERENCE, meaning).items()
        others = [brush_result(name, "Door", mask_hw) for name, mask_hw in rest]
        annotation = {
            "id": 5,
            "result": [wheel, *others, role_result(wheel, "Reference")],
            "updated_at": "2026",
        }
        body = {
            "action": "ANNOTATION_CREATED",
            "project": {"id": project, "label_config": LABEL_CONFIG},
            "task": {"id": 1, "data": {"image": f"/data/upload/1/{REFERENCE}.jpg"}},
            "annotation": annotation,
        }
        self.client.post("/webhook", json=body).raise_for_status()

    def click(self, project: int, *dots: dict[str, Any]) -> tuple[np.ndarray, dict[str, Any]]:
        """The mask (H, W) for clicks on the target photograph, and its region."""
        body = {
            "tasks": [{"id": 2, "data": {"image": f"/data/upload/1/{TARGET}.jpg"}}],
            "project": f"{project}.1",
            "label_config": LABEL_CONFIG,
            "params": {"context": {"result": list(dots)}},
        }
        answer = self.client.post("/predict", json=body)
        assert "x-refcut-reason" not in answer.headers, answer.headers
        (region,) = answer.json()["results"][0]["result"]
        size = (region["original_height"], region["original_width"])
        return brush_rle.decode(region["value"]["rle"], *size), region


def click_once_followed(backend: Backend, project: int) -> np.ndarray:
    """The mask for a click on the wheel as soon as a reference is used: within 2 s of the webhook, or it fails."""
    deadline = time.monotonic() + FOLLOWED_WITHIN_S
    while True:
        asked = time.monotonic()
        mask_hw, region = backend.click(project, wheel_click())
        if region["meta"]["text"] != ["RefCut reference: none"]:
            return mask_hw
        assert asked < deadline, "the reference was not followed in time"
        time.sleep(0.05)


@pytest.fixture
def backend(running: RunningBackend, photographs: str) -> Backend:
    return Backend(running.client, running.process, photographs)


def wheel_click(click_id: str = "a") -> dict[str, Any]:
    """A click in the middle of the target's largest wheel."""
    wheels = demo_mask(TARGET, "wheel")
    row, col = deepest_point(wheels)
    return click_result(click_id, 100 * col / wheels.shape[1], 100 * row / wheels.shape[0], "Wheel")


@pytest.mark.parametrize(("meaning", "project"), [("wheel", 11), (CAR, 12)])
def test_the_same_click_gives_what_the_reference_means(backend, meaning, project):
    meant_hw = demo_region(TARGET, meaning)
    backend.connect(project)
    backend.give_reference(project, meaning)
    assert intersection_over_union(meant_hw, click_once_followed(backend, project)) > 0.65


def test_a_click_without_a_reference_does_not_know_that_the_whole_car_is_meant(backend):
    backend.connect(13)
    mask_hw, region = backend.click(13, wheel_click())
    assert region["meta"]["text"] == ["RefCut reference: none"]
    assert intersection_over_union(demo_region(TARGET, CAR), mask_hw) < 0.3


def test_a_negative_click_takes_away_what_it_points_at(backend):
    backend.connect(14)
    first_hw, _ = backend.click(14, wheel_click())
    cols = np.nonzero(first_hw)[1]
    row, col = deepest_point(first_hw & (np.arange(first_hw.shape[1]) > np.median(cols) + np.ptp(cols) / 4))
    height, width = first_hw.shape
    away = click_result("b", 100 * col / width, 100 * row / height, "Wheel", positive=False)
    second_hw, _ = backend.click(14, wheel_click(), away)
    assert first_hw[row, col]
    assert not second_hw[row, col]


def worker_of(backend: Backend) -> psutil.Process | None:
    """The backend's worker process, if one is running now."""
    children = psutil.Process(backend.process.pid).children()
    running = [child for child in children if child.status() != psutil.STATUS_ZOMBIE]
    return next((child for child in running if "worker" in child.cmdline()), None)


def test_a_worker_that_was_killed_is_replaced_and_serves_clicks(backend, running):
    backend.connect(15)
    killed = worker_of(backend)
    assert killed is not None
    killed.kill()
    deadline = time.monotonic() + REPLACED_WITHIN_S
    while (replacement := worker_of(backend)) is None or replacement.pid == killed.pid:
        assert time.monotonic() < deadline, "the worker was not replaced in time"
        time.sleep(0.1)
    running.wait_for_worker()
    mask_hw, _ = backend.click(15, wheel_click())
    assert mask_hw.any()


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"REFCUT_MODEL_DIR": "/no/such/model"}, "is missing"),
        ({"REFCUT_REDIS_URL": "redis://127.0.0.1:9"}, "Redis does not answer"),
        ({"REFCUT_PORT": "99999"}, "REFCUT_PORT"),
        ({"REFCUT_BASIC_AUTH_USER": "label-studio"}, "only one is set"),
    ],
)
def test_what_is_missing_at_the_start_is_one_clear_line_and_a_failure(environment, expected, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "refcut_backend", "run"],
        env=os.environ | {"REFCUT_STATE_DIR": str(tmp_path)} | environment,
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    (line,) = done.stderr.strip().splitlines()
    assert expected in line


def test_a_port_in_use_is_one_clear_line_and_a_failure(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        process = start(tmp_path, taken.getsockname()[1])
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "cannot listen on 127.0.0.1" in output


def test_weights_that_the_worker_cannot_read_stop_everything_with_the_reason(tmp_path):
    model_dir = tmp_path / "broken"
    model_dir.mkdir()
    for name in (BASE_FILE, VERSION_FILE):
        (model_dir / name).write_bytes(b"no weights")
    done = subprocess.run(
        [sys.executable, "-m", "refcut_backend", "run"],
        env=os.environ
        | {
            "REFCUT_STATE_DIR": str(tmp_path),
            "REFCUT_MODEL_DIR": str(model_dir),
            "REFCUT_PORT": str(free_port()),
        },
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1
    assert "base.safetensors is damaged" in done.stderr
