"""What the doctor says about this machine, and how it says it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from model.checkpoints.version_folder import BASE_FILE, SHIPPED_DIR, VERSION_FILE
from refcut_backend.cli import doctor
from refcut_backend.cli.doctor import Finding, machine_checks, print_findings, run_checks
from refcut_backend.cli.running_backends import RunningBackend
from refcut_backend.queue.redis import EmbeddedRedis, check_redis, connect_redis, named_redis
from refcut_backend.settings import Settings
from tests.support.running_backend import free_port


def found_about(subject: str, settings: Settings) -> list[Finding]:
    return list(run_checks([check for check in machine_checks(settings) if check[0] == subject]))


@pytest.mark.slow
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


def test_a_gpu_that_is_required_and_missing_is_wrong(tmp_path: Path) -> None:
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


def test_a_redis_that_cannot_be_written_is_wrong() -> None:
    with EmbeddedRedis() as server:
        check_redis(server.url)
        with connect_redis(server.url) as connection:
            connection.config_set("maxmemory", "1")
        (finding,) = found_about("redis", Settings(redis_url=server.url))
    assert (finding.state, finding.what) == ("wrong", "Redis has no memory left")
    assert "maxmemory" in finding.advice


def test_a_redis_without_a_worker_is_wrong() -> None:
    with EmbeddedRedis() as server:
        check_redis(server.url)
        found = found_about("redis", Settings(redis_url=server.url))
    assert [finding.state for finding in found] == ["ok", "wrong"]
    assert "refcut worker" in found[-1].advice


def test_the_redis_that_the_running_backend_embeds_is_checked(tmp_path: Path) -> None:
    with EmbeddedRedis() as server, named_redis(tmp_path, server.url):
        check_redis(server.url)
        found = found_about("redis", Settings(state_dir=tmp_path))
    assert "embeds" in found[0].what
    assert [finding.state for finding in found] == ["ok", "wrong"], "no worker is ready there"


def test_a_port_that_another_backend_listens_on_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = RunningBackend(1, str(tmp_path / "other"), "127.0.0.1", 9123, ())
    monkeypatch.setattr(doctor, "running_backends", lambda: [other])
    (finding,) = found_about("web server", Settings(state_dir=tmp_path, port=9123))
    assert finding.state == "wrong"
    assert str(tmp_path / "other") in finding.what


@pytest.mark.parametrize(("free", "state"), [(10 * 2**20, "wrong"), (2**30, "note"), (100 * 2**30, "ok")])
def test_a_disk_that_is_nearly_full_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, state: str
) -> None:
    asked: list[Path] = []

    def usage(path: Path) -> SimpleNamespace:
        asked.append(path)
        return SimpleNamespace(free=free)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    (finding,) = found_about("disk", Settings(state_dir=tmp_path / "not" / "yet" / "there"))
    assert finding.state == state
    assert asked == [tmp_path]


def test_more_workers_than_cores_are_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _process: {0, 1})
    assert doctor.check_threads(Settings(workers=2), 1).state == "ok"
    finding = doctor.check_threads(Settings(workers=3), 1)
    assert finding.state == "note"
    assert "REFCUT_WORKERS" in finding.advice


def test_a_web_server_that_does_not_run_is_only_noted() -> None:
    (finding,) = found_about("web server", Settings(port=free_port()))
    assert finding.state == "note"


def test_a_database_that_is_not_there_is_wrong_and_is_not_made(tmp_path: Path) -> None:
    (finding,) = found_about("database", Settings(state_dir=tmp_path))
    assert finding.state == "wrong"
    assert "REFCUT_STATE_DIR" in finding.advice
    assert list(tmp_path.iterdir()) == []


def test_a_database_that_cannot_be_opened_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (finding,) = found_about("database", Settings(state_dir=tmp_path / "file"))
    assert finding.state == "wrong"
    assert "REFCUT_STATE_DIR" in finding.advice


def shown(*findings: Finding) -> tuple[bool, str]:
    console = Console(record=True, width=80)
    return print_findings(findings, console), console.export_text()


def test_one_wrong_finding_makes_the_whole_wrong() -> None:
    well, text = shown(
        Finding("redis", "ok", "answers"), Finding("model", "wrong", "damaged", "restore the file")
    )
    assert not well
    assert "restore the file" in text


def test_a_note_leaves_it_well() -> None:
    assert shown(Finding("web server", "note", "not running", "start it"))[0]


def test_brackets_in_a_message_are_shown_as_they_are() -> None:
    assert "labels ['a'] [bold]" in shown(Finding("x", "ok", "labels ['a'] [bold]"))[1]


def test_a_check_that_breaks_is_a_finding_without_its_text_and_the_others_go_on() -> None:
    def breaks() -> list[Finding]:
        raise ValueError("canary")

    first, second = run_checks([("a", breaks), ("b", lambda: [Finding("b", "ok", "answers")])])
    assert (first.state, second.state) == ("wrong", "ok")
    assert "ValueError" in first.what
    assert "canary" not in first.what + first.advice
