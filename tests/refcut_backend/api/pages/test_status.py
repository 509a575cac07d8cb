"""The status page over HTTP: who gets a page and who JSON, events, checks."""

from __future__ import annotations

import asyncio
import json
import re
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from anyio import CapacityLimiter
from fastapi.testclient import TestClient
from redis import Redis

from refcut_backend.api.app import create_app
from refcut_backend.api.pages import live
from refcut_backend.api.pages.doctor import DoctorIsBusyError, DoctorRuns
from refcut_backend.api.pages.live import EventStreams, TooManyStreamsError, click_of, shown_click
from refcut_backend.errors import ImageError
from refcut_backend.queue.recent_clicks import ClickLists, RecentClick, RecentClicks
from tests.support.backend_fixtures import LIMIT_BYTES
from tests.support.fake_wiring import FakeQueue, click_body, wiring_on
from tests.support.http_server import serving
from tests.support.recorded import click_result
from tests.support.web_process import wait_until

BROWSER = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}
HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture
def here(wiring) -> Iterator[TestClient]:
    """A browser on the machine of the backend."""
    with TestClient(create_app(wiring, LIMIT_BYTES), client=("127.0.0.1", 50000)) as client:
        yield client


def events(text: str) -> list[tuple[str, Any]]:
    """Server-sent events as (name, value)."""
    return [(name, json.loads(data)) for name, data in re.findall(r"event: (\w+)\ndata: (.*)\n", text)]


def test_browsers_get_a_page_and_programs_the_json_of_before(here: TestClient) -> None:
    page = here.get("/status", headers=BROWSER)
    assert page.headers["content-type"].startswith("text/html")
    assert page.headers["content-security-policy"].startswith("default-src 'self';")
    assert page.headers["vary"] == "Accept"
    for accept in ("*/*", "application/json", ""):
        answer = here.get("/status", headers={"Accept": accept})
        assert set(answer.json()) == {
            "version",
            "model_version",
            "models_fallen_back",
            "queue",
            "training",
            "masks_without_tick",
            "uptime_s",
            "clicks",
            "milliseconds",
        }


def test_from_another_machine_without_a_password_there_is_json_and_nothing_more(client: TestClient) -> None:
    assert "model_version" in client.get("/status", headers=BROWSER).json()
    for path in ("/status/clicks", "/status/events", "/status/speed"):
        assert client.get(path).status_code == 403, path


@pytest.mark.slow
def test_a_click_is_kept_with_its_reason_and_without_secrets(here: TestClient, wiring, queue) -> None:
    secret = "http://user:pass@host/a.jpg?X-Signature=canary"
    queue.fails_with = ImageError(f"{secret} cannot be fetched", hint="see the log")
    here.post("/predict", json=click_body(click_result("a", 1, 1, "Door")))
    (click,) = wiring.recent_clicks.latest().failed
    assert (click.project_id, click.task_id, click.label, click.outcome) == (7, 3, "Door", "image")
    assert "see the log" in click.problem
    assert "canary" not in click.problem
    assert "pass" not in click.problem
    shown = shown_click(click)
    assert shown["meaning"]
    assert shown["remedy"]
    assert "](" not in shown["remedy"]


def test_only_what_a_project_sent_is_a_click_and_not_the_empty_request_after_a_submit() -> None:
    fields = {"path": "/predict", "id": "a", "outcome": "no_clicks", "total_ms": 1.0, "project": 7}
    assert click_of(fields) is None
    assert click_of(fields | {"path": "/setup", "outcome": "failed"}) is None
    refused_unread = {"path": "/predict", "id": "a", "outcome": "unauthorized", "total_ms": 1.0}
    assert click_of(refused_unread) is None
    found = click_of(fields | {"outcome": "timeout"})
    assert found is not None
    assert found.has_failed


@pytest.mark.slow
def test_the_mask_of_a_click_is_there_in_a_small_size(here: TestClient, wiring) -> None:
    here.post("/predict", json=click_body(click_result("a", 1, 1, "Door")))
    (click,) = wiring.recent_clicks.latest().latest
    query = {"project": "7", "task": 3, "region": click.region_id}
    found = here.get("/status/mask", params=query).json()
    assert found["mask"]
    assert found["clicks"][0][2] is True
    assert here.get("/status/mask", params=query | {"region": "none"}).json() is None
    assert here.get("/status/mask", params=query | {"project": HOSTILE}).json() is None
    assert here.get("/status/mask", params=query | {"task": 2**63}).status_code == 400


def test_nginx_is_asked_to_pass_events_on_at_once(tmp_path) -> None:
    with (
        wiring_on(tmp_path, FakeQueue()) as wiring,
        serving(create_app(wiring, LIMIT_BYTES)) as client,
        httpx.stream("GET", f"{client.base_url}/status/events", timeout=60) as stream,
    ):
        assert stream.headers["X-Accel-Buffering"] == "no"


