from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from model.evaluation.modes import parse_modes
from model.evaluation.records import Record
from model.evaluation.runner import ClickLimits, EvaluationSet, Task, run_tasks
from model.evaluation.samples import Sample, enumerate_samples
from model.reference_comparison import ReferenceComparison
from model.types import Click, MaskResult
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
    "mode",
    ["right+polygon4", "right+scale0.5", "right+refs4", "right+jitter", "positive", "nearest", "alone"],
)
def test_a_changed_reference_or_hand_still_works(tmp_path: Path, mode: str) -> None:
    assert run_world(tmp_path, [mode])["0/pair/door+wheel", mode].ious[-1] == 1


def test_an_image_is_set_once_for_all_its_samples_and_modes(tmp_path: Path) -> None:
    predictor = ColourPredictor()
    run_world(tmp_path, ["right", "none"], lambda: predictor)
    assert predictor.images_set == 3


@pytest.mark.slow
def test_several_processes_find_what_one_finds(tmp_path: Path) -> None:
    def timeless(records: dict[tuple[str, str], Record]) -> dict[tuple[str, str], Record]:
        return {key: dataclasses.replace(record, seconds=[]) for key, record in records.items()}

    alone, together = (run_world(tmp_path, ["right", "wrong+jitter"], workers=workers) for workers in (1, 2))
    assert timeless(alone) == timeless(together)


def test_a_repeated_sample_has_another_reference_and_other_clicks(tmp_path: Path) -> None:
    annotated_objects = [make_annotated_object(tmp_path / f"{name}.png", PARTS) for name in "abc"]
    modes = tuple(parse_modes(["right", "none"]))
    tasks = [Task(0, Sample(0, "single", ("wheel",), repeat), modes) for repeat in (0, 1)]
    done = run_tasks([EvaluationSet("world", annotated_objects)], tasks, ColourPredictor, ClickLimits(), 1)
    (first, _), (second, _) = done
    assert (first.references[0][-5:], second.references[0][-5:]) == ("b.png", "c.png")
    assert first.clicks[0] != second.clicks[0]
    assert first.photograph == second.photograph


@pytest.mark.parametrize("mode", ["alone", "nearest", "prototype"])
def test_a_first_mask_is_measured_and_then_refined(tmp_path: Path, mode: str) -> None:
    record = run_world(tmp_path, [mode, "right"])["0/pair/door+wheel", mode]
    assert (record.start_iou, record.ious[0]) == (1, 1)
    assert run_world(tmp_path, ["right"])["0/pair/door+wheel", "right"].start_iou is None


def test_clicks_refine_a_matched_mask_without_the_reference(tmp_path: Path) -> None:
    """Car b's door has the colour of car a's wheel, so the mask before the first click is another part."""

    class Misled(ColourPredictor):
        referenced: ClassVar[list[bool]] = []

        def reference_comparison(self) -> ReferenceComparison:
            shown = super().reference_comparison()
            assert shown is not None
            return dataclasses.replace(shown, channels=np.roll(shown.channels, 10, axis=1))

        def predict(self, clicks: Sequence[Click]) -> MaskResult:
            self.referenced.append(bool(clicks) and self._reference is not None)
            return super().predict(clicks)

    record = run_world(tmp_path, ["nearest"], Misled)["0/single/wheel", "nearest"]
    assert record.start_iou == 0
    assert record.ious[-1] == 1
    assert Misled.referenced
    assert not any(Misled.referenced)


def test_the_next_mode_of_a_sample_begins_without_the_mask(tmp_path: Path) -> None:
    records = run_world(tmp_path, ["alone", "none"])
    assert len(records["0/whole/door+mirror+roof+wheel", "none"].ious) == 4


def test_the_number_of_pieces_is_recorded(tmp_path: Path) -> None:
    records = run_world(tmp_path, ["none"])
    assert records["0/single/wheel", "none"].pieces == 1
    assert records["0/whole/door+mirror+roof+wheel", "none"].pieces == 2
