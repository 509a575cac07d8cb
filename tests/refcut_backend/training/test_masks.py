from __future__ import annotations

import numpy as np
import pytest

from refcut_backend.errors import BadMaskError
from refcut_backend.label_studio.label_config import read_label_config
from refcut_backend.label_studio.regions import count_mask_regions
from refcut_backend.training.masks import click_sessions, read_training_masks
from tests.support.recorded import (
    LABEL_CONFIG,
    REPOSITORY,
    box_result,
    brush_result,
    click_result,
    role_result,
)
from tests.support.registry import square

CONTROLS = read_label_config(LABEL_CONFIG)


def config(name: str):
    return read_label_config((REPOSITORY / "label_config" / f"{name}.xml").read_text())


def test_all_of_a_label_is_one_mask():
    result = [
        brush_result("a", "Wheel", square(5)),
        brush_result("b", "Wheel", square(30)),
        brush_result("c", "Door", square(15)),
    ]
    door, wheel = read_training_masks(result, CONTROLS)["image"]
    assert (door.label, door.region_ids) == ("Door", ("c",))
    assert (wheel.label, wheel.region_ids) == ("Wheel", ("a", "b"))
    assert np.array_equal(wheel.mask_hw, square(5) | square(30))


def test_what_a_label_does_not_mean_is_no_part_of_it():
    good, bad = brush_result("a", "Door", square(5)), brush_result("b", "Door", square(30))
    result = [good, role_result(good, "Reference"), bad, role_result(bad, "Negative reference")]
    (door,) = read_training_masks(result, CONTROLS)["image"]
    assert np.array_equal(door.mask_hw, square(5))


def test_dots_boxes_of_the_smart_tool_and_unknown_labels_are_no_masks():
    controls = config("clicks_box_brush")
    label = min(controls.region_labels)
    result = [
        click_result("k", 10, 10, label),
        box_result("x", 10, 10, 20, 20, label, size=(60, 20)),
        brush_result("b", "a label that left the config", square(5)),
    ]
    assert read_training_masks(result, controls) == {}
    assert count_mask_regions(result, controls) == 1


def test_polygons_count_where_they_are_the_tool_for_masks():
    controls = config("clicks_polygon")
    label = min(controls.region_labels)
    (control,) = controls.masks
    polygon = {
        "id": "p",
        "type": "polygonlabels",
        "from_name": control.name,
        "to_name": control.to_name,
        "original_width": 60,
        "original_height": 20,
        "value": {"points": [[0, 0], [50, 0], [50, 100], [0, 100]], "polygonlabels": [label]},
    }
    (found,) = read_training_masks([polygon], controls)[control.to_name]
    assert found.mask_hw[:, :30].all()
    assert not found.mask_hw[:, 31:].any()


def test_rectangles_count_where_they_are_the_tool_for_masks():
    xml = (
        '<View><Image name="image" value="$image"/><RectangleLabels name="box" toName="image" smart="false">'
        '<Label value="Door"/></RectangleLabels></View>'
    )
    box = box_result("b", 0, 0, 50, 100, "Door", size=(60, 20))
    (found,) = read_training_masks([box], read_label_config(xml))["image"]
    assert found.mask_hw[:, :30].all()
    assert not found.mask_hw[:, 31:].any()


def test_one_damaged_region_makes_the_annotation_useless():
    broken = brush_result("b", "Door", square(5))
    broken["value"] = {**broken["value"], "rle": [1, 2, 3]}
    with pytest.raises(BadMaskError):
        read_training_masks([brush_result("a", "Door", square(30)), broken], CONTROLS)


def test_an_empty_mask_teaches_nothing():
    assert read_training_masks([brush_result("a", "Door", np.zeros((20, 60), bool))], CONTROLS) == {}


def test_the_clicks_of_a_region_come_in_their_order_and_in_pixels():
    clicks = {"rc-k": [["k", 50.0, 25.0, True], ["m", 100.0, 100.0, False]]}
    assert click_sessions(["rc-k"], clicks, 20, 60) == [[[5.0, 30.0, 1.0], [19.0, 59.0, 0.0]]]


def test_the_pieces_of_a_polygon_came_from_one_session():
    clicks = {"rc-k": [["k", 50.0, 25.0, True]]}
    assert len(click_sessions(["rc-k", "rc-k-2", "rc-k-3", "drawn-by-hand"], clicks, 20, 60)) == 1
