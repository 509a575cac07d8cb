"""A training of the reader learns, and a killed one resumes to the same losses."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from model.checkpoints.version_folder import SHIPPED_DIR
from model.cli.train_reader import first_reader
from model.errors import DataError, WeightsError
from model.evaluation.reader_curve import ReaderEvaluation, grid_ious
from model.network.reader import Reader
from model.training.distributed import Processes
from model.training.reader_config import (
    ReaderTraining,
    evaluation_objects,
    read_reader_config,
    training_objects,
)
from model.training.reader_sampling import ReaderSampler
from model.training.reader_training import (
    ReaderTrainer,
    bce_and_dice_on_shares,
    load_reader,
    rate_share,
)
from tests.support.reader_data import make_config, write_cache, write_part_file
from tests.support.synthetic import TINY_READER

PIECES = {"head": [(20, 76, 8, 50)], "tail": [(20, 76, 50, 120)]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fish")
    write_part_file(folder, 4, PIECES)
    write_cache(evaluated(folder), folder / "cache")
    return folder


def evaluated(folder: Path, **options: Any) -> ReaderTraining:
    one = {"json_path": folder / "parts.json", "image_dir": folder / "images", "grouping": "object"}
    return make_config(folder, evaluation={"fish-all": one}, triples=0.3, **options)


def trainer(folder: Path, run_dir: Path, **options: Any) -> ReaderTrainer:
    config = evaluated(folder, **options)
    torch.manual_seed(0)
    reader = Reader(64, TINY_READER)
    sampler = ReaderSampler(config, folder / "cache")
    annotated_objects = {name: evaluation_objects(config, name) for name in config.evaluation}
    evaluation = ReaderEvaluation(annotated_objects, folder / "cache", config.evaluation_limit)
    return ReaderTrainer(reader, config, sampler, run_dir, torch.device("cpu"), evaluation)


def losses(run_dir: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (run_dir / "steps.jsonl").read_text().splitlines()]


def test_a_run_starts_from_the_averaged_weights_of_its_parent(folder: Path, tmp_path: Path) -> None:
    trainer(folder, tmp_path, steps=3).run()
    config = evaluated(folder, parent=tmp_path / "reader.safetensors")
    parent = load_reader(tmp_path / "reader.safetensors")
    started = first_reader(config, 64)
    assert all(torch.equal(value, parent.state_dict()[name]) for name, value in started.state_dict().items())
    with pytest.raises(WeightsError, match="64 numbers; the cache has 32"):
        first_reader(config, 32)


def test_a_run_grows_what_its_configuration_asks_for(folder: Path, tmp_path: Path) -> None:
    trainer(folder, tmp_path, steps=1).run()
    config = evaluated(folder, parent=tmp_path / "reader.safetensors", grow={"refine_blocks": 2})
    assert first_reader(config, 64).config == dataclasses.replace(TINY_READER, refine_blocks=2)


def test_a_killed_run_resumes_to_the_same_losses(folder: Path, tmp_path: Path) -> None:
    trainer(folder, tmp_path / "whole", steps=8, decay_steps=4).run()
    killed = trainer(folder, tmp_path / "killed", steps=8, decay_steps=4)
    for _ in range(3):
        log(killed, tmp_path / "killed")
    killed.save()
    for _ in range(2):
        log(killed, tmp_path / "killed")
    resumed = trainer(folder, tmp_path / "killed", steps=8, decay_steps=4)
    assert resumed.resume()
    assert resumed.step == 3
    resumed.run()
    assert losses(tmp_path / "killed") == losses(tmp_path / "whole")
    one, other = (load_reader(tmp_path / name / "reader.safetensors") for name in ("whole", "killed"))
    for first, second in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(first, second)


def log(running: ReaderTrainer, run_dir: Path) -> None:
    record = running._train_step()
    with (run_dir / "steps.jsonl").open("a") as file:
        file.write(json.dumps(record) + "\n")


def test_a_run_that_is_told_to_stop_saves(folder: Path, tmp_path: Path) -> None:
    running = trainer(folder, tmp_path / "run", steps=1000)
    running.stop()
    running.run()
    assert losses(tmp_path / "run") == losses(tmp_path / "run")[:1]
    resumed = trainer(folder, tmp_path / "run", steps=1000)
    assert resumed.resume()
    assert resumed.step == 1


def test_groups_that_cannot_be_shared_are_refused(folder: Path, tmp_path: Path) -> None:
    config = evaluated(folder, groups=3)
    sampler = ReaderSampler(config, folder / "cache")
    with pytest.raises(DataError, match="cannot be shared evenly among 2"):
        ReaderTrainer(
            Reader(64, TINY_READER),
            config,
            sampler,
            tmp_path,
            torch.device("cpu"),
            processes=Processes(rank=0, count=2),
        )


def test_a_new_run_has_nothing_to_resume(folder: Path, tmp_path: Path) -> None:
    assert not trainer(folder, tmp_path / "run", steps=1).resume()


def test_the_loss_falls(folder: Path, tmp_path: Path) -> None:
    trainer(folder, tmp_path / "run", steps=60, learning_rate=1e-2, warmup_steps=5).run()
    found = losses(tmp_path / "run")
    assert sum(found[-10:]) < 0.7 * sum(found[:10])


def test_the_curve_has_counts_and_standard_errors(folder: Path, tmp_path: Path) -> None:
    summary = trainer(folder, tmp_path / "run", steps=1).evaluate()
    assert summary["fish-all/single"]["n"] == 8
    assert 0 < summary["fish-all/single"]["click_best"] <= 1
    assert summary["fish-all/single"]["click_best_se"] > 0
    (line,) = (tmp_path / "run" / "evaluations.jsonl").read_text().splitlines()
    assert json.loads(line)["cells"] == summary


def test_grid_ious_are_those_of_the_best_and_of_the_fixed_threshold() -> None:
    shares = torch.tensor([1.0, 1.0, 0.0, 0.0]).numpy()
    best, half = grid_ious(torch.tensor([-1.0, -2.0, -3.0, -4.0]).double().numpy(), shares)
    assert (best, half) == (1.0, 0.0)
    best, half = grid_ious(torch.tensor([2.0, -2.0, 1.0, -4.0]).double().numpy(), shares)
    assert half == pytest.approx(1 / 3)
    assert best == pytest.approx(2 / 3)


def test_the_learning_rate_warms_up_stays_and_falls_to_zero(tmp_path: Path) -> None:
    config = make_config(tmp_path, steps=100, warmup_steps=10, decay_steps=50)
    shares = [rate_share(step, config) for step in range(100)]
    assert shares[0] == pytest.approx(0.1)
    assert shares[9:50] == [1.0] * 41
    assert shares[50:] == sorted(shares[50:], reverse=True)
    assert 0 < shares[-1] < 0.03


def test_a_perfect_map_has_almost_no_loss() -> None:
    shares = torch.tensor([[[1.0, 0.0, 1.0, 0.0]]])
    right: Tensor = (shares * 2 - 1) * 30
    assert bce_and_dice_on_shares(right, shares) < 1e-3
    assert bce_and_dice_on_shares(-right, shares) > 1


def test_near_copies_and_the_development_share_are_left_out(tmp_path: Path) -> None:
    write_part_file(tmp_path, 4, PIECES)
    (tmp_path / "near_copies.json").write_text('{"fish": ["2.png"]}')
    config = make_config(tmp_path, exclude=tmp_path / "near_copies.json")
    assert {annotated_object.image_path.name for annotated_object in training_objects(config, "fish")} == {
        "0.png",
        "1.png",
        "3.png",
    }
    assert training_objects(make_config(tmp_path, development_share=1.0), "fish") == []


CONFIGS = SHIPPED_DIR.parents[1] / "configs"


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("reader*.yaml")), ids=lambda path: path.stem)
def test_the_configurations_that_ship_can_be_read(path: Path) -> None:
    config = read_reader_config(path, Path("data"))
    assert config.exclude == Path("data/near_copies.json")
    assert config.sets["facades"].targets == "instances"


@pytest.mark.parametrize(
    "name",
    [
        "reader.yaml",
        "reader_affinity.yaml",
        "reader_kinds.yaml",
        "reader_parts.yaml",
        "reader_close_parts.yaml",
    ],
)
def test_cars_and_clothes_are_at_most_half_of_what_a_training_sees(name: str) -> None:
    config = read_reader_config(CONFIGS / name, Path("data"))
    kinds = {"ccp", "car_parts", "egs_car_panels"} & config.sets.keys()
    people_and_cars = sum(config.sets[kind].share for kind in kinds)
    assert people_and_cars <= 0.5 * sum(one.share for one in config.sets.values())


def test_a_configuration_with_an_unknown_key_is_refused(tmp_path: Path) -> None:
    (tmp_path / "reader.yaml").write_text("sets: {}\nspeed: 3\n")
    with pytest.raises(DataError, match="speed"):
        read_reader_config(tmp_path / "reader.yaml", tmp_path)


def test_a_file_that_holds_no_reader_is_refused(tmp_path: Path) -> None:
    (tmp_path / "reader.safetensors").write_bytes(b"nothing")
    with pytest.raises(WeightsError, match="cannot be read"):
        load_reader(tmp_path / "reader.safetensors")
