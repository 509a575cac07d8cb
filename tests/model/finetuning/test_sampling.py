"""Clicks that people made, as training targets."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.random import default_rng

from model.finetuning.sampling import logged_objects, reference_objects, session_batch
from model.types import ROUND_SLOTS
from tests.support.synthetic_snapshot import fish_snapshot

PX, GRID = 112, 8


@pytest.fixture
def snapshot(tmp_path):
    return fish_snapshot(tmp_path / "snapshot")


def test_logged_clicks_fall_on_their_target_in_the_views_frame(snapshot):
    logged = logged_objects(snapshot.train, snapshot.train_objects())
    assert len(logged) == len(snapshot.train)
    negatives = set()
    for seed in range(12):
        batch = session_batch(logged[seed % 4], None, PX, GRID, default_rng(seed))
        for target, table in zip(batch.targets[:, 0], batch.clicks, strict=True):
            row, col, order = table[0].tolist()
            assert order == 0
            assert target[int(row), int(col)]
            negatives.add(tuple(round(value) for value in table[ROUND_SLOTS].tolist()[:2]))
    corner = round(2 * PX / 96), round(3 * PX / 128)
    assert {(-1, -1), corner, (corner[0], PX - 1 - corner[1])} >= negatives
    assert len(negatives) == 3


def test_the_reference_says_which_label_is_meant(snapshot):
    annotated_objects = snapshot.train_objects()
    (reference,) = reference_objects(snapshot, annotated_objects)
    logged = logged_objects(snapshot.train, annotated_objects)[1]
    batch = session_batch(logged, reference, PX, GRID, default_rng(0))
    assert batch.images.shape == (2, 3, PX, PX)
    assert (batch.positive.sum(1) > 0).all()
    assert (batch.negative.sum(1) > 0).all()
    without = session_batch(logged, None, PX, GRID, default_rng(0))
    assert not without.positive.any()


def test_objects_that_nobody_clicked_on_are_left_out(tmp_path):
    snapshot = fish_snapshot(tmp_path / "other", clicked=False)
    assert logged_objects(snapshot.train, snapshot.train_objects()) == []


def test_a_reference_on_a_photograph_without_annotations_shows_its_masks(snapshot):
    (reference,) = reference_objects(snapshot, [])
    assert sorted(reference.part_rles) == ["head", "tail"]
    np.testing.assert_array_equal(reference.masks()["head"], snapshot.train_objects()[0].masks()["head"])
