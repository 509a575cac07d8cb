from __future__ import annotations

import cv2
import numpy as np
import pytest

from refcut_backend.images.decode import full_size_mask


def probabilities(height: int, width: int, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).random((height, width)).astype(np.float32)
    return cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 5), None, 0, 1, cv2.NORM_MINMAX)


@pytest.mark.parametrize("size", [(3000, 4000), (961, 1281), (1000, 3333)])
@pytest.mark.parametrize("threshold", [0.3, 0.5])
def test_the_mask_is_the_one_that_single_precision_gives(size, threshold):
    probability_hw = probabilities(200, 300)
    expected = cv2.resize(probability_hw, size[::-1], interpolation=cv2.INTER_LINEAR) > threshold
    mask_hw = full_size_mask(probability_hw, *size, threshold)
    assert mask_hw.dtype == bool
    assert mask_hw.shape == size
    assert (mask_hw != expected).sum() <= 1e-4 * expected.sum()


def test_an_image_that_is_its_own_working_copy_is_only_cut():
    probability_hw = probabilities(20, 30)
    assert np.array_equal(full_size_mask(probability_hw, 20, 30, 0.5), probability_hw > 0.5)


@pytest.mark.parametrize(("value", "expected"), [(0.0, False), (1.0, True)])
def test_empty_and_full_stay_empty_and_full(value, expected):
    mask_hw = full_size_mask(np.full((3, 5), value, np.float32), 70, 90, 0.5)
    assert (mask_hw == expected).all()
