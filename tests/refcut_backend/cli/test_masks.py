"""What `refcut masks` mends: masks that were submitted without the tick, and masks that have two labels."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine
from typer.testing import CliRunner, Result

from refcut_backend.cli.main import app
from refcut_backend.clicks.forgotten_masks import KEPT_S, ForgottenMasks
from refcut_backend.clicks.history import ClickHistory
from refcut_backend.clicks.options import AnswerRules
from refcut_backend.clicks.recover_masks import recover_all
from refcut_backend.clicks.second_labels import TwiceLabelled, twice_labelled
from refcut_backend.clicks.service import ClickService
from refcut_backend.label_studio.payloads import Webhook
from refcut_backend.settings import Settings
from refcut_backend.wiring import mask_recovery, open_stores
from tests.support.label_studio_api import LabelStudioApi, serving
from tests.support.one_version import OneVersion
from tests.support.recorded import REPOSITORY, click_result, second_label_result
from tests.support.registry import Registry, open_registry
from tests.support.squares import Editor, SquareQueue

POLYGON_CONFIG = (REPOSITORY / "label_config" / "clicks_polygon.xml").read_text()
TASK = 3
DOT, OTHER_DOT = click_result("a", 20, 30, "Door"), click_result("b", 70, 60, "Wheel")


@dataclass
class Office:
    """An annotator at task 3 of project 7, and the backend."""

    api: LabelStudioApi
    registry: Registry
    service: ClickService
    editor: Editor
    forgotten: ForgottenMasks

    def click(self, *dots: dict[str, Any]) -> list[dict[str, Any]]:
        """The regions of the answer."""
        return self.editor.send(*dots).prediction["result"]

    def submit(self, *result: dict[str, Any], annotation_id: int = 1) -> None:
        """Submits the annotation, as the browser does: the webhook comes, and then an empty request."""
        self.follow(self.api.annotate(annotation_id, TASK, *result))
        self.editor.send()

    def follow(self, webhook: dict[str, Any]) -> None:
        self.service.follow(Webhook.model_validate(webhook))

    def stored(self, annotation_id: int = 1) -> list[dict[str, Any]]:
        return self.api.annotations[annotation_id]["result"]

    @property
    def missing(self) -> int:
        """What /status and `refcut status` count."""
        return self.forgotten.counts().get(7, 0)


@pytest.fixture
def office(tmp_path: Path, monkeypatch) -> Iterator[Office]:
    monkeypatch.setenv("REFCUT_STATE_DIR", str(tmp_path))
    with serving(LabelStudioApi()) as api, open_registry(tmp_path) as registry:
        registry.connect(api)
        engine: Engine = registry.engine
        service = ClickService(
            SquareQueue(), registry.references, OneVersion("v1"), AnswerRules(), ClickHistory(engine, 600)
        )
        yield Office(api, registry, service, Editor(service, task=TASK), ForgottenMasks(engine))


def refcut(*arguments: str) -> Result:
    handlers = logging.getLogger().handlers[:]
    try:
        return CliRunner().invoke(app, arguments, catch_exceptions=False)
    finally:
        logging.getLogger().handlers[:] = handlers  # the command's own writes to a stream that is closed now


def test_a_mask_that_was_submitted_without_the_tick_is_counted_and_put_back(office):
    (answered,) = office.click(DOT)
    office.submit(DOT)
    assert office.missing == 1
    assert "masks recover" in refcut("status").stdout
    result = refcut("masks", "recover", "--project", "7")
    assert (result.exit_code, result.stdout) == (0, "task 3, annotation 1: Door\n1 masks recovered\n")
    assert office.stored() == [answered], "the mask has come, and its dot has gone"
    assert office.missing == 0
    assert refcut("masks", "recover", "--project", "7").stdout == "0 masks recovered\n"


def test_the_dots_that_stepped_the_mask_go_with_those_that_made_it(office):
    office.click(DOT)
    step = click_result("s", 5, 5, "Larger")
    (answered,) = office.click(step)
    office.submit(DOT, step)
    refcut("masks", "recover", "--project", "7")
    assert office.stored() == [answered]


def test_what_else_is_in_the_annotation_stays(office):
    (door,) = office.click(DOT)
    (wheel,) = office.click(OTHER_DOT)
    stray = click_result("stray", 1, 1, "Hood")
    office.submit(wheel, stray, DOT)
    assert office.missing == 1
    refcut("masks", "recover", "--project", "7")
    assert office.stored() == [wheel, stray, door]


def test_a_mask_that_was_accepted_or_rejected_is_not_missing(office):
    (door,) = office.click(DOT)
    office.click(OTHER_DOT)
    office.submit(door, DOT)
    assert office.missing == 0, "in-canvas accept leaves the dots; the wheel has neither dot nor mask"
    office.submit(DOT)
    assert office.missing == 0, "the mask was accepted once, and deleted by hand"
    assert refcut("masks", "recover", "--project", "7").stdout == "0 masks recovered\n"


def test_whatever_comes_first_the_webhook_or_the_empty_request(office):
    office.click(DOT)
    office.editor.send()
    office.follow(office.api.annotate(1, TASK, DOT))
    assert office.missing == 1
    (wheel,) = office.click(OTHER_DOT)
    office.editor.send()
    office.follow(office.api.annotate(1, TASK, DOT, wheel))
    assert office.missing == 1
    assert len(office.forgotten.of_task(7, TASK)) == 1, "the accepted mask is not kept"


def test_a_later_tick_a_removed_dot_or_a_deleted_annotation_ends_it(office):
    (door,) = office.click(DOT)
    office.submit(DOT)
    office.submit(annotation_id=1)
    assert office.missing == 0
    office.submit(DOT)
    office.follow(office.api.delete_annotation(1))
    assert office.missing == 0
    office.submit(DOT, annotation_id=2)
    office.submit(door, annotation_id=2)
    assert office.missing == 0
    assert office.forgotten.of_task(7, TASK) == []


def test_polygons_come_back_as_polygons(office):
    office.registry.connect(office.api, POLYGON_CONFIG)
    office.editor.label_config = POLYGON_CONFIG
    answered = office.click(DOT)
    office.submit(DOT)
    refcut("masks", "recover", "--project", "7")
    assert office.stored() == answered
    assert answered[0]["type"] == "polygonlabels"


def test_a_lost_webhook_keeps_the_command_from_nothing_and_a_dry_run_changes_nothing(office):
    office.click(DOT)
    office.api.annotate(1, TASK, DOT)
    office.editor.send()
    assert office.missing == 0
    result = refcut("masks", "recover", "--project", "7", "--dry-run")
    assert result.stdout == "task 3, annotation 1: Door\n1 masks would be recovered\n"
    assert office.stored() == [DOT]
    assert refcut("masks", "recover", "--project", "7").stdout.endswith("1 masks recovered\n")


def test_a_mask_that_two_annotations_lack_is_put_into_both(office):
    (answered,) = office.click(DOT)
    office.submit(DOT)
    office.submit(DOT, annotation_id=2)
    assert refcut("masks", "recover", "--project", "7").stdout.endswith("2 masks recovered\n")
    assert office.stored(1) == office.stored(2) == [answered]
    assert office.missing == 0


def test_with_the_setting_it_happens_by_itself(office, tmp_path):
    office.click(DOT)
    office.submit(DOT)
    settings = Settings(state_dir=tmp_path, recover_masks=True)
    with open_stores(settings) as stores:
        recover_all(mask_recovery(stores, settings), office.forgotten)()
    assert [item["type"] for item in office.stored()] == ["brushlabels"]


def test_a_mask_that_cannot_be_put_back_is_named_and_stays(office):
    office.click(DOT)
    office.submit(DOT)
    office.registry.connect(office.api, POLYGON_CONFIG.replace('"Door"', '"Gate"'))
    result = refcut("masks", "recover", "--project", "7")
    assert result.exit_code == 1
    assert "not recovered: task 3, annotation 1" in result.stdout
    assert office.missing == 1
    assert office.stored() == [DOT]


def test_masks_are_kept_for_a_month(office):
    office.click(DOT)
    office.submit(DOT)
    (kept,) = office.forgotten.of_task(7, TASK)
    office.click(OTHER_DOT)
    office.forgotten.keep_older(time.time() + 1)
    assert [mask.label for mask in office.forgotten.of_task(7, TASK)] == [kept.label, "Wheel"]
    office.forgotten.keep_older(time.time() + KEPT_S + 2)
    assert office.forgotten.of_task(7, TASK) == []


# Masks with two labels.


def test_the_second_label_of_masks_is_counted_and_taken_away_and_all_else_stays(office):
    (door,) = office.click(DOT)
    (wheel,) = office.click(OTHER_DOT)
    stray = click_result("stray", 1, 1, "Hood")
    webhook = office.api.annotate(
        1, TASK, door, second_label_result(door, "Door"), stray, wheel, second_label_result(wheel, "Larger")
    )
    office.registry.follow(webhook)
    assert twice_labelled(office.registry.engine, 7) == [TwiceLabelled(TASK, 1, 2)]
    before = office.stored()
    result = refcut("masks", "repair", "--project", "7", "--dry-run")
    assert (result.exit_code, result.stdout) == (
        0,
        "task 3, annotation 1: 2 masks\n2 masks would be repaired\n",
    )
    assert office.stored() == before
    assert refcut("masks", "repair", "--project", "7").stdout.endswith("\n2 masks repaired\n")
    assert office.stored() == [door, stray, wheel]
    office.registry.follow(office.api.annotate(1, TASK, *office.stored()))
    assert twice_labelled(office.registry.engine, 7) == []
    assert refcut("masks", "repair", "--project", "7").stdout == "0 masks repaired\n"


def test_polygons_are_repaired_piece_by_piece_and_an_odd_annotation_is_named(office):
    office.registry.connect(office.api, POLYGON_CONFIG)
    office.editor.label_config = POLYGON_CONFIG
    (door,) = office.click(DOT)
    office.api.annotate(1, TASK, door, second_label_result(door, "Door"))
    office.api.annotate(2, TASK + 1, "odd")  # type: ignore[arg-type]
    result = refcut("masks", "repair", "--project", "7")
    assert result.exit_code == 1
    assert "not repaired: task 4, annotation 2: item 1" in result.stdout
    assert office.stored() == [door]
