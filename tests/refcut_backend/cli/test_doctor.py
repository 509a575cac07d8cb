"""What the doctor says about a project's Label Studio."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from model.checkpoints.version_folder import BASE_FILE, SHIPPED_DIR, VERSION_FILE
from refcut_backend.cli.doctor import Finding, machine_checks, print_findings, project_checks, run_checks
from refcut_backend.database.engine import open_database
from refcut_backend.database.projects import Projects
from refcut_backend.label_studio.connection import Connection
from refcut_backend.queue.redis import EmbeddedRedis, check_redis, connect_redis
from refcut_backend.settings import Settings
from tests.support.fake_label_studio_client import TOKEN, fake_label_studio, healthy
from tests.support.recorded import LABEL_CONFIG, second_label_result
from tests.support.registry import DOOR, marked, open_registry
from tests.support.running_backend import free_port


def findings(state_dir: Path, address: str, token: str = TOKEN, config: str = LABEL_CONFIG) -> list[Finding]:
    settings = Settings(state_dir=state_dir)
    Projects(open_database(settings.database)).remember(7, Connection(address, token), config)
    return list(run_checks(project_checks(settings, None)))


def wrong(found: list[Finding]) -> list[Finding]:
    return [finding for finding in found if finding.state == "wrong"]


def test_a_healthy_project_has_nothing_wrong_and_a_real_image_was_read(tmp_path: Path) -> None:
    with fake_label_studio(healthy()) as address:
        found = findings(tmp_path, address)
    assert not wrong(found), found
    assert any("640 x 420 px" in finding.what for finding in found)


@pytest.mark.parametrize(
    ("path", "answer", "advice"),
    [
        ("/api/current-user/whoami", 401, "REFCUT_ACCESS_TOKEN"),
        ("/api/ml", [], "Interactive preannotations"),
        ("/api/ml", [{"id": 1, "project": 7, "url": "http://x", "is_interactive": False}], "Interactive"),
        ("/api/webhooks", [], "connect it again"),
        ("/data/upload/7/te66.jpg", 404, "does the file still exist"),
        ("/data/upload/7/te66.jpg", b"no image", "allowed: JPEG"),
    ],
)
def test_what_is_wrong_comes_with_what_to_do(tmp_path: Path, path: str, answer: Any, advice: str) -> None:
    with fake_label_studio(healthy() | {path: answer}) as address:
        (finding,) = wrong(findings(tmp_path, address))
    assert advice in finding.advice


def test_a_reference_whose_photograph_is_lost_is_wrong_and_named(tmp_path: Path) -> None:
    with open_registry(tmp_path) as registry, fake_label_studio(healthy()) as address:
        registry.projects.remember(7, Connection(address, TOKEN), LABEL_CONFIG)
        project = {"id": 7, "label_config": LABEL_CONFIG}
        for number, name in ((1, "te66.jpg"), (2, "gone.jpg")):
            task = {"id": number, "data": {"image": f"/data/upload/7/{name}"}}
            annotation = {"id": number, "result": [DOOR, marked(DOOR)], "updated_at": f"2026-01-0{number}"}
            registry.follow(
                {"action": "ANNOTATION_CREATED", "project": project, "task": task, "annotation": annotation}
            )
        (finding,) = wrong(findings(tmp_path, address))
    assert "reference of 'Door' in task 2, annotation 2" in finding.what
    assert "404" in finding.what
    assert "does the file still exist" in finding.advice


def test_an_odd_annotation_is_named_and_leaves_the_project_well(tmp_path: Path) -> None:
    with open_registry(tmp_path) as registry, fake_label_studio(healthy()) as address:
        registry.projects.remember(7, Connection(address, TOKEN), LABEL_CONFIG)
        registry.follow(
            {
                "action": "ANNOTATION_CREATED",
                "project": {"id": 7, "label_config": LABEL_CONFIG},
                "task": {"id": 5, "data": {}},
                "annotation": {"id": 6, "result": ["x"], "updated_at": "2026-01-01"},
            }
        )
        found = findings(tmp_path, address)
    assert not wrong(found)
    (finding,) = [one for one in found if "left out" in one.what]
    assert "task 5, annotation 6" in finding.what
    assert "item 1" in finding.what


def test_masks_with_two_labels_are_counted_and_their_annotations_named_until_they_are_gone(
    tmp_path: Path,
) -> None:
    project = {"id": 7, "label_config": LABEL_CONFIG}
    with open_registry(tmp_path) as registry, fake_label_studio(healthy()) as address:
        registry.projects.remember(7, Connection(address, TOKEN), LABEL_CONFIG)
        for number in range(1, 13):
            registry.follow(
                {
                    "action": "ANNOTATION_CREATED",
                    "project": project,
                    "task": {"id": number, "data": {}},
                    "annotation": {
                        "id": number,
                        "result": [DOOR, second_label_result(DOOR, "Door")],
                        "updated_at": "2026-01-01",
                    },
                }
            )
        (finding,) = [one for one in findings(tmp_path, address) if "second" in one.what]
        assert finding.state == "note"
        assert "12 masks" in finding.what
        assert "annotations 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, ..." in finding.what
        assert "refcut masks repair --project 7" in finding.advice
        gone = [{"id": number} for number in range(1, 13)]
        registry.follow({"action": "ANNOTATIONS_DELETED", "project": project, "annotations": gone})
        assert not [one for one in findings(tmp_path, address) if "second" in one.what]


def test_a_refused_token_is_never_shown(tmp_path: Path) -> None:
    with fake_label_studio(healthy()) as address:
        found = findings(tmp_path, address, token="f" * 40)
    assert wrong(found)
    assert "f" * 40 not in repr(found)


def test_an_unreachable_label_studio_is_named(tmp_path: Path) -> None:
    with fake_label_studio({}) as address:
        pass
    (finding,) = wrong(findings(tmp_path, address))
    assert address in finding.what
    assert "REFCUT_LABEL_STUDIO_URL" in finding.advice


def test_problems_of_the_label_config_are_findings(tmp_path: Path) -> None:
    config = LABEL_CONFIG.replace('<Choice value="Reference"/>', '<Choice value="Other"/>')
    with fake_label_studio(healthy()) as address:
        (finding,) = wrong(findings(tmp_path, address, config=config))
    assert "nobody can give a reference" in finding.what


def test_a_project_that_never_called_setup_is_explained(tmp_path: Path) -> None:
    open_database(Settings(state_dir=tmp_path).database).dispose()
    (finding,) = run_checks(project_checks(Settings(state_dir=tmp_path), 99))
    assert finding.state == "wrong"
    assert "/setup" in finding.advice


def test_without_any_project_the_next_step_is_named(tmp_path: Path) -> None:
    open_database(Settings(state_dir=tmp_path).database).dispose()
    (finding,) = run_checks(project_checks(Settings(state_dir=tmp_path), None))
    assert finding.state == "note"
    assert "Connect Model" in finding.advice


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
