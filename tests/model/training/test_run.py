"""Base training: the paper's run on synthetic data, a version from a version, and the stage of the learned similarity."""

from __future__ import annotations

from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors import safe_open
from safetensors.torch import load_file

from model.checkpoints.official import convert
from model.checkpoints.weights import (
    BASE_FILE,
    VERSION_FILE,
    file_digest,
    load_network,
    save_base,
    save_version,
)
from model.cli.make_synthetic_data import write_synthetic_data
from model.errors import DataError
from model.network.reader import Reader
from model.training.config import TrainConfig, read_config
from model.training.reader_training import save_reader
from model.training.run import starting_network, train
from tests.model.data.test_readers import write_part_imagenet_photo
from tests.support.recorded import REPOSITORY
from tests.support.recordings import CHECKPOINT
from tests.support.synthetic import TINY_FROZEN, TINY_READER, random_network
from tests.support.synthetic_snapshot import with_another_shape
from tests.support.training_runs import logged

CONFIGS = REPOSITORY / "model" / "configs"
CPU = torch.device("cpu")


def changed(path: Path, target: Path, **changes: Any) -> Path:
    """A shipped configuration with something changed."""
    target.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | changes))
    return target


@pytest.fixture
def part_imagenet(tmp_path: Path) -> Path:
    """A data folder with a tiny PartImageNet and a converted SimpleClick."""
    body, head, tail = np.s_[4:10, 5:20], np.s_[4:10, 20:28], np.s_[10:16, 5:12]
    for number in range(4):
        write_part_imagenet_photo(tmp_path / "PartImageNet", f"{number}", {13: body, 14: head, 17: tail})
    for folder in ("annotations", "images"):
        (tmp_path / "PartImageNet" / folder / "val").rename(tmp_path / "PartImageNet" / folder / "train")
    convert(CHECKPOINT, tmp_path / "init" / "sbd_vit_base.safetensors")
    return tmp_path


def test_the_papers_run_runs(part_imagenet: Path, tmp_path: Path) -> None:
    shipped = CONFIGS / "refcut_vit_b16_partimagenet.yaml"
    small = {"size_px": 64, "epochs": 2, "samples": 2, "loss": "normalised_focal"}
    config = read_config(
        changed(
            shipped,
            tmp_path / "small.yaml",
            stages=[small],
            loader_workers=0,
            accumulate=2,
            schedule={"kind": "multistep", "milestones": [1], "unit": "epochs"},
        ),
        part_imagenet,
    )
    assert config.base_weights is not None
    before = load_file(config.base_weights)
    run = tmp_path / "run"
    train(config, run, CPU)
    assert [record["rate"] for record in logged(run)] == pytest.approx([1, 1, 0.1, 0.1])
    after = load_file(run / "network.safetensors")
    assert set(before) < set(after), "a superset of a SimpleClick file"
    assert any(not torch.equal(before[name], after[name]) for name in before)
    assert after["rpg.positive.fc2.weight"].any(), "prompts begin at zero and learn"
    assert load_network(run / "network.safetensors").rpg.trained


@pytest.fixture
def parent(tmp_path: Path) -> Path:
    folder = tmp_path / "parent"
    network = random_network(TINY_FROZEN)
    save_base(network, folder / BASE_FILE)
    save_version(network.state_dict(), network.config, folder / BASE_FILE, folder / VERSION_FILE)
    return folder


def child_of(parent: Path, data: Path, **options: Any) -> TrainConfig:
    source = {"json_path": write_synthetic_data(data), "image_dir": data / "synthetic", "grouping": "object"}
    given = {
        "preset": "s14",
        "parent": parent,
        "sources": [source],
        "stages": [{"size_px": 56, "steps": 1, "groups": 1}],
        "loader_workers": 0,
    }
    return TrainConfig.model_validate(given | options)


@pytest.mark.slow
@pytest.mark.parametrize("steps", [3, 6], ids=["within a stage", "at the end of a stage"])
def test_a_run_that_must_stop_saves_after_its_step_and_resumes_to_the_same_end(
    steps: int, tmp_path: Path
) -> None:
    write_synthetic_data(tmp_path)
    config = read_config(CONFIGS / "smoke.yaml", tmp_path)
    asked = count(1)
    train(config, tmp_path / "cut", CPU, must_stop=lambda: next(asked) == steps)
    assert len(logged(tmp_path / "cut")) == steps
    train(config, tmp_path / "cut", CPU)
    train(config, tmp_path / "whole", CPU)
    assert len(logged(tmp_path / "cut")) == len(logged(tmp_path / "whole")) == 10
    one, other = (load_file(tmp_path / run / "network.safetensors") for run in ("cut", "whole"))
    assert all(torch.allclose(one[name], other[name], rtol=1e-4) for name in one)


