"""The photograph of a reference is gone: clicks are answered without it, and everybody hears which one and why."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from typer.testing import CliRunner

from refcut_backend.cli.main import app
from refcut_backend.queue.messages import LeftOutReference
from tests.support.fake_wiring import CREATED, click_body
from tests.support.recorded import LABEL_CONFIG, click_result
from tests.support.registry import DOOR, WHEEL, marked

SETUP = {"project": f"7.{CREATED}", "schema": LABEL_CONFIG, "hostname": "http://ls", "access_token": "t"}
LOST = "its image cannot be used: Label Studio at http://ls answers 404 for the image"


def reference_webhook(annotation: int, *result: dict[str, Any]) -> dict[str, Any]:
    return {
        "action": "ANNOTATION_CREATED",
        "project": {"id": 7, "label_config": LABEL_CONFIG},
        "task": {"id": annotation, "data": {"image": f"/data/upload/{annotation}.png"}},
        "annotation": {"id": annotation, "result": list(result), "updated_at": f"2026-01-0{annotation}"},
    }


@pytest.fixture
def references(client, wiring) -> list[int]:
    """Rows of two references of "Door", newest first."""
    client.post("/setup", json=SETUP)
    for annotation in (1, 2):
        client.post("/webhook", json=reference_webhook(annotation, DOOR, WHEEL, marked(DOOR)))
    return [one.id for one in wiring.clicks._references.newest(7, "Door", 4)]


def listed(tmp_path, monkeypatch) -> str:
    monkeypatch.setenv("REFCUT_STATE_DIR", str(tmp_path))
    monkeypatch.setattr("refcut_backend.cli.common.set_up_logging", lambda: None)
    done = CliRunner().invoke(app, ["references", "list", "--project", "7"], env={"NO_COLOR": "1"})
    assert done.exit_code == 0, done.output
    return done.output


def test_a_lost_reference_is_named_in_region_log_status_and_list_and_the_click_is_answered(
    client, wiring, queue, references, tmp_path, monkeypatch, caplog
):
    caplog.set_level("INFO", logger="refcut")
    newest, older = (wiring.clicks._references.load(one) for one in references)
    lost = LeftOutReference(newest.id, newest.version, newest.task_id, "image", LOST)
    queue.answer = replace(queue.answer, reference_versions=(older.version,), references_left_out=(lost,))
    body = click_body(click_result("a", 1, 1, "Door"))
    for _ in range(2):
        (region,) = client.post("/predict", json=body).json()["results"][0]["result"]
        assert region["meta"]["text"] == [
            f"RefCut reference: {older.version}",
            f"RefCut reference left out: {newest.version} (task 2): {LOST}",
        ]
    (line, _) = [record for record in caplog.records if getattr(record, "references_left_out", None)]
    assert LOST in line.references_left_out[0]
    warnings = [record for record in caplog.records if record.message == "reference left out"]
    assert len(warnings) == 1, "once, not at every click"
    (left_out,) = client.get("/status").json()["training"]["projects"]["7"]["left_out"]
    assert left_out == f"task 2, annotation 2: the reference of 'Door' is left out: {LOST}"
    assert listed(tmp_path, monkeypatch).count(f"in use, but left out: {LOST}") == 1

    queue.answer = replace(
        queue.answer, reference_versions=(newest.version, older.version), references_left_out=()
    )
    client.post("/predict", json=body)
    assert "left_out" not in client.get("/status").json()["training"]["projects"]["7"]
    assert "left out" not in listed(tmp_path, monkeypatch)
