from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from refcut_backend.exporting.outlines import Ring, mask_rings, one_ring


def filled(rings: list[Ring], mask_hw: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """What pycocotools makes of polygons."""
    height, width = mask_hw.shape
    polygons = [ring.reshape(-1).tolist() for ring in rings]
    return coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(polygons, height, width))).astype(bool)


def ragged(seed: int, share: float) -> NDArray[np.bool_]:
    """A random mask: pieces that touch at corners, holes, pieces in holes, and pixels at the border."""
    return np.random.default_rng(seed).random((23, 31)) < share


def frame() -> NDArray[np.bool_]:
    """A square with a hole, and a piece in the hole."""
    mask_hw = np.zeros((40, 50), bool)
    mask_hw[5:35, 5:45] = True
    mask_hw[10:30, 10:40] = False
    mask_hw[15:20, 20:25] = True
    return mask_hw


@pytest.mark.parametrize(
    "mask_hw",
    [
        frame(),
        np.ones((7, 9), bool),
        np.eye(12, dtype=bool),
        *[ragged(s, share) for s in range(10) for share in (0.2, 0.5, 0.8)],
    ],
)
def test_the_outlines_of_a_mask_are_the_same_mask_again_holes_included(mask_hw):
    assert np.array_equal(filled(mask_rings(mask_hw), mask_hw), mask_hw)


def test_joined_to_one_ring_the_pieces_and_holes_are_still_the_same_mask():
    assert np.array_equal(filled([one_ring(mask_rings(frame()))], frame()), frame())


def test_a_tolerance_saves_corners_and_keeps_to_the_edge():
    rows, cols = np.mgrid[:80, :80]
    disc = (rows - 40) ** 2 + (cols - 40) ** 2 < 30**2
    (exact,), (coarse,) = mask_rings(disc), mask_rings(disc, tolerance_px=1.5)
    assert len(coarse) < len(exact) / 3
    again = filled([coarse], disc)
    assert (again & disc).sum() / (again | disc).sum() > 0.95


def test_an_empty_mask_has_no_outline():
    assert mask_rings(np.zeros((5, 5), bool)) == []
