from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from refcut_backend.label_studio import brush_rle
from refcut_backend.label_studio.label_config import MASK_KINDS, Control
from refcut_backend.label_studio.polygons import OutlineSettings
from refcut_backend.label_studio.regions import GivenMask, mask_regions

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
