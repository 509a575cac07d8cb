"""What the doctor says about a project's Label Studio."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from refcut_backend.cli.doctor import Finding, project_checks, run_checks
from refcut_backend.database.engine import open_database
from refcut_backend.database.projects import Projects
from refcut_backend.label_studio.connection import Connection
from refcut_backend.settings import Settings
from tests.support.fake_label_studio_client import TOKEN, fake_label_studio, healthy
from tests.support.recorded import LABEL_CONFIG


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
    (finding,) = run_checks(project_checks(Settings(state_dir=tmp_path), 99))
    assert finding.state == "wrong"
    assert "/setup" in finding.advice


def test_without_any_project_the_next_step_is_said(tmp_path: Path) -> None:
    (finding,) = run_checks(project_checks(Settings(state_dir=tmp_path), None))
    assert finding.state == "note"
    assert "Connect Model" in finding.advice
