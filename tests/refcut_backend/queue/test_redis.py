from __future__ import annotations

import os
import signal

import psutil
import pytest

from refcut_backend.errors import ConfigError
from refcut_backend.queue.redis import EmbeddedRedis, check_redis
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
