"""Cached features are those that the network computes, and cached shares those of the same crop."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from model.data.feature_cache import INDEX_FILE, FeatureSet, plan_crop, write_features
from model.errors import DataError
from model.network.refcut import RefCut
from tests.support.synthetic import TINY_FROZEN, drawn_objects, random_network

SIZE_PX = 112
GRID = SIZE_PX // 14


@pytest.fixture(scope="module")
def network() -> RefCut:
    return random_network(TINY_FROZEN)


@pytest.fixture(scope="module")
def cache(network: RefCut, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    annotated_objects = drawn_objects(folder, 3)
    for number in range(6):
        write_features(network, annotated_objects, folder / f"fish-{number}", number, SIZE_PX, "digest")
    return folder


def test_the_whole_photograph_has_the_features_of_the_network(
    network: RefCut, cache: Path, tmp_path: Path
) -> None:
    annotated_objects = drawn_objects(tmp_path, 3)
    pixels = cv2.resize(annotated_objects[1].image(), (SIZE_PX, SIZE_PX), interpolation=cv2.INTER_AREA)
    image = torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)[None].float() / 255
    with torch.no_grad():
        wanted = network.encode_image(image).comparison
    assert wanted is not None
    found = FeatureSet(cache / "fish-0").features(1)
    assert np.allclose(found, wanted[0].numpy(), atol=2e-3)


def test_shares_say_how_much_of_each_patch_a_piece_covers(cache: Path, tmp_path: Path) -> None:
    annotated_objects = drawn_objects(tmp_path, 3)
    cached = FeatureSet(cache / "fish-0")
    for crop, annotated_object in zip(cached.crops, annotated_objects, strict=True):
        for piece in crop.pieces:
            mask = annotated_object.masks()[piece.name]
            share = cached.shares([piece.row])[0]
            assert piece.visible
            assert share.mean() == pytest.approx(mask.mean(), abs=0.01)
            assert share.reshape(GRID, GRID).sum(axis=1).argmax() == pytest.approx(
                mask.sum(axis=1).argmax() * GRID / mask.shape[0], abs=2.5
            )


def test_a_close_up_shows_a_part_larger_than_the_whole_photograph_does(cache: Path) -> None:
    whole, close = FeatureSet(cache / "fish-0"), FeatureSet(cache / "fish-1")
    for number in range(3):
        largest = [
            max(cached.shares([piece.row]).sum() for piece in cached.crops[number].pieces)
            for cached in (whole, close)
        ]
        assert largest[1] > largest[0]


def test_the_same_crop_is_chosen_every_time(tmp_path: Path) -> None:
    annotated_object = drawn_objects(tmp_path, 1)[0]
    masks = list(annotated_object.masks().values())
    plans = [plan_crop(annotated_object, masks, number) for number in range(6)]
    assert plans == [plan_crop(annotated_object, masks, number) for number in range(6)]
    assert len(set(plans)) > 3


def test_what_is_cached_is_not_computed_again(cache: Path, tmp_path: Path) -> None:
    before = (cache / "fish-0" / INDEX_FILE).stat().st_mtime_ns
    write_features(random_network(TINY_FROZEN), drawn_objects(tmp_path, 3), cache / "fish-0", 0, SIZE_PX, "x")
    assert (cache / "fish-0" / INDEX_FILE).stat().st_mtime_ns == before


def test_a_folder_of_another_format_is_refused(tmp_path: Path) -> None:
    (tmp_path / INDEX_FILE).write_text(json.dumps({"format": "something else"}))
    with pytest.raises(DataError, match="not a feature cache of this version"):
        FeatureSet(tmp_path)


def test_an_incomplete_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not a complete feature cache"):
        FeatureSet(tmp_path)
