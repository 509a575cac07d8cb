from __future__ import annotations

import numpy as np

from refcut_backend.images.decode import fitted_mask


def test_a_pixel_of_the_smaller_mask_is_set_where_more_than_half_of_it_is_covered():
    mask_hw = np.zeros((4, 8), bool)
    mask_hw[:2, :2] = True
    mask_hw[:2, 2] = True
    assert np.array_equal(fitted_mask(mask_hw, 2, 4), [[True, False, False, False], [False] * 4])


def test_a_mask_of_that_size_stays_as_it_is():
    mask_hw = np.eye(5, dtype=bool)
    assert fitted_mask(mask_hw, 5, 5) is mask_hw
