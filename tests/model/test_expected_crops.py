"""Where a label is expected on an image: the crops of it, and which of them a second look takes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from model.expected_crops import EXPECTED, NEXT_TO, crop_next_to, expected_crops
from model.transforms import box_overlap
from model.types import Box

SIZE = (240, 480)
"""Of the image: a patch of the grid below is 10 x 20 pixels."""
LIMITS: dict[str, Any] = {"largest_share": 0.7, "expansion": 1.0, "min_crop_px": 1}


def places(*patches: tuple[slice, slice]) -> np.ndarray:
    probability_hw = np.full((24, 24), 0.1, np.float32)
    for patch in patches:
        probability_hw[patch] = 0.9
    return probability_hw


def test_the_crop_of_a_place_is_around_its_patches_in_pixels_of_the_image() -> None:
    found = expected_crops(places(np.s_[2:5, 6:8]), SIZE, **LIMITS)
    assert found == (Box(20, 50, 120, 160),)


def test_of_several_pieces_there_is_a_crop_of_all_and_one_of_the_largest() -> None:
    found = expected_crops(places(np.s_[2:4, 2:4], np.s_[6:12, 6:10], np.s_[3, 12]), SIZE, **LIMITS)
    assert found == (Box(20, 120, 40, 260), Box(60, 120, 120, 200))


def test_a_crop_is_as_much_larger_than_its_box_as_asked_and_never_too_small() -> None:
    place = places(np.s_[10:14, 10:14])
    (wide,) = expected_crops(place, SIZE, **(LIMITS | {"expansion": 1.5}))
    assert (wide.height, wide.width) == (pytest.approx(60, abs=1), pytest.approx(120, abs=1))
    (large,) = expected_crops(place, SIZE, **(LIMITS | {"min_crop_px": 200}))
    assert (large.height, large.width) == (pytest.approx(200, abs=1), pytest.approx(200, abs=1))


def test_nothing_expected_and_all_expected_have_no_crop() -> None:
    assert expected_crops(places(), SIZE, **LIMITS) == ()
    assert expected_crops(np.full((24, 24), EXPECTED, np.float32), SIZE, **LIMITS) == ()
    assert expected_crops(places(np.s_[:, :]), SIZE, **LIMITS) == ()


def test_a_piece_that_leaves_enough_of_the_image_free_has_a_crop_where_all_together_have_none() -> None:
    found = expected_crops(places(np.s_[0:2, 0:2], np.s_[20:24, 20:24]), SIZE, **LIMITS)
    assert found == (Box(200, 239, 400, 479),)


WANTED = Box(100, 199, 100, 199)
INSIDE = Box(120, 180, 120, 180)


def test_the_expected_crop_that_overlaps_most_takes_the_place_of_the_wanted_one() -> None:
    near, nearer = Box(90, 195, 100, 199), Box(98, 199, 100, 199)
    assert crop_next_to(WANTED, INSIDE, (near, nearer, Box(0, 50, 0, 50))) == nearer


@pytest.mark.parametrize(
    "crops",
    [
        pytest.param((), id="nothing expected"),
        pytest.param((Box(60, 239, 60, 239),), id="much larger"),
        pytest.param((Box(100, 199, 100, 160),), id="cuts the mask off"),
        pytest.param((Box(130, 199, 100, 199),), id="cuts the mask off at the top"),
    ],
)
def test_without_an_expected_crop_about_the_mask_the_wanted_one_is_taken(crops: tuple[Box, ...]) -> None:
    assert crop_next_to(WANTED, INSIDE, crops) == WANTED


def test_a_crop_at_the_least_overlap_is_taken() -> None:
    crop = Box(100, 199, 100, 100 + round(100 * NEXT_TO) - 1)
    assert box_overlap(crop, WANTED) == pytest.approx(NEXT_TO)
    assert crop_next_to(WANTED, Box(120, 150, 110, 150), (crop,)) == crop