def test_an_open_page_hears_of_a_failed_click_within_two_seconds_and_the_server_stops_with_it_open(
    tmp_path, connection: Redis, monkeypatch
) -> None:
    queue = FakeQueue()
    with wiring_on(tmp_path, queue, recent_clicks=RecentClicks(connection)) as wiring:
        heard: list[tuple[str, Any]] = []
        with serving(create_app(wiring, LIMIT_BYTES)) as client:

            def listen() -> None:
                try:
                    with httpx.stream("GET", f"{client.base_url}/status/events", timeout=60) as stream:
                        for line in stream.iter_lines():
                            if line.startswith("event: "):
                                heard.append((line.removeprefix("event: "), None))
                            elif line.startswith("data: "):
                                heard[-1] = (heard[-1][0], json.loads(line.removeprefix("data: ")))
                except httpx.HTTPError:
                    heard.append(("closed", None))

            thread = threading.Thread(target=listen)
            thread.start()
            wait_until(lambda: {name for name, value in heard if value} == {"state", "clicks"})
            queue.fails_with = ImageError("404")
            client.post("/predict", json=click_body(click_result("a", 1, 1, HOSTILE)))
            wait_until(lambda: [name for name, value in heard if value and name == "click"])
            (shown,) = [value for name, value in heard if name == "click"]
            assert (shown["failed"], shown["outcome"]) == (True, "label_config")
            assert shown["remedy"]
        thread.join(20)
        assert not thread.is_alive()


def test_all_open_pages_share_what_one_of_them_has_read_and_there_are_not_too_many(monkeypatch) -> None:
    monkeypatch.setattr(live, "MAX_STREAMS", 3)
    reads: list[str] = []

    def read_clicks() -> ClickLists:
        reads.append("clicks")
        return ClickLists()

    async def run() -> None:
        streams = EventStreams(read_clicks, dict, CapacityLimiter(1))
        opened = [streams.open() for _ in range(3)]
        for stream in opened:
            assert events((await anext(stream)).decode()) == [("clicks", {"latest": [], "failed": []})]
        with pytest.raises(TooManyStreamsError):
            streams.open()
        await opened[0].aclose()  # type: ignore[attr-defined]
        streams.open()

    asyncio.run(run())
    assert reads == ["clicks"]


def test_a_burst_arrives_whole_and_in_its_order(monkeypatch) -> None:
    monkeypatch.setattr(live, "LOOK_EVERY_S", 0.01)
    click = RecentClick("a", 1.0, 7, 3, "Door", "answered", "", 1, "r", (), "s14", 1.0)
    burst = tuple(replace(click, id=f"{number}", at_s=float(number)) for number in (3, 2))
    failed = (replace(click, id="1", at_s=1.0, outcome="busy"),)
    lists = [ClickLists(), ClickLists(burst, failed)]

    async def run() -> list[tuple[str, Any]]:
        streams = EventStreams(lambda: lists.pop(0) if len(lists) > 1 else lists[0], dict, CapacityLimiter(1))
        stream = streams.open()
        received: list[tuple[str, Any]] = []
        while not [name for name, _ in received if name == "click"]:
            received += events((await anext(stream)).decode())
        return received

    assert [value["id"] for name, value in asyncio.run(run()) if name == "click"] == ["1", "2", "3"]


def test_a_database_that_is_silent_does_not_delay_the_event_of_a_failed_click(monkeypatch) -> None:
    monkeypatch.setattr(live, "LOOK_EVERY_S", 0.01)
    click = RecentClick("a", 1.0, 7, 3, "Door", "database", "", 1, "r", (), "s14", 1.0)
    lists = [ClickLists(), ClickLists((click,), (click,))]
    silent = threading.Event()

    async def run() -> list[str]:
        streams = EventStreams(
            lambda: lists.pop(0) if len(lists) > 1 else lists[0],
            lambda: {"waited": silent.wait(60)},
            CapacityLimiter(2),
        )
        stream = streams.open()
        names = [name for _ in range(2) for name, _ in events((await anext(stream)).decode())]
        silent.set()
        return names

    assert asyncio.run(run()) == ["clicks", "click"]


def doctor_that(code: str, limit_s: float = 60.0) -> DoctorRuns:
    return DoctorRuns((sys.executable, "-c", code), limit_s)


async def lines_of(doctor: DoctorRuns) -> list[bytes]:
    return [line async for line in doctor.start()]


def test_the_findings_of_the_checks_come_as_they_are_made_one_run_at_a_time() -> None:
    doctor = doctor_that('print(\'{"subject": "redis"}\', flush=True); import time; time.sleep(60)')

    async def run() -> None:
        lines = doctor.start()
        assert json.loads(await anext(lines)) == {"subject": "redis"}
        with pytest.raises(DoctorIsBusyError):
            doctor.start()
        await lines.aclose()  # type: ignore[attr-defined]
        assert len(await lines_of(doctor_that("print(1)"))) == 1

    asyncio.run(run())


def test_checks_that_cannot_start_can_be_started_later_and_never_run_twice(tmp_path: Path) -> None:
    command = tmp_path / "doctor"
    doctor = DoctorRuns((str(command),))

    async def run() -> None:
        with pytest.raises(FileNotFoundError):
            await anext(doctor.start())
        command.write_text("#!/bin/sh\necho found\nsleep 60\n")
        command.chmod(0o700)
        first, second = doctor.start(), doctor.start()
        assert await anext(first) == b"found\n"
        assert [line async for line in second] == []
        with pytest.raises(DoctorIsBusyError):
            doctor.start()
        await first.aclose()  # type: ignore[attr-defined]

    asyncio.run(run())


def test_checks_that_hang_are_ended() -> None:
    assert asyncio.run(lines_of(doctor_that("import time; time.sleep(600)", limit_s=0.2))) == []
