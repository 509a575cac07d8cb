"""What the doctor says about this machine."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from model.checkpoints.version_folder import BASE_FILE, SHIPPED_DIR, VERSION_FILE
from refcut_backend.cli.doctor import Finding, machine_checks, run_checks
from refcut_backend.queue.redis import EmbeddedRedis, check_redis
from refcut_backend.settings import Settings
from tests.support.running_backend import free_port


def found_about(subject: str, settings: Settings) -> list[Finding]:
    return list(run_checks([check for check in machine_checks(settings) if check[0] == subject]))


def test_a_click_is_really_made(tmp_path: Path) -> None:
    found = found_about("model", Settings(state_dir=tmp_path, device="cpu"))
    assert [finding.state for finding in found if finding.subject == "click"] == ["ok"]


def test_weights_that_do_not_belong_together_are_found(tmp_path: Path) -> None:
    shutil.copy(SHIPPED_DIR / VERSION_FILE, tmp_path / VERSION_FILE)
    damaged = bytearray((SHIPPED_DIR / BASE_FILE).read_bytes())
    damaged[-1] ^= 1
    (tmp_path / BASE_FILE).write_bytes(bytes(damaged))
    *_, last = found_about("model", Settings(model_dir=tmp_path))
    assert last.state == "wrong"
    assert "another base" in last.what


def test_a_gpu_that_was_asked_for_and_is_not_there_is_wrong(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    *_, last = found_about("model", Settings(state_dir=tmp_path, device="cuda"))
    assert last.state == "wrong"
    assert "use auto or cpu" in last.advice


def test_a_redis_that_does_not_answer_is_wrong() -> None:
    (finding,) = found_about("redis", Settings(redis_url="redis://127.0.0.1:1/0"))
    assert finding.state == "wrong"
    assert "REFCUT_REDIS_URL" in finding.advice


def test_a_redis_without_a_worker_is_wrong() -> None:
    with EmbeddedRedis() as server:
        check_redis(server.url)
        found = found_about("redis", Settings(redis_url=server.url))
    assert [finding.state for finding in found] == ["ok", "wrong"]
    assert "refcut worker" in found[-1].advice


def test_a_web_server_that_does_not_run_is_only_noted() -> None:
    (finding,) = found_about("web server", Settings(port=free_port()))
    assert finding.state == "note"


def test_a_database_that_cannot_be_opened_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (finding,) = found_about("database", Settings(state_dir=tmp_path / "file"))
    assert finding.state == "wrong"
    assert "REFCUT_STATE_DIR" in finding.advice
