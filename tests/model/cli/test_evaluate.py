"""`python -m model evaluate` from the command line on, with a predictor that sees colours instead of a network."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from model.cli import evaluate
from model.data.annotated_objects import is_development
from model.predictor_config import SERVING
from tests.support.colour_world import ColourPredictor, make_annotated_object

PARTS = ("wheel", "door", "roof", "mirror")


@pytest.fixture
def cars(tmp_path: Path) -> Path:
    """A folder with a COCO-style part file of six cars, train.json."""

    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number in range(6):
        annotated_object = make_annotated_object(tmp_path / "images" / f"car{number}.png", PARTS)
        images.append({"id": number, "file_name": f"car{number}.png"})
        annotations += [
            {"image_id": number, "category_id": PARTS.index(name), "object_id": 1, "segmentation": rles[0]}
            for name, rles in annotated_object.part_rles.items()
        ]
    categories = [{"id": number, "name": name, "supercategory": "car"} for number, name in enumerate(PARTS)]
    content = {"images": images, "categories": categories, "annotations": annotations}
    (tmp_path / "train.json").write_text(json.dumps(content))
    return tmp_path


@pytest.fixture
def colours(monkeypatch: pytest.MonkeyPatch) -> None:
    """A predictor that sees colours instead of the network."""
    monkeypatch.setattr(evaluate, "version_name", lambda directory: "colours")
    monkeypatch.setattr(evaluate, "PredictorFactory", lambda *given: ColourPredictor)


def run(folder: Path, *arguments: str) -> dict[str, Any]:
    """Runs the command line and returns results.json."""
    out = folder / "out"
    given = ["--data", f"{folder / 'train.json'},name=cars", "--out", str(out), *arguments]
    evaluate.evaluate(evaluate.make_parser().parse_args(given))
    return json.loads((out / "results.json").read_text())  # type: ignore[no-any-return]


def lines(folder: Path) -> list[str]:
    return (folder / "out" / "records.jsonl").read_text().splitlines()


@pytest.mark.usefixtures("colours")
def test_a_run_writes_figures_and_pictures(cars: Path) -> None:
    results = run(cars, "--modes", "right", "none")
    whole = {mode: results["sets"]["cars"][mode]["whole"] for mode in ("right", "none")}
    clicks = [whole[mode]["clicks_to"]["0.9"]["value"] for mode in ("right", "none")]
    assert clicks == [1, 4]
    assert results["sets"]["cars"]["right"]["total"]["count"] == 6 * 8
    assert {path.suffix for path in (cars / "out").iterdir()} == {".json", ".jsonl", ".md", ".png"}


@pytest.mark.usefixtures("colours")
def test_a_rerun_runs_only_what_is_missing(cars: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(cars, "--modes", "right")
    before = lines(cars)
    expected = before[:20]
    (cars / "out" / "records.jsonl").write_text("\n".join(expected) + "\n" + before[20][:30])
    run(cars, "--modes", "right")
    after = lines(cars)
    assert after[:20] == expected
    assert len(after) == len(before)
    monkeypatch.setattr(
        evaluate, "run_tasks", lambda sets, tasks, *rest: pytest.fail("ran again") if tasks else []
    )
    run(cars, "--modes", "right")


@pytest.mark.usefixtures("colours")
def test_a_run_may_be_widened_and_reports_what_was_asked_for_last(cars: Path) -> None:
    assert run(cars, "--modes", "right", "--limit", "2")["sets"]["cars"]["right"]["total"]["count"] == 6
    widened = run(cars, "--modes", "right", "none")["sets"]["cars"]
    assert {mode: groups["total"]["count"] for mode, groups in widened.items()} == {"right": 48, "none": 48}
    assert run(cars, "--modes", "none", "--limit", "2")["sets"]["cars"]["none"]["total"]["count"] == 6
    assert len(lines(cars)) == 96


@pytest.mark.usefixtures("colours")
def test_only_the_development_share_is_evaluated(cars: Path) -> None:
    annotated_objects = evaluate.SetDescription.parse(str(cars / "train.json")).read()
    expected = [
        annotated_object.image_path.name
        for annotated_object in annotated_objects
        if is_development(annotated_object, 0.5)
    ]
    assert 0 < len(expected) < 6
    run(cars, "--modes", "none", "--development", "0.5")
    assert {json.loads(line)["image"].split("/")[1] for line in lines(cars)} == set(expected)


@pytest.mark.usefixtures("colours")
def test_counts_are_printed(cars: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(cars, "--modes", "none", "--limit", "1")
    assert "cars: 6 objects, 48 samples (24 single, 18 pair, 6 whole)" in capsys.readouterr().out


@pytest.mark.usefixtures("colours")
def test_a_kind_with_too_few_samples_is_repeated_if_that_is_wanted(
    cars: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = run(cars, "--modes", "right", "none", "--at-least", "20")["sets"]["cars"]
    counts = {group: cell["count"] for group, cell in results["none"].items()}
    assert (counts["single"], counts["pair"], counts["whole"]) == (24, 20, 20)
    assert results["right"]["whole"]["photographs"] == 6
    assert "48 samples have a reference, and 16 repeat them" in capsys.readouterr().out


def test_without_switches_the_predictor_is_what_the_backend_serves() -> None:
    assert evaluate.changed_settings(evaluate.make_parser().parse_args(["--data", "a", "--out", "b"])) == {}


@pytest.mark.parametrize("field", dataclasses.fields(SERVING), ids=lambda field: field.name)
def test_every_setting_of_the_predictor_has_a_switch(field: dataclasses.Field[Any]) -> None:
    default = getattr(SERVING, field.name)
    switch = field.name.replace("_", "-")
    other: object
    if isinstance(default, bool):
        other, given = not default, [f"--no-{switch}" if default else f"--{switch}"]
    else:
        other = {"area": "aligned", "aligned": "area"}.get(default) or default * 2
        given = [f"--{switch}", str(other)]
    arguments = evaluate.make_parser().parse_args(["--data", "a", "--out", "b", *given])
    assert evaluate.changed_settings(arguments) == {field.name: other}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "/no/where.json"], "where.json is not a part file"),
        (["--data", "tda:/no,colour=red"], "cannot be understood"),
        (["--data", "{train}", "--data", "{train}"], "two sets have the same name"),
        (["--data", "{train}", "--modes", "left"], "unknown mode 'left'"),
        (["--data", "{train}", "--limit", "-1"], "start at 1"),
        (["--data", "{train}", "--weights", "/no/where"], "base.safetensors is missing"),
    ],
)
def test_a_mistake_is_reported_in_one_line(
    cars: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [argument.format(train=cars / "train.json") for argument in arguments]
    with pytest.raises(SystemExit) as ended:
        evaluate.main([*given, "--out", str(cars / "out")])
    message_shown = capsys.readouterr().err
    assert ended.value.code == 2
    assert message_shown.startswith("error: ")
    assert message in message_shown
    assert message_shown.count("\n") == 1
