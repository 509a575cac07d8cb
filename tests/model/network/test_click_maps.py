"""Clicks as disks, against the recording of SimpleClick's."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from model.network.click_maps import disk_maps
from tests.support.recordings import FOLDER


def test_disks_are_simpleclicks_half_pixel_points_and_points_outside_included() -> None:
    with np.load(FOLDER / "losses.npz") as recorded:
        maps = disk_maps(torch.from_numpy(recorded["pts"]), 40, 56)
        assert np.array_equal(maps.numpy(), recorded["disk_maps"])


def test_a_disk_in_the_open_has_81_pixels() -> None:
    maps = disk_maps(torch.tensor([[[20.0, 20.0, 0.0], [-1.0, -1.0, -1.0]]]), 40, 40)
    assert maps.sum(dim=(2, 3)).tolist() == [[81.0, 0.0]]


def test_uneven_slots_are_refused() -> None:
    with pytest.raises(ValueError, match="as many negative as positive"):
        disk_maps(torch.zeros(1, 3, 3), 8, 8)
