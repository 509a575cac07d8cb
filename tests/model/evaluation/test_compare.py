"""Two networks on a holdout, with real figures and a real decision."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from model.checkpoints.weights import BASE_FILE, VERSION_FILE, load_network, save_version
from model.cli.compare import main
from model.evaluation.compare import (
    CompareSettings,
    annotate_masks,
    compare,
    holdout_masks,
)
from model.evaluation.pictures import draw_before_after
from model.evaluation.promotion import decide
from tests.support.colour_world import ColourPredictor, make_annotated_object
from tests.support.synthetic_snapshot import fish_snapshot, parent_version

SETTINGS = CompareSettings(max_clicks=6, runtime="torch")


@pytest.fixture
def parent(tmp_path: Path) -> Path:
    return parent_version(tmp_path / "parent")


@pytest.mark.slow
def test_a_worse_model_is_refused_with_reasons_and_figures(tmp_path, parent):
    snapshot = fish_snapshot(tmp_path / "snapshot")
    network, worse = load_network(parent), tmp_path / "worse"
    worse.mkdir()
    (worse / BASE_FILE).write_bytes((parent / BASE_FILE).read_bytes())
    silent = {name: torch.zeros_like(value) for name, value in network.state_dict().items()}
    save_version(silent, network.config, worse / BASE_FILE, worse / VERSION_FILE)
    done: list[tuple[int, int]] = []
    comparison = compare(snapshot, (parent, worse), SETTINGS, lambda *progress: done.append(progress))
    decision = decide(comparison)
    assert not decision.promote
    assert done[-1] == (20, 20)
    content = comparison.to_json()
    assert json.loads(json.dumps(content)) == content
    assert (content["images"], content["serving"]["masks"], content["snapshot"]) == (5, 10, snapshot.digest)
    assert set(content["candidate"]["by_label"]) == {"head", "tail"}
    assert set(content["candidate"]["iou_after"]) == {"1", "3", "5"}
    assert set(content["spread_by_label"]) == {"head", "tail"}
    assert content["spread"].keys() == {"noc85", "first_click_iou"}
    picture = tmp_path / "before_after.png"
    assert draw_before_after(picture, comparison, snapshot.image_dir)
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_a_network_is_not_better_than_itself(tmp_path, parent):
    comparison = compare(fish_snapshot(tmp_path / "snapshot"), (parent, parent), SETTINGS)
    assert comparison.candidate.first_click_iou == pytest.approx(
        comparison.serving.first_click_iou, abs=0.002
    )
    assert comparison.candidate.noc85 == comparison.serving.noc85
    assert not decide(comparison).promote


def test_a_comparison_without_time_annotates_the_same_whole_images_with_both_networks(tmp_path, parent):
    settings = CompareSettings(max_clicks=1, runtime="torch", limit_s=10, min_images=2)
    done: list[tuple[int, int]] = []
    seconds = iter(range(0, 10_000, 6))
    snapshot = fish_snapshot(tmp_path / "snapshot")
    comparison = compare(
        snapshot, (parent, parent), settings, lambda *progress: done.append(progress), lambda: next(seconds)
    )
    assert (comparison.images, comparison.masks_left_out) == (2, 6)
    assert comparison.serving.masks == comparison.candidate.masks == 4
    assert done[-1] == (8, 8)
    assert comparison.to_json()["masks_left_out"] == 6
    assert any("no time for 6 more" in reason for reason in decide(comparison).reasons)


def test_figures_are_those_of_the_robots_clicks(tmp_path):
    annotated_object = make_annotated_object(tmp_path / "car.png", ["wheel", "door"])
    (compared,) = annotate_masks(ColourPredictor(), [(annotated_object, "wheel")], {}, 20)
    assert compared.ious == [1.0] * 5
    assert compared.negative_click_changes


def test_a_network_that_ignores_negative_clicks_is_found_out(tmp_path):
    class Stubborn(ColourPredictor):
        def predict(self, clicks):
            return super().predict([click for click in clicks if click.positive])

    annotated_object = make_annotated_object(tmp_path / "car.png", ["wheel", "door"])
    (compared,) = annotate_masks(Stubborn(), [(annotated_object, "door")], {}, 20)
    assert compared.negative_click_changes is False


def test_an_image_is_encoded_once_for_all_its_masks(tmp_path):
    class Counting(ColourPredictor):
        images = 0

        def set_image(self, image_rgb):
            self.images += 1
            super().set_image(image_rgb)

    predictor = Counting()
    annotated_objects = [
        make_annotated_object(tmp_path / f"{name}.png", ["wheel", "door"]) for name in ("car", "van")
    ]
    chosen = [
        (annotated_object, label) for annotated_object in annotated_objects for label in ("door", "wheel")
    ]
    assert [compared.ious[0] for compared in annotate_masks(predictor, chosen, {}, 20)] == [1.0] * 4
    assert predictor.images == 2


def test_a_large_holdout_is_sampled_with_every_label(tmp_path):
    snapshot = fish_snapshot(tmp_path / "snapshot", holdout=9)
    chosen = holdout_masks(snapshot, 6)
    assert sorted(label for _, label in chosen) == ["head"] * 3 + ["tail"] * 3
    assert chosen == holdout_masks(snapshot, 6)


@pytest.mark.slow
def test_the_command_writes_all_figures(tmp_path, parent):
    snapshot = fish_snapshot(tmp_path / "snapshot", holdout=1)
    out = tmp_path / "comparison.json"
    main([str(snapshot.folder), str(parent), str(parent), "--out", str(out), "--max-masks", "1"])
    assert json.loads(out.read_text())["images"] == 1
