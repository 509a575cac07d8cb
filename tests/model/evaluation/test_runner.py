from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest

from model.evaluation.modes import parse_modes
from model.evaluation.records import Record
from model.evaluation.runner import ClickLimits, EvaluationSet, Task, run_tasks
from model.evaluation.samples import enumerate_samples
from tests.support.colour_world import ColourPredictor, make_annotated_object

PARTS = ["wheel", "door", "roof", "mirror"]


def run_world(
    folder: Path, modes: list[str], make: Callable[[], ColourPredictor] = ColourPredictor, workers: int = 1
) -> dict[tuple[str, str], Record]:
    """Records of two full cars and a third that alone has no reference for any part, by sample key and mode."""
    annotated_objects = [make_annotated_object(folder / f"{name}.png", PARTS) for name in "ab"]
    annotated_objects.append(make_annotated_object(folder / "c.png", ["roof"], object_class="hut"))
    one = EvaluationSet("world", annotated_objects)
    tasks = [Task(0, sample, tuple(parse_modes(modes))) for sample in enumerate_samples(annotated_objects)[0]]
    done = run_tasks([one], tasks, make, ClickLimits(min_clicks=1), workers)
    return {(record.sample, record.mode): record for records in done for record in records}


def test_a_reference_saves_the_clicks_that_naming_the_parts_would_take(tmp_path: Path) -> None:
    records = run_world(tmp_path, ["right", "none"])
    whole = "0/whole/door+mirror+roof+wheel"
    assert len(records[whole, "right"].ious) == 1
    assert len(records[whole, "none"].ious) == 4
    assert records[whole, "right"].references == [f"{tmp_path.name}/b.png"]


def test_a_wrong_reference_gives_another_part(tmp_path: Path) -> None:
    assert run_world(tmp_path, ["wrong"])["0/single/wheel", "wrong"].ious[0] == 0


def test_samples_without_a_reference_are_run_and_marked_in_every_mode(tmp_path: Path) -> None:
    records = run_world(tmp_path, ["right", "none", "wrong"])
    for mode in ("right", "none", "wrong"):
        assert not records["2/single/roof", mode].referenced
        assert records["2/single/roof", mode].ious == [1]
        assert records["0/single/roof", mode].referenced


@pytest.mark.parametrize(
    "mode", ["right+polygon4", "right+scale0.5", "right+refs4", "right+jitter", "positive"]
)
def test_a_changed_reference_or_hand_still_works(tmp_path: Path, mode: str) -> None:
    assert run_world(tmp_path, [mode])["0/pair/door+wheel", mode].ious[-1] == 1


def test_an_image_is_set_once_for_all_its_samples_and_modes(tmp_path: Path) -> None:
    predictor = ColourPredictor()
    run_world(tmp_path, ["right", "none"], lambda: predictor)
    assert predictor.images_set == 3


def test_several_processes_find_what_one_finds(tmp_path: Path) -> None:
    def timeless(records: dict[tuple[str, str], Record]) -> dict[tuple[str, str], Record]:
        return {key: dataclasses.replace(record, seconds=[]) for key, record in records.items()}

    alone, together = (run_world(tmp_path, ["right", "wrong+jitter"], workers=workers) for workers in (1, 2))
    assert timeless(alone) == timeless(together)
