"""What annotators do, against real processes: `refcut run` with the model that ships, with a restart and its end."""

from __future__ import annotations

import signal
import time
from typing import Any

import cv2
import httpx
import numpy as np
import psutil
import pytest
from numpy.typing import NDArray
from redis import Redis

from model.masks import deepest_point, intersection_over_union
from refcut_backend.cli.demo import demo_mask
from refcut_backend.label_studio import brush_rle
from refcut_backend.settings import Settings
from tests.integration.conftest import TOKEN
from tests.integration.test_first_light import TARGET
from tests.support.recorded import REPOSITORY, box_result, click_result
from tests.support.running_backend import RunningBackend

pytestmark = pytest.mark.slow


WORKER_LIMIT_S = 300
CONFIGS = {path.stem: path.read_text() for path in (REPOSITORY / "label_config").glob("*.xml")}
BACKGROUND_CONFIG = CONFIGS["clicks_brush"].replace(
    '<Label value="Door" background="#1f77b4" model_index="0"/>',
    '<Label value="Background"/><Label value="Door" background="#1f77b4"/>',
    1,
)


class Task:
    """The target photograph as a task of one project, clicked through HTTP."""

    def __init__(self, client: httpx.Client, label_studio: str, project: int, label_config: str) -> None:
        self.client, self.project, self.label_config = client, project, label_config
        setup = {"project": f"{project}.1", "schema": label_config, "hostname": label_studio}
        client.post("/setup", json=setup | {"access_token": TOKEN}).raise_for_status()

    def click(self, *regions: dict[str, Any], accepted: tuple[str, ...] = ()) -> dict[str, dict[str, Any]]:
        """The regions of the answer by id. accepted: region ids that a draft of the task has."""
        draft = {"id": 1, "result": [{"id": region_id, "value": {"rle": [1, 2]}} for region_id in accepted]}
        task = {"id": 2, "data": {"image": f"/data/upload/1/{TARGET}.jpg"}}
        body = {
            "tasks": [task | {"annotations": [], "drafts": [draft]}],
            "project": f"{self.project}.1",
            "label_config": self.label_config,
            "params": {"context": {"result": list(regions)}},
        }
        answer = self._answer(body)
        return {region["id"]: region for region in answer.json()["results"][0]["result"]}

    def _answer(self, body: dict[str, Any]) -> httpx.Response:
        """Asks again for as long as a worker on a busy machine does not answer in time: that changes nothing."""
        deadline = time.monotonic() + WORKER_LIMIT_S
        while True:
            answer = self.client.post("/predict", json=body)
            assert answer.status_code == 200
            reason = answer.headers.get("x-refcut-reason")
            if reason not in ("timeout", "starting"):
                assert reason in (None, "no_clicks", "no_positive_click"), reason
                return answer
            assert time.monotonic() < deadline, "no worker answered"


@pytest.fixture
def client(running: RunningBackend) -> httpx.Client:
    return running.client


@pytest.fixture
def label_studio(photographs: str) -> str:
    return photographs


def mask(region: dict[str, Any]) -> NDArray[np.bool_]:
    return brush_rle.decode(region["value"]["rle"], region["original_height"], region["original_width"])


def on(part: str, name: str, label: str, *, positive: bool | None = True) -> dict[str, Any]:
    """A click in the middle of a part of the target."""
    mask_hw = demo_mask(TARGET, part)
    return at(deepest_point(mask_hw), mask_hw.shape, name, label, positive=positive)


def at(
    place: tuple[int, int], shape: tuple[int, ...], name: str, label: str, *, positive: bool | None = True
) -> dict[str, Any]:
    x, y = 100 * (place[1] + 0.5) / shape[1], 100 * (place[0] + 0.5) / shape[0]
    return click_result(name, x, y, label, positive=positive)


def box_round(part: str, name: str, label: str) -> dict[str, Any]:
    rows, cols = np.nonzero(demo_mask(TARGET, part))
    height, width = demo_mask(TARGET, part).shape
    left, top = 100 * cols.min() / width, 100 * rows.min() / height
    right, bottom = 100 * (cols.max() + 1) / width, 100 * (rows.max() + 1) / height
    return box_result(name, left, top, right - left, bottom - top, label)


def test_with_auto_accept_single_clicks_refine_one_mask_until_it_is_submitted(client, label_studio):
    task = Task(client, label_studio, 1, CONFIGS["clicks_brush"])
    first = mask(task.click(on("hood", "a", "Hood"))["rc-a"])
    away = at(deepest_point(first), first.shape, "b", "Hood", positive=False)
    refined = task.click(away)
    assert list(refined) == ["rc-a"]
    assert not np.array_equal(mask(refined["rc-a"]), first)
    assert task.click(away) == refined, "asked again"
    assert task.click() == {}
    assert task.click(on("hood", "c", "Hood", positive=False)) == {}
    assert np.array_equal(mask(task.click(on("hood", "d", "Hood"))["rc-d"]), first)


