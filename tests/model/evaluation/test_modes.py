"""tests/model/evaluation/test_modes.py."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from model.evaluation.modes import MODE_GROUPS, Mode, as_polygons, parse_modes, shrunk_image, shrunk_mask
from model.masks import intersection_over_union


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("right", Mode("right", "right")),
        ("none+jitter", Mode("none+jitter", "none", jitter=True)),
        ("alone+refs4", Mode("alone+refs4", "right", references=4, first_mask="alone")),
        ("nearest", Mode("nearest", "right", first_mask="nearest")),
        ("right+refs4", Mode("right+refs4", "right", references=4)),
        ("positive+polygon8+scale0.5", Mode("positive+polygon8+scale0.5", "positive", 1, 8, 0.5)),
    ],
)
def test_a_mode_is_spelled_as_a_reference_and_changes(text: str, expected: Mode) -> None:
    assert Mode.parse(text) == expected


@pytest.mark.parametrize(
    "text",
    ["left", "", "right+refs0", "right+polygon3", "right+scale0", "right+scale2", "right+blur", "none+refs2"],
)
def test_a_mode_that_means_nothing_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="mode"):
        Mode.parse(text)


def test_groups_stand_for_their_modes_and_each_runs_once() -> None:
    names = [mode.name for mode in parse_modes(["none", "table3", "right"])]
    assert names == ["none", "right", "positive", "negative"]


def test_everything_the_paper_and_the_issue_ask_for_is_in_the_group_all() -> None:
    modes = parse_modes(["all"])
    assert {mode.reference for mode in modes} == {"right", "none", "positive", "negative", "wrong"}
    assert {mode.references for mode in modes} == {1, 2, 4, 8}
    assert {mode.first_mask for mode in modes} == {None, "alone", "nearest", "prototype"}
    assert {name for group in MODE_GROUPS.values() for name in group} == {mode.name for mode in modes}


def disc(radius: int, side: int = 101) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    rows, cols = np.ogrid[:side, :side]
    return np.asarray((rows - side // 2) ** 2 + (cols - side // 2) ** 2 <= radius**2)


def test_fewer_corners_keep_less_of_a_disc() -> None:
    overlaps = [intersection_over_union(disc(40), as_polygons(disc(40), corners)) for corners in (32, 8, 4)]
    assert overlaps == sorted(overlaps, reverse=True)
    assert overlaps[0] > 0.95
    assert 0.55 < overlaps[-1] < 0.7


def test_a_polygon_has_no_more_corners_than_asked_for() -> None:
    drawn = as_polygons(disc(40), 5).astype(np.uint8)
    contours, _ = cv2.findContours(drawn, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    assert len(cv2.approxPolyDP(contours[0], 1.5, True)) <= 5


def test_a_long_piece_does_not_become_a_line() -> None:
    strip_hw = np.zeros((40, 40), bool)
    for step in range(30):
        strip_hw[step : step + 4, step : step + 2] = True
    assert intersection_over_union(strip_hw, as_polygons(strip_hw, 4)) > 0.5


def test_a_rectangle_of_four_corners_is_not_changed() -> None:
    mask_hw = np.zeros((30, 40), bool)
    mask_hw[5:20, 8:30] = True
    np.testing.assert_array_equal(as_polygons(mask_hw, 4), mask_hw)


def test_pieces_stay_apart_and_holes_are_filled() -> None:
    mask_hw = np.zeros((30, 60), bool)
    mask_hw[5:25, 5:25] = True
    mask_hw[12:16, 12:16] = False
    mask_hw[5:25, 35:55] = True
    drawn = as_polygons(mask_hw, 4)
    assert drawn[14, 14]
    assert not drawn[:, 26:34].any()


@pytest.mark.parametrize("pixels", [0, 1, 2])
def test_a_mask_of_hardly_a_pixel_neither_vanishes_nor_appears(pixels: int) -> None:
    mask_hw = np.zeros((20, 20), bool)
    mask_hw[10, 10 : 10 + pixels] = True
    assert as_polygons(mask_hw, 4).any() == shrunk_mask(mask_hw, 0.25).any() == bool(pixels)


@pytest.mark.parametrize("scale", [0.75, 0.5, 0.25])
def test_a_shrunk_reference_keeps_its_photographs_size_and_its_place_in_it(scale: float) -> None:
    image = np.full((101, 121, 3), 10, np.uint8)
    mask_hw = np.zeros((101, 121), bool)
    mask_hw[30:60, 40:90] = True
    image[mask_hw] = 250
    small_image, small_mask = shrunk_image(image, scale), shrunk_mask(mask_hw, scale)
    assert small_image.shape == image.shape
    assert small_mask.sum() == pytest.approx(mask_hw.sum() * scale**2, rel=0.15)
    assert intersection_over_union(small_image[..., 0] > 200, small_mask) > 0.8
