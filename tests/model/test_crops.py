"""What the network is given of images, maps, masks and clicks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.transforms import Resampling, Roi, click_table, crop_image, crop_map, crop_mask, paste_map
from model.types import Click
from tests.support.synthetic import drawn_image

SIZE = 28


@settings(database=None, deadline=None, max_examples=80)
@given(st.integers(1, 400), st.integers(1, 400), st.data())
def test_a_mask_of_one_pixel_never_vanishes(height: int, width: int, data: st.DataObject) -> None:
    mask = np.zeros((height, width), bool)
    mask[data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))] = True
    assert crop_mask(mask, Roi.whole(height, width), SIZE).sum() > 0


@pytest.mark.parametrize(("height", "width"), [(28, 28), (112, 56), (300, 421), (29, 1000)])
def test_a_shrunk_mask_keeps_its_share_of_the_picture(height: int, width: int) -> None:
    mask = drawn_image(height, width)[..., 0] > 128
    shares = crop_mask(mask, Roi.whole(height, width), SIZE)
    assert shares.min() >= 0
    assert shares.max() <= 1
    assert float(shares.mean()) == pytest.approx(mask.mean(), abs=1e-3)


@pytest.mark.parametrize("value", [False, True])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 90), (90, 1), (57, 31), (300, 20)])
def test_even_masks_stay_even(height: int, width: int, value: bool) -> None:
    shares = crop_mask(np.full((height, width), value), Roi.whole(height, width), SIZE)
    assert torch.allclose(shares, torch.full((1, 1, SIZE, SIZE), float(value)))


@pytest.mark.parametrize("resampling", ["aligned", "area"])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 90), (57, 31), (300, 20)])
def test_images_of_any_size_become_squares(height: int, width: int, resampling: Resampling) -> None:
    image = np.full((height, width, 3), (255, 51, 0), np.uint8)
    crop = crop_image(image, Roi.whole(height, width), SIZE, resampling)
    assert crop.shape == (1, 3, SIZE, SIZE)
    assert torch.allclose(crop[0, :, 5, 5], torch.tensor([1.0, 0.2, 0.0]))


def test_a_crop_of_the_networks_size_is_taken_pixel_by_pixel_and_pasted_back() -> None:
    probability = np.random.default_rng(0).random((60, 70)).astype(np.float32)
    roi = Roi(11, 10 + SIZE, 20, 19 + SIZE)
    crop = crop_map(probability, roi, SIZE)
    assert np.array_equal(crop[0, 0].numpy(), probability[roi.slices])
    back = paste_map(crop, roi, 60, 70)
    assert np.array_equal(back[roi.slices], probability[roi.slices])
    back[roi.slices] = 0
    assert not back.any()


def test_corners_stay_on_corners_on_the_way_there_and_back() -> None:
    probability = np.random.default_rng(0).random((45, 83)).astype(np.float32)
    roi = Roi(3, 40, 5, 77)
    back = paste_map(crop_map(probability, roi, SIZE), roi, 45, 83)
    for corner in ((3, 5), (3, 77), (40, 5), (40, 77)):
        assert back[corner] == pytest.approx(probability[corner], abs=1e-6)


def test_clicks_have_slots_by_sign_in_the_order_of_clicking() -> None:
    table = click_table([Click(1, 2), Click(3, 4, False), Click(5.5, 6)])
    assert table[0].tolist() == [[1, 2, 0], [5.5, 6, 1], [3, 4, 0], [-1, -1, -1]]
    assert click_table([])[0].tolist() == [[-1, -1, -1], [-1, -1, -1]]