def test_an_answer_repeats_the_mask_of_another_box_and_never_that_of_another_label(client, label_studio):
    task = Task(client, label_studio, 2, CONFIGS["clicks_box_brush"])
    hood, wheel = box_round("hood", "a", "Hood"), box_round("wheel", "b", "Hood")
    first = task.click(hood)["rc-a"]
    both = task.click(hood, wheel)
    assert list(both) == ["rc-b", "rc-a"]
    assert both["rc-a"] == first
    assert list(task.click(on("wheel", "w", "Wheel"))) == ["rc-w"]
    assert list(task.click(hood, wheel, accepted=("rc-a",))) == ["rc-b"]


def test_a_click_with_the_label_background_takes_away_as_an_alt_click_does(client, label_studio):
    masks = []
    for project, label in ((3, "Background"), (4, "Hood")):
        task = Task(client, label_studio, project, BACKGROUND_CONFIG)
        first = mask(task.click(on("hood", "a", "Hood"))["rc-a"])
        alt = label == "Hood"
        away = at(deepest_point(first), first.shape, "b", label, positive=not alt)
        dots = [on("hood", "a", "Hood"), away] if alt else [away]
        masks.append(mask(task.click(*dots)["rc-a"]))
    assert np.array_equal(*masks)


def test_a_box_gives_a_better_mask_than_itself_and_clicks_refine_it(client, label_studio):
    hood_hw = demo_mask(TARGET, "hood")
    task = Task(client, label_studio, 5, CONFIGS["clicks_box_brush"])
    box = box_round("hood", "b", "Hood")
    boxed = mask(task.click(box)["rc-b"])
    rows, cols = np.nonzero(hood_hw)
    filled = np.zeros_like(hood_hw)
    filled[rows.min() : rows.max() + 1, cols.min() : cols.max() + 1] = True
    assert intersection_over_union(hood_hw, boxed) > intersection_over_union(hood_hw, filled)
    excess = boxed & ~hood_hw
    away = at(deepest_point(excess), excess.shape, "n", "Hood", positive=False)
    refined = task.click(away)
    assert list(refined) == ["rc-b"]
    assert not mask(refined["rc-b"])[deepest_point(excess)]


def test_masks_come_back_as_polygons_of_the_same_shape(client, label_studio):
    brush = mask(
        Task(client, label_studio, 6, CONFIGS["clicks_brush"]).click(on("hood", "a", "Hood"))["rc-a"]
    )
    regions = Task(client, label_studio, 7, CONFIGS["clicks_polygon"]).click(on("hood", "a", "Hood"))
    assert {region["type"] for region in regions.values()} == {"polygonlabels"}
    corners = np.concatenate([region["value"]["points"] for region in regions.values()])
    rows, cols = np.nonzero(without_specks(brush))
    scale = 100 / np.array(brush.shape[::-1])
    assert corners.min(axis=0) == pytest.approx(np.array([cols.min(), rows.min()]) * scale, abs=1.5)
    assert corners.max(axis=0) == pytest.approx(np.array([cols.max() + 1, rows.max() + 1]) * scale, abs=1.5)


def without_specks(mask_hw):
    """The mask without the pieces that are too small for an outline (REFCUT_POLYGON_MIN_AREA_PERCENT)."""
    count, pieces, stats, _ = cv2.connectedComponentsWithStats(mask_hw.astype(np.uint8), connectivity=8)
    least_px = Settings().polygon_min_area_percent / 100 * mask_hw.size
    large = [number for number in range(1, count) if stats[number, cv2.CC_STAT_AREA] >= least_px]
    return np.isin(pieces, large)


def redis_of(backend: RunningBackend) -> Redis:
    """The embedded Redis; its process says in its title which socket it listens on."""
    children = psutil.Process(backend.process.pid).children()
    server = next(child for child in children if "redis" in child.name())
    title = " ".join(server.cmdline())
    return Redis(unix_socket_path=title.split("unixsocket:")[1].split()[0])


def test_polarity_and_single_clicks_survive_a_flushed_redis_and_a_restart(running, label_studio):
    dots = [on("hood", "a", "Hood"), on("wheel", "n", "Hood", positive=False)]
    forgotten = [{key: dot[key] for key in dot if key != "is_positive"} for dot in dots]
    task = Task(running.client, label_studio, 8, CONFIGS["clicks_brush"])
    before = task.click(*dots)
    single = task.click(on("wheel", "w", "Wheel"))["rc-w"]
    with redis_of(running) as redis:
        redis.flushall()
    assert task.click(*forgotten)["rc-a"] == before["rc-a"]
    running.restart()
    task = Task(running.client, label_studio, 8, CONFIGS["clicks_brush"])
    assert task.click(*forgotten)["rc-a"] == before["rc-a"]
    away = at(deepest_point(mask(single)), mask(single).shape, "x", "Wheel", positive=False)
    assert "rc-w" in task.click(away)


def test_ctrl_c_stops_everything_and_exits_cleanly(running):
    """The last test of the shared backend: none has to start it again."""
    children = psutil.Process(running.process.pid).children(recursive=True)
    assert len(children) >= 4, "Redis, web server, worker and training worker"
    running.stop(signal.SIGINT)
    output = "".join(running.output)
    assert running.process.returncode == 0, output
    assert f"RefCut listens on {str(running.client.base_url).rstrip('/')}" in output
    assert [child for child in children if child.is_running()] == []
