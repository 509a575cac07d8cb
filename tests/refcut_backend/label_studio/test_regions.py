"""tests/refcut_backend/label_studio/test_regions.py."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from refcut_backend.errors import BadMaskError
from refcut_backend.label_studio import brush_rle
from refcut_backend.label_studio.label_config import MASK_KINDS, Control
from refcut_backend.label_studio.polygons import OutlineSettings
from refcut_backend.label_studio.regions import MAX_POINTS, GivenMask, mask_regions, read_region

WIDTH, HEIGHT = 200, 100


def mask_of(kind: str, **value: Any) -> np.ndarray:
    item = {
        "type": kind,
        "to_name": "image",
        "original_width": WIDTH,
        "original_height": HEIGHT,
        "value": value | {kind: ["Door"]},
    }
    region = read_region(item, None)
    assert region is not None
    return region.mask_hw()


def share_in_common(first: np.ndarray, second: np.ndarray) -> float:
    return float((first & second).sum() / (first | second).sum())


def pixel_centres() -> tuple[np.ndarray, np.ndarray]:
    rows, cols = np.mgrid[:HEIGHT, :WIDTH]
    return cols + 0.5, rows + 0.5


def test_a_polygon_covers_the_pixels_inside_it():
    mask_hw = mask_of("polygonlabels", points=[[10, 10], [60, 10], [10, 90]])
    x, y = pixel_centres()
    inside = (x > 20) & (y > 10) & ((x - 20) / 100 + (y - 10) / 80 < 1)
    assert mask_hw.shape == (HEIGHT, WIDTH)
    assert share_in_common(mask_hw, inside) > 0.95


def test_an_upright_rectangle_covers_its_pixels():
    mask_hw = mask_of("rectanglelabels", x=10, y=20, width=30, height=50)
    x, y = pixel_centres()
    assert share_in_common(mask_hw, (x > 20) & (x < 80) & (y > 20) & (y < 70)) > 0.95


@pytest.mark.parametrize("degrees", [30, 90, 215])
def test_a_turned_rectangle_turns_clockwise_about_its_corner_in_pixels_not_in_percent(degrees):
    mask_hw = mask_of("rectanglelabels", x=50, y=50, width=20, height=15, rotation=degrees)
    x, y = pixel_centres()
    turn = math.radians(degrees)
    along = (x - 100) * math.cos(turn) + (y - 50) * math.sin(turn)
    across = -(x - 100) * math.sin(turn) + (y - 50) * math.cos(turn)
    assert share_in_common(mask_hw, (along > 0) & (along < 40) & (across > 0) & (across < 15)) > 0.85


def test_what_reaches_beyond_the_image_is_cut_off_there():
    assert mask_of("rectanglelabels", x=-10, y=-10, width=120, height=120).all()


@pytest.mark.parametrize(
    "points",
    [
        None,
        "abc",
        [],
        [[0, 0], [1, 1]],
        [[0, 0], [1, 1], [2]],
        [[0, 0], [1, 1], ["x", 2]],
        [[0, 0], [1, 1], [math.nan, 2]],
        [[0, 0], [1, 1], [math.inf, 2]],
        [[0, 0], [1, 1], [1e300, 2]],
        [[0, 0]] * (MAX_POINTS + 1),
    ],
)
def test_a_polygon_that_the_editor_would_not_make_is_refused(points):
    with pytest.raises(BadMaskError):
        mask_of("polygonlabels", points=points)


@pytest.mark.parametrize(
    "change",
    [
        {"x": None},
        {"width": math.nan},
        {"rotation": "round"},
        {"height": 1e9},
        {"rotation": math.inf},
        {"rotation": math.nan},
    ],
)
def test_a_rectangle_that_the_editor_would_not_make_is_refused(change):
    with pytest.raises(BadMaskError):
        mask_of("rectanglelabels", **({"x": 0, "y": 0, "width": 10, "height": 10, "rotation": 0} | change))


@pytest.mark.parametrize(
    "change",
    [
        {"original_width": None},
        {"original_width": 0},
        {"original_width": 10**6, "original_height": 10**6},
        {"original_width": 10**8, "original_height": 1},
        {"value": None},
        {"value": {"brushlabels": "Door"}},
    ],
)
def test_a_region_without_labels_or_a_possible_size_is_refused(change):
    item = {"type": "brushlabels", "original_width": 3, "original_height": 3, "value": {"brushlabels": ["A"]}}
    with pytest.raises(BadMaskError):
        read_region(item | change, None)


def test_corners_far_outside_of_the_widest_image_are_numbers_that_can_be_drawn():
    region = read_region(
        {
            "type": "polygonlabels",
            "original_width": 10**6,
            "original_height": 1,
            "value": {
                "points": [[-1000, -1000], [1000, -1000], [1000, 1000], [-1000, 1000]],
                "polygonlabels": ["A"],
            },
        },
        None,
    )
    assert region is not None
    assert region.mask_hw().all()


@pytest.mark.parametrize("kind", ["keypointlabels", "choices", None, [], {}, 7])
def test_results_that_are_no_masks_are_no_regions(kind):
    assert read_region({"type": kind}, None) is None


CONTROLS = {
    kind: Control("masks", "image", "image", frozenset({"Door"}), kind, "false") for kind in MASK_KINDS
}
MASK = np.zeros((10, 20), bool)
MASK[2:6, 4:14] = True


def given_mask(mask_hw: np.ndarray, versions: tuple[str, ...] = ()) -> GivenMask:
    height, width = mask_hw.shape
    rle = brush_rle.encode(mask_hw) if mask_hw.any() else []
    return GivenMask(width, height, rle, 0.87654, versions)


def regions(mask_hw: np.ndarray, kind: str, versions: tuple[str, ...] = ()) -> list[dict]:
    return mask_regions("rc-a", "Door", CONTROLS[kind], given_mask(mask_hw, versions), OutlineSettings())


def test_a_brush_region_holds_the_mask():
    (region,) = regions(MASK, "brush")
    assert (region["type"], region["value"]["brushlabels"]) == ("brushlabels", ["Door"])
    assert np.array_equal(brush_rle.decode(region["value"]["rle"], 10, 20), MASK)


def test_a_polygon_region_has_its_corners_in_percent():
    (region,) = regions(MASK, "polygon")
    assert (region["type"], region["value"]["polygonlabels"]) == ("polygonlabels", ["Door"])
    assert sorted(region["value"]["points"]) == [[20, 20], [20, 60], [70, 20], [70, 60]]


def test_a_rectangle_region_is_the_box_round_all_pieces():
    two = MASK.copy()
    two[9, 0:8] = True
    (region,) = regions(two, "rectangle")
    value = region["value"]
    assert (region["type"], value["rectanglelabels"]) == ("rectanglelabels", ["Door"])
    assert [value[key] for key in ("x", "y", "width", "height", "rotation")] == [0, 20, 70, 80, 0]


def test_pieces_of_a_polygon_mask_have_ids_of_their_own():
    three = np.zeros((30, 30), bool)
    three[0:4, 0:4] = three[10:20, 10:20] = three[25:30, 0:5] = True
    found = regions(three, "polygon")
    assert [region["id"] for region in found] == ["rc-a", "rc-a-2", "rc-a-3"]
    assert found[0]["value"]["points"][0][0] > 30, "the largest piece has the object's id"


@pytest.mark.parametrize("kind", MASK_KINDS)
def test_every_region_names_its_references_and_where_it_comes_from(kind):
    (region,) = regions(MASK, kind, ("abc", "def"))
    assert region["meta"] == {"text": ["RefCut reference: abc, def"]}
    assert (region["origin"], region["score"], region["readonly"]) == ("prediction", 0.8765, False)
    (region,) = regions(MASK, kind)
    assert region["meta"] == {"text": ["RefCut reference: none"]}


@pytest.mark.parametrize("kind", MASK_KINDS)
def test_promise_26_an_empty_mask_is_no_region(kind):
    assert regions(np.zeros((4, 5), bool), kind) == []


@given(arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=7)), st.sampled_from(MASK_KINDS))
def test_promise_26_any_mask_is_regions_of_the_images_true_size_with_ids_of_their_own(mask_hw, kind):
    found = regions(mask_hw, kind)
    assert bool(found) == bool(mask_hw.any())
    assert {(r["original_height"], r["original_width"]) for r in found} <= {mask_hw.shape}
    assert len({region["id"] for region in found}) == len(found)
