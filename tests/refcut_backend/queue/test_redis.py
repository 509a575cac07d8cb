"""The embedded Redis, and how commands find it."""

from __future__ import annotations

import os
import signal
import tempfile
from pathlib import Path
from urllib.parse import unquote

import psutil
import pytest

from refcut_backend.errors import ConfigError
from refcut_backend.queue.redis import FILE, EmbeddedRedis, check_redis, find_redis, named_redis
from refcut_backend.settings import Settings
from tests.support.worker_farm import wait_for


@pytest.mark.parametrize("url", ["redis://127.0.0.1:9", "nonsense"])
def test_a_redis_that_does_not_answer_at_the_start_is_a_clear_error(url):
    with pytest.raises(ConfigError, match="REFCUT_REDIS_URL"):
        check_redis(url)


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
