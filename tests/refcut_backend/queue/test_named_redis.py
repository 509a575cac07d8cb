from __future__ import annotations

import pytest

from refcut_backend.errors import ConfigError
from refcut_backend.queue.redis import FILE, find_redis, named_redis
from refcut_backend.settings import Settings


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