def test_a_child_begins_as_its_parent_and_names_the_same_base(parent: Path, tmp_path: Path) -> None:
    unmoved = child_of(parent, tmp_path, rate_head=0, rate_prompts=0, rate_blocks=0)
    first = starting_network(unmoved).state_dict()
    assert all(torch.equal(value, first[n]) for n, value in load_network(parent).state_dict().items())
    run = tmp_path / "child"
    train(unmoved, run, CPU)
    assert file_digest(run / BASE_FILE) == file_digest(parent / BASE_FILE)
    with safe_open(run / VERSION_FILE, framework="pt") as file:
        assert file.metadata()["base_sha256"] == file_digest(parent / BASE_FILE)
    one, other = load_file(parent / VERSION_FILE), load_file(run / VERSION_FILE)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one), "learning rate zero"


def test_a_child_differs_from_its_parent_after_a_step(parent: Path, tmp_path: Path) -> None:
    run = tmp_path / "child"
    train(child_of(parent, tmp_path, average_decay=0.0, warmup_steps=0), run, CPU)
    one, other = load_file(parent / VERSION_FILE), load_file(run / VERSION_FILE)
    assert any(not torch.equal(one[name], other[name]) for name in one)
    assert load_network(run)


@pytest.mark.parametrize("rate_reader", [0.0, 1e-3])
def test_a_child_with_a_reader_keeps_it_unless_it_is_tuned(
    rate_reader: float, parent: Path, tmp_path: Path
) -> None:
    reader = Reader(TINY_FROZEN.comparison_dim, TINY_READER)
    save_reader(reader.state_dict(), reader, tmp_path / "reader.safetensors")
    given = {"reader": tmp_path / "reader.safetensors", "rate_reader": rate_reader}
    run = tmp_path / "child"
    train(child_of(parent, tmp_path, average_decay=0.0, warmup_steps=0, **given), run, CPU)
    child = load_network(run)
    assert child.config.reader == TINY_READER
    assert child.config.learned_similarity_dim == 0
    unchanged = [
        torch.equal(value.half(), child.reader.state_dict()[name].half())
        for name, value in reader.state_dict().items()
    ]
    assert all(unchanged) == (rate_reader == 0)
    grandchild = starting_network(child_of(run, tmp_path))
    assert grandchild.config == child.config


def test_a_frozen_encoder_without_weights_is_reported(tmp_path: Path) -> None:
    config = TrainConfig.model_validate({"preset": "s14", "sources": [], "stages": []})
    with pytest.raises(DataError, match="needs base_weights"):
        starting_network(config)


@pytest.fixture
def parent_without_learned_similarity(parent: Path, tmp_path: Path) -> Path:
    return with_another_shape(parent, tmp_path / "without")


UNMOVED = {"rate_head": 0, "rate_prompts": 0, "rate_blocks": 0}
SIMILARITY_STAGE = {"similarity_stage": {"size_px": 112, "steps": 4, "groups": 2}}


def test_a_parent_without_a_learned_similarity_gains_one_that_learns_before_the_rest(
    parent_without_learned_similarity: Path, tmp_path: Path
) -> None:
    config = child_of(parent_without_learned_similarity, tmp_path, **UNMOVED, **SIMILARITY_STAGE)
    torch.manual_seed(config.seed)
    fresh = starting_network(config).state_dict()
    train(config, tmp_path / "child", CPU)
    child = load_network(tmp_path / "child")
    assert child.config.learned_similarity_dim == 64
    learned = child.state_dict()
    moved = {name for name in fresh if not torch.allclose(fresh[name], learned[name], atol=1e-3)}
    assert moved == {"likeness.project.weight"}


def test_a_resumed_run_does_not_train_its_learned_similarity_again(
    parent_without_learned_similarity: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = child_of(parent_without_learned_similarity, tmp_path, **UNMOVED, **SIMILARITY_STAGE)
    train(config, tmp_path / "child", CPU)
    first = load_network(tmp_path / "child").likeness.project.weight

    def again(*_given: object) -> float:
        raise AssertionError("it had learned alone already")

    monkeypatch.setattr("model.training.run.fit_learned_similarity", again)
    stage = {"size_px": 56, "steps": 1, "groups": 1}
    longer = child_of(
        parent_without_learned_similarity, tmp_path, **UNMOVED, **SIMILARITY_STAGE, stages=[stage, stage]
    )
    train(longer, tmp_path / "child", CPU)
    assert len(logged(tmp_path / "child")) == 2
    assert torch.equal(load_network(tmp_path / "child").likeness.project.weight, first)


def test_a_learned_similarity_that_the_network_does_not_have_cannot_be_trained(tmp_path: Path) -> None:
    source = {
        "json_path": write_synthetic_data(tmp_path),
        "image_dir": tmp_path / "synthetic",
        "grouping": "object",
    }
    stages = [{"size_px": 112, "steps": 1}]
    given = {"preset": "xtiny", "sources": [source], "stages": stages, "loader_workers": 0} | SIMILARITY_STAGE
    with pytest.raises(DataError, match="no learned similarity"):
        train(TrainConfig.model_validate(given), tmp_path / "run", CPU)
