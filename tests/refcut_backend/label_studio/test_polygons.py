from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray

from refcut_backend.cli.demo import demo_mask
from refcut_backend.label_studio.polygons import MAX_CORNERS, Outline, OutlineSettings, mask_outlines

EXACT = OutlineSettings(tolerance_px=0, min_area_percent=0, max_pieces=1000)
MASKS = arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=9))


def drawn(outlines: list[Outline], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Which pixels' centres lie in an outline."""
    mask_hw = np.zeros(shape, bool)
    for outline in outlines:
        points = (outline * np.array(shape[::-1]) / 100).astype(np.float32)[:, None]
        for row, col in np.ndindex(*shape):
            mask_hw[row, col] |= cv2.pointPolygonTest(points, (col + 0.5, row + 0.5), False) >= 0
    return mask_hw


def without_holes(mask_hw: NDArray[np.bool_]) -> NDArray[np.bool_]:
    outside = np.pad(~mask_hw, 1, constant_values=True).astype(np.uint8)
    _, pieces = cv2.connectedComponents(outside, connectivity=4)
    return (pieces != pieces[0, 0])[1:-1, 1:-1]


def overlap(first_hw: NDArray[np.bool_], second_hw: NDArray[np.bool_]) -> float:
    return np.count_nonzero(first_hw & second_hw) / np.count_nonzero(first_hw | second_hw)


@given(MASKS)
def test_exact_outlines_hold_the_masks_pixels_with_its_holes_filled_and_no_others(mask_hw):
    assert np.array_equal(drawn(mask_outlines(mask_hw, EXACT), mask_hw.shape), without_holes(mask_hw))


@given(mask_hw=MASKS, tolerance_px=st.floats(0, 50), min_area_percent=st.floats(0, 100))
def test_promise_26_any_mask_with_any_settings_has_outlines_of_three_corners_on_the_image(
    mask_hw, tolerance_px, min_area_percent
):
    settings = OutlineSettings(tolerance_px, min_area_percent)
    outlines = mask_outlines(mask_hw, settings)
    assert bool(outlines) == bool(mask_hw.any())
    for outline in outlines:
        assert len(outline) >= 3
        assert outline.min() >= 0
        assert outline.max() <= 100 + 1e-9


def test_an_empty_mask_has_no_outline():
    assert mask_outlines(np.zeros((3, 4), bool), OutlineSettings()) == []


def test_a_full_mask_is_the_images_border():
    (outline,) = mask_outlines(np.ones((30, 40), bool), OutlineSettings())
    assert sorted(outline.tolist()) == [[0, 0], [0, 100], [100, 0], [100, 100]]


def test_one_pixel_is_a_square():
    mask_hw = np.zeros((10, 20), bool)
    mask_hw[4, 5] = True
    (outline,) = mask_outlines(mask_hw, OutlineSettings())
    assert sorted(outline.tolist()) == [[25, 40], [25, 50], [30, 40], [30, 50]]


def test_pieces_come_largest_first_and_specks_are_left_out():
    mask_hw = np.zeros((60, 60), bool)
    mask_hw[0:10, 0:10] = mask_hw[20:50, 20:50] = mask_hw[58, 2] = True
    outlines = mask_outlines(mask_hw, OutlineSettings(min_area_percent=1))
    assert [outline.min() for outline in outlines] == pytest.approx([100 / 3, 0])


def test_no_more_pieces_are_kept_than_allowed():
    mask_hw = np.zeros((60, 60), bool)
    mask_hw[::3, ::3] = True
    assert len(mask_outlines(mask_hw, OutlineSettings(max_pieces=7))) == 7


@pytest.mark.parametrize(
    ("tolerance_px", "most_corners", "least_overlap"), [(0.5, 200, 0.95), (1, 80, 0.94), (2, 40, 0.9)]
)
def test_a_real_mask_as_polygons_is_much_the_same_mask(tolerance_px, most_corners, least_overlap):
    mask_hw = demo_mask("car_parts_te66", "hood")
    outlines = mask_outlines(mask_hw, OutlineSettings(tolerance_px=tolerance_px))
    assert sum(len(outline) for outline in outlines) < most_corners
    again = np.zeros(mask_hw.shape, np.uint8)
    scale = np.array(mask_hw.shape[::-1]) / 100
    for outline in outlines:
        cv2.fillPoly(again, [np.rint(outline * scale - 0.5).astype(np.int32)], 1)
    assert overlap(mask_hw, again > 0) > least_overlap


def test_a_ragged_outline_is_simplified_until_it_can_be_edited():
    noise = np.random.default_rng(0).random((400, 400))
    mask_hw = cv2.GaussianBlur(noise, (0, 0), 1.2) > 0.5
    for outline in mask_outlines(mask_hw, OutlineSettings(tolerance_px=0, min_area_percent=0)):
        assert len(outline) <= MAX_CORNERS


def test_a_huge_mask_is_outlined_a_little_coarser():
    mask_hw = np.zeros((6000, 9000), bool)
    mask_hw[1000:5000, 2000:8000] = True
    (outline,) = mask_outlines(mask_hw, OutlineSettings())
    left, top = outline.min(axis=0)
    right, bottom = outline.max(axis=0)
    assert (left, right) == pytest.approx((100 * 2000 / 9000, 100 * 8000 / 9000), abs=0.1)
    assert (top, bottom) == pytest.approx((100 * 1000 / 6000, 100 * 5000 / 6000), abs=0.1)
