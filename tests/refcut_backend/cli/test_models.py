"""`refcut models`, and the version that /setup then reports."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from redis import Redis
from typer.testing import CliRunner

from refcut_backend.api.app import create_app
from refcut_backend.cli.main import app
from refcut_backend.database.engine import open_database
from refcut_backend.settings import Settings
from refcut_backend.versions.serving import open_model_store
from refcut_backend.versions.store import ModelStore
from refcut_backend.wiring import wire_backend
from tests.support.trained_folders import trained_folder, version_metadata
from tests.support.worker_farm import wait_for

pytestmark = pytest.mark.usefixtures("databases_closed")


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    shared = trained_folder(tmp_path / "tiny")
    given = {
        "STATE_DIR": str(tmp_path / "state"),
        "MODEL_DIR": str(shared),
        "RUNTIME": "torch",
        "DEVICE": "cpu",
    }
    for name, value in given.items():
        monkeypatch.setenv(f"REFCUT_{name}", value)
    settings = Settings()
    open_database(settings.database).dispose()
    return settings


@pytest.fixture
def store(settings: Settings) -> ModelStore:
    return open_model_store(settings)


@pytest.fixture
def refcut(settings: Settings, monkeypatch: pytest.MonkeyPatch):
    """Runs `refcut models ...` in this process."""
    monkeypatch.setattr("refcut_backend.cli.common.set_up_logging", lambda: None)

    def run(*arguments: str, fails: bool = False) -> str:
        done = CliRunner().invoke(app, ["models", *arguments], env={"NO_COLOR": "1"})
        assert (done.exit_code != 0) == fails, done.output
        assert done.exception is None or isinstance(done.exception, SystemExit)
        return done.output

    return run


def published(store: ModelStore, tmp_path: Path, seed: int, **more: object) -> str:
    return store.publish(7, trained_folder(tmp_path / f"run-{seed}", seed), version_metadata(**more))


def test_the_list_shows_figures_decision_and_what_serves(store, tmp_path, refcut):
    assert "no versions" in refcut("list", "--project", "7")
    figures = {
        "serving": {"noc85": 6.4, "first_click_iou": 0.5},
        "candidate": {"noc85": 4.2, "first_click_iou": 0.61},
    }
    good = published(
        store,
        tmp_path,
        1,
        judgement=figures,
        decision={"promote": True, "reasons": []},
        images={"train": 50},
    )
    bad = published(
        store, tmp_path, 2, decision={"promote": False, "reasons": ["worse"]}, images={"train": "\x1b[31m9"}
    )
    refcut("promote", "--project", "7", good)
    shown = refcut("list", "--project", "7")
    (first,) = (line for line in shown.splitlines() if good in line)
    (second,) = (line for line in shown.splitlines() if bad in line)
    assert all(text in first for text in ("6.40 > 4.20", "0.50 > 0.61", "passed", "serves", "50"))
    assert "failed" in second
    assert "serves" not in second
    assert "\x1b[31m" not in shown
    assert good not in refcut("list", "--project", "8")


def test_show_prints_the_whole_manifest_and_writes_pictures(store, tmp_path, refcut):
    version = published(store, tmp_path, 1, decision={"promote": False, "reasons": ["worse"]})
    shown = json.loads(refcut("show", version))
    assert shown["said"]["decision"]["reasons"] == ["worse"]
    refcut("show", version, "--pictures", str(tmp_path / "pictures"))
    assert os.listdir(tmp_path / "pictures") == ["curves.png"]


def test_promote_rollback_and_prune(store, tmp_path, refcut, settings):
    versions = [published(store, tmp_path, seed) for seed in range(5)]
    assert f"{versions[0]} serves project 7" in refcut("promote", "--project", "7", versions[0])
    refcut("promote", "--project", "7", versions[4])
    assert "removed" in refcut("prune", "--project", "7")
    assert set(store.versions(7)) == {versions[0], *versions[2:]}
    assert f"{versions[0]} serves project 7" in refcut("rollback", "--project", "7")
    assert "tiny-" in refcut("rollback", "--project", "7")
    assert "nothing served project 7 before" in refcut("rollback", "--project", "7", fails=True)


def test_what_cannot_be_done_is_explained_in_one_line(store, tmp_path, refcut):
    version = published(store, tmp_path, 1)
    assert "not a version of project 8" in refcut("promote", "--project", "8", version, fails=True)
    assert "there is no version" in refcut("promote", "--project", "7", "tiny-00000000", fails=True)
    assert "not the name of a version" in refcut("show", "../secrets", fails=True)


@pytest.mark.slow
def test_setup_reports_each_projects_own_version_whatever_becomes_of_redis(
    store, tmp_path, refcut, settings, connection: Redis
):
    version = published(store, tmp_path, 1)
    wiring = wire_backend(settings, connection)
    with TestClient(create_app(wiring, 2**22)) as client:

        def version_in_setup(project: int) -> str:
            body = {
                "project": f"{project}.1",
                "schema": "<View/>",
                "hostname": "http://127.0.0.1:1",
                "access_token": "",
            }
            return str(client.post("/setup", json=body).json()["model_version"])

        shared = version_in_setup(7)
        assert shared.startswith("tiny-")
        refcut("promote", "--project", "7", version)
        wait_for(lambda: version_in_setup(7) == version, "the promoted version serves")
        assert version_in_setup(8) == shared
        assert client.get("/versions").json() == {"versions": [shared, version]}
        connection.flushall()
        assert version_in_setup(7) == version
        assert "refcut_models_fallen_back 0.0" in client.get("/metrics").text
        refcut("rollback", "--project", "7")
        wait_for(lambda: version_in_setup(7) == shared, "the shared model serves again")
