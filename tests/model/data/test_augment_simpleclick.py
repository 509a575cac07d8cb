"""SimpleClick's augmentation moves picture and masks alike, and keeps things upright or turned, never squashed."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.random import default_rng

from model.data.augment_simpleclick import SCALES, augment_simpleclick

HEIGHT, WIDTH = 90, 140
SQUARE = np.s_[30:60, 50:80]


def pictured() -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """A grey picture with a white square, which is the only mask."""
    image = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[SQUARE] = True
    image[mask] = 220
    return image, {"square": mask}


def test_masks_go_where_the_picture_goes() -> None:
    seen = 0
    for seed in range(40):
        crop = augment_simpleclick(*pictured(), 96, default_rng(seed))
        assert crop.image.shape == (96, 96, 3)
        if "square" not in crop.masks:
            continue
        mask = crop.masks["square"]
        bright = crop.image.mean(axis=2) > np.median(crop.image[mask].mean(axis=1)) - 40
        agreement = (bright & mask).sum() / (bright | mask).sum()
        seen += 1
        assert agreement > 0.85, seed
    assert seen > 30


def test_things_keep_their_shape_and_change_their_size_within_limits() -> None:
    sides = []
    for seed in range(60):
        masks = augment_simpleclick(*pictured(), 224, default_rng(seed)).masks
        rows, cols = (np.flatnonzero(masks["square"].any(axis)) for axis in (1, 0))
        height, width = rows[-1] - rows[0] + 1, cols[-1] - cols[0] + 1
        assert abs(height - width) <= 4, "a square stays a square, but for a small rotation"
        sides.append(np.sqrt(masks["square"].sum()))
    assert min(sides) == pytest.approx(30 * SCALES[0], abs=2)
    assert max(sides) == pytest.approx(30 * SCALES[1], abs=2)


def test_small_pictures_are_padded_with_black_and_large_ones_cut() -> None:
    image = np.full((60, 300, 3), 128, np.uint8)
    crop = augment_simpleclick(image, {}, 112, default_rng(0))
    black = (crop.image == crop.image.min()).all(axis=2)
    assert 0.2 < black.mean() < 0.8
    assert crop.masks == {}


def test_parts_that_are_cut_off_are_left_out() -> None:
    image, _ = pictured()
    corner = np.zeros((HEIGHT, WIDTH), bool)
    corner[:3, :3] = True
    crops = [augment_simpleclick(image, {"corner": corner}, 64, default_rng(seed)) for seed in range(20)]
    assert any(not crop.masks for crop in crops)
    assert all(mask.any() for crop in crops for mask in crop.masks.values())


def test_the_same_generator_gives_the_same_view() -> None:
    one, other = (augment_simpleclick(*pictured(), 96, default_rng(5)) for _ in range(2))
    assert np.array_equal(one.image, other.image)
    assert np.array_equal(one.masks["square"], other.masks["square"])
