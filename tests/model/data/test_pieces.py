"""Pieces of a part: what is labelled separately, and what lies apart though it is labelled at once."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from model.data.annotated_objects import AnnotatedObject
from model.data.pieces import Photograph, separate_areas
from model.masks import encode
from model.types import BoolMask


def mask_of(*boxes: tuple[int, int, int, int]) -> BoolMask:
    mask = np.zeros((60, 80), bool)
    for top, bottom, left, right in boxes:
        mask[top:bottom, left:right] = True
    return mask


LEFT, RIGHT, SPECK = (40, 50, 5, 20), (42, 52, 50, 66), (45, 47, 70, 72)


def test_two_shoes_in_one_mask_are_two_pieces_and_a_speck_goes_with_the_nearer() -> None:
    left, right = separate_areas(mask_of(LEFT, RIGHT, SPECK))
    np.testing.assert_array_equal(left, mask_of(LEFT))
    np.testing.assert_array_equal(right, mask_of(RIGHT, SPECK))


@pytest.mark.parametrize(
    "mask", [mask_of(LEFT), mask_of(LEFT, SPECK), mask_of()], ids=["one", "speck", "empty"]
)
def test_a_mask_with_fewer_than_two_large_areas_is_one_piece(mask: BoolMask) -> None:
    (piece,) = separate_areas(mask)
    np.testing.assert_array_equal(piece, mask)


def test_each_annotation_of_a_part_is_a_piece(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    cv2.imwrite(str(path), np.zeros((60, 80, 3), np.uint8))
    rles = {"shoe": [encode(mask_of(LEFT, RIGHT))], "light": [encode(mask_of(LEFT)), encode(mask_of(RIGHT))]}
    one = AnnotatedObject(path, "", rles, has_whole=False, names_carry=True)
    for separate, shoes in ((False, 1), (True, 2)):
        photograph = Photograph.of(one, separate=separate)
        assert [len(photograph.keys_of(name)) for name in ("shoe", "light")] == [shoes, 2]
        for name, mask in one.masks().items():
            np.testing.assert_array_equal(photograph.union(photograph.keys_of(name)), mask)
