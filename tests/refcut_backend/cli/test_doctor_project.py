"""What the doctor says about a project and its Label Studio."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy.orm import Session

from refcut_backend.api.auth import SECRET_HEADER
from refcut_backend.cli.doctor import Finding, run_checks
from refcut_backend.cli.doctor_project import ProjectDoctor, project_checks
from refcut_backend.database.click_tables import UnacceptedMask
from refcut_backend.database.engine import open_database
from refcut_backend.label_studio.connection import Connection
from refcut_backend.settings import Settings
from refcut_backend.wiring import open_stores
from tests.support.fake_label_studio_client import BACKEND, TOKEN, fake_label_studio, healthy
from tests.support.recorded import LABEL_CONFIG, second_label_result
from tests.support.registry import DOOR, marked, open_registry


def findings(state_dir: Path, address: str, token: str = TOKEN, config: str = LABEL_CONFIG) -> list[Finding]:
    settings = Settings(state_dir=state_dir)
    remember(settings, Connection(address, token), config)
    return list(run_checks(project_checks(settings, None)))


def remember(settings: Settings, connection: Connection, config: str = LABEL_CONFIG) -> None:
    """Have the backend know project 7."""
    with open_stores(settings) as stores:
        stores.projects.remember(7, connection, config)


@contextmanager
def label_studio(state_dir: Path, changes: dict[str, Any] | None = None) -> Iterator[str]:
    """A healthy Label Studio, apart from `changes`. Its webhooks reach the backend on the state folder."""

    def send_webhook() -> int:
        with open_registry(state_dir) as registry:
            registry.follow(
                {"action": "PROJECT_UPDATED", "project": {"id": 7, "updated_at": "2026-01-01T00:00:00Z"}}
            )
        return 200

    with fake_label_studio(healthy() | (changes or {}), send_webhook) as address:
        yield address


def wrong(found: list[Finding]) -> list[Finding]:
    return [finding for finding in found if finding.state == "wrong"]


def test_a_healthy_project_has_nothing_wrong_and_a_real_image_was_read(tmp_path: Path) -> None:
    with label_studio(tmp_path) as address:
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
    with label_studio(tmp_path, {path: answer}) as address:
        (finding,) = wrong(findings(tmp_path, address))
    assert advice in finding.advice


def test_a_reference_whose_photograph_is_lost_is_wrong_and_named(tmp_path: Path) -> None:
    with open_registry(tmp_path) as registry, label_studio(tmp_path) as address:
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
    with open_registry(tmp_path) as registry, label_studio(tmp_path) as address:
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


@pytest.mark.slow
def test_masks_with_two_labels_are_counted_and_their_annotations_named_until_they_are_gone(
    tmp_path: Path,
) -> None:
    project = {"id": 7, "label_config": LABEL_CONFIG}
    with open_registry(tmp_path) as registry, label_studio(tmp_path) as address:
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
    with label_studio(tmp_path) as address:
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
    with label_studio(tmp_path) as address:
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


def about_webhook(state_dir: Path, status: int = 200, **settings: Any) -> Finding:
    """The finding about a webhook that does not arrive. Label Studio sends it with the header X: 1."""
    hook = {"id": 1, "project": 7, "url": f"{BACKEND}/webhook", "is_active": True, "headers": {"X": "1"}}
    with fake_label_studio(healthy() | {"/api/webhooks": [hook]}, lambda: status) as address:
        checked = Settings(state_dir=state_dir, **settings)
        remember(checked, Connection(address, TOKEN))
        found = list(run_checks([("7", ProjectDoctor(checked, 7, webhook_limit_s=0.2).check)]))
    (finding,) = [one for one in found if "webhook" in one.what]
    return finding


def test_a_webhook_that_label_studio_sent_and_that_did_not_arrive_is_wrong(tmp_path: Path) -> None:
    finding = about_webhook(tmp_path)
    assert finding.state == "wrong"
    assert f"{BACKEND}/webhook" in finding.what
    assert "does that address lead to this backend" in finding.advice


PASSWORD = {"basic_auth_user": "u", "basic_auth_password": SecretStr("canary-password")}


@pytest.mark.parametrize("secret", [None, SecretStr("canary-secret")])
def test_webhooks_that_the_backend_refuses_are_wrong_with_what_they_lack(
    tmp_path: Path, secret: SecretStr | None
) -> None:
    finding = about_webhook(tmp_path, webhook_secret=secret, **PASSWORD)
    assert finding.state == "wrong"
    assert "refuses it" in finding.what
    assert SECRET_HEADER in finding.advice
    assert ("set REFCUT_WEBHOOK_SECRET" in finding.advice) == (secret is None)
    assert "canary" not in repr(finding)


def test_a_token_that_may_not_change_the_project_leaves_the_webhook_untried(tmp_path: Path) -> None:
    assert about_webhook(tmp_path, status=403).state == "note"


def test_a_password_in_the_address_of_the_backend_is_never_shown(tmp_path: Path) -> None:
    address = "http://lead:canary@127.0.0.1:9090/refcut"
    backend = {"id": 1, "project": 7, "url": address, "is_interactive": True, "state": "CO"}
    hook = {"id": 1, "project": 7, "url": f"{address}/webhook?key=canary", "is_active": True}
    with fake_label_studio(healthy() | {"/api/ml": [backend], "/api/webhooks": [hook]}) as studio:
        settings = Settings(state_dir=tmp_path)
        remember(settings, Connection(studio, TOKEN))
        found = list(run_checks([("7", ProjectDoctor(settings, 7, webhook_limit_s=0.2).check)]))
    assert any("http://127.0.0.1:9090/refcut/webhook" in finding.what for finding in found)
    assert "canary" not in repr(found)


@pytest.mark.parametrize("state", ["DI", "ER"])
def test_a_backend_that_label_studio_does_not_reach_is_wrong(tmp_path: Path, state: str) -> None:
    backend = {"id": 1, "project": 7, "url": BACKEND, "is_interactive": True, "state": state}
    with label_studio(tmp_path, {"/api/ml": [backend]}) as address:
        (finding,) = wrong(findings(tmp_path, address))
    assert f"{BACKEND}, which Label Studio does not reach" in finding.what


def test_labels_without_a_reference_in_use_are_named(tmp_path: Path) -> None:
    with open_registry(tmp_path) as registry, label_studio(tmp_path) as address:
        registry.projects.remember(7, Connection(address, TOKEN), LABEL_CONFIG)
        registry.follow(
            {
                "action": "ANNOTATION_CREATED",
                "project": {"id": 7, "label_config": LABEL_CONFIG},
                "task": {"id": 3, "data": {"image": "/data/upload/7/te66.jpg"}},
                "annotation": {"id": 6, "result": [DOOR, marked(DOOR)], "updated_at": "2026-01-01"},
            }
        )
        found = findings(tmp_path, address)
    assert not wrong(found), found
    (finding,) = [one for one in found if one.what.startswith("no reference in use")]
    assert "Wheel" in finding.what
    assert "Door" not in finding.what


@pytest.mark.slow
def test_masks_without_their_tick_are_counted(tmp_path: Path) -> None:
    with label_studio(tmp_path) as address:
        findings(tmp_path, address)
        with open_registry(tmp_path) as registry, Session(registry.engine) as session, session.begin():
            session.add(
                UnacceptedMask(
                    project_id=7,
                    task_id=3,
                    region_id="rc-a",
                    label="Door",
                    to_name="image",
                    clicks=[["a", 1, 1, True]],
                    width=4,
                    height=4,
                    score=0.9,
                    reference_versions=[],
                    requested_at_s=1.0,
                    rle=b"",
                    annotation_id=6,
                )
            )
        (finding,) = [one for one in findings(tmp_path, address) if "tick" in one.what]
    assert finding.what.startswith("1 mask")
    assert "masks recover --project 7" in finding.advice


@pytest.mark.slow
def test_polygons_whose_labels_exports_would_lose_are_noted(tmp_path: Path) -> None:
    polygons = LABEL_CONFIG.replace("BrushLabels", "PolygonLabels").replace(
        "KeypointLabels", "KeyPointLabels"
    )
    with label_studio(tmp_path) as address:
        assert any("lose the labels" in one.what for one in findings(tmp_path, address, config=polygons))
        spelled = polygons.replace("KeyPointLabels", "KeypointLabels")
        assert not any("lose the labels" in one.what for one in findings(tmp_path, address, config=spelled))
