"""Valid configurations are read, and contradictions are reported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from model.errors import DataError
from model.training.config import CocoSource, PartImageNetSource, read_config
from model.training.run import in_steps

SHIPPED = Path(__file__).parents[3] / "model" / "configs"


READERS = {*SHIPPED.glob("reader*.yaml")}
"""Of another kind: test_reader_training reads them."""
SOURCE = {"json_path": "a.json", "image_dir": "a", "grouping": "object"}
CLICK_PATHS = ["refcut_s14_reader.yaml", "refcut_s14_neighbours.yaml"]


@pytest.mark.parametrize("path", sorted({*SHIPPED.glob("*.yaml")} - READERS), ids=lambda path: path.stem)
def test_shipped_configurations_are_read(path: Path, tmp_path: Path) -> None:
    assert read_config(path, tmp_path).stages


def test_the_papers_run_is_the_papers(tmp_path: Path) -> None:
    config = read_config(SHIPPED / "refcut_vit_b16_partimagenet.yaml", tmp_path)
    assert config.sources == [
        PartImageNetSource(reader="part_imagenet", root=tmp_path / "PartImageNet", split="train")
    ]
    assert (config.optimiser, config.betas, config.weight_decay) == ("adam", (0.9, 0.999), 0)
    assert {config.rate_head, config.rate_prompts, config.rate_blocks, config.block_decay} == {5e-6, 1.0}
    (stage,) = config.stages
    assert (stage.size_px, stage.epochs, stage.samples, stage.loss) == (448, 55, 32, "normalised_focal")
    counted, milestones = in_steps(config, annotated_objects=20466)
    assert counted.stages[0].steps == 55 * 639
    assert milestones == (50 * 639,)
    assert config.schedule.factor == 0.1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stages": [{"size_px": 112}]}, "either steps or epochs"),
        ({"stages": [{"size_px": 112, "steps": 2, "epochs": 2}]}, "either steps or epochs"),
        ({"stages": [{"size_px": 112, "epochs": 2}]}, "groups are drawn without end"),
        ({"schedule": {"kind": "multistep", "milestones": [1], "unit": "epochs"}}, "groups are drawn"),
        ({"sampling": "refcut"}, "leave share out"),
        ({"sampling": "refcut", "name_weights": {"door": 2}, "sources": [SOURCE]}, "leave name_weights out"),
        (
            {"sampling": "refcut", "pasted": 0.1, "zoom_both": 0.1, "sources": [SOURCE]},
            "leave pasted, zoom_both",
        ),
        ({"optimiser": "sgd"}, "adamw"),
        ({"max_click_rounds": 8}, "max_click_rounds"),
        ({"sources": [{"reader": "made_of_air"}]}, "sources"),
        ({"learning_rate": 1}, "learning_rate"),
    ],
)
def test_contradictions_are_reported(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    content: dict[str, Any] = {
        "preset": "xtiny",
        "sources": [SOURCE | {"share": 0.5}],
        "stages": [{"size_px": 112, "steps": 2}],
    }
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(content))
    assert read_config(path, tmp_path).stages[0].steps == 2
    path.write_text(yaml.safe_dump(content | change))
    with pytest.raises(DataError, match=message):
        read_config(path, tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"grouping": "photo", "targets": "object"}, "needs grouping: object"),
        ({"grouping": "object", "targets": "object", "all_labelled": False}, "every part labelled"),
        ({"grouping": "photo", "targets": "regions"}, "regions have no names"),
        ({"grouping": "regions", "targets": "instances"}, "regions have no names"),
        ({"grouping": "photo", "targets": "everything"}, "targets"),
        ({"grouping": "object", "targets": "parts", "cutouts": True}, "cutouts needs targets"),
    ],
)
def test_targets_that_a_source_cannot_have_are_reported(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CocoSource.model_validate({"json_path": "a.json", "image_dir": "a"} | options)


@pytest.mark.parametrize("name", CLICK_PATHS)
def test_cars_and_clothes_are_at_most_half_of_what_the_click_path_sees(name: str, tmp_path: Path) -> None:
    config = read_config(SHIPPED / name, tmp_path)
    shares = {source.json_path.parent.name: source.share for source in config.sources}  # type: ignore[union-attr]
    assert len(shares) == 10
    assert sum(shares.values()) == pytest.approx(1)
    assert shares["ccp"] + shares["car_parts"] + shares["egs_car_panels"] <= 0.5
    assert not {"faces", "fasseg", "horses", "camvid"} & set(shares)


@pytest.mark.parametrize("name", CLICK_PATHS)
def test_what_is_kept_out_of_training_is_kept_out_of_the_click_path(name: str, tmp_path: Path) -> None:
    config = read_config(SHIPPED / name, tmp_path)
    assert config.exclude == tmp_path / "near_copies.json"
    (panels,) = [s for s in config.sources if "egs_car_panels" in str(getattr(s, "json_path", ""))]
    assert isinstance(panels, CocoSource)
    assert (panels.targets, panels.all_labelled) == ("parts", False)


def test_configurations_of_version_0_1_are_read(tmp_path: Path) -> None:
    content = {
        "preset": "s14",
        "sources": [{"json_path": "a.json", "image_dir": "a", "grouping": "object"}],
        "stages": [{"size_px": 112, "steps": 2}],
        "views": "simpleclick",
        "likeness": {"size_px": 112, "steps": 4},
    }
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(content))
    config = read_config(path, tmp_path)
    assert config.augmentation == "simpleclick"
    assert config.similarity_stage is not None
    assert config.similarity_stage.steps == 4
