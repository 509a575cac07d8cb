from __future__ import annotations

import pytest
from label_studio_sdk.label_interface import LabelInterface

from refcut_backend.label_studio.label_config import ProjectControls, problems, read_label_config
from tests.support.recorded import REPOSITORY

CONFIGS = [
    *sorted((REPOSITORY / "label_config").glob("*.xml")),
    REPOSITORY / "label_studio_demo" / "clothes.xml",
]
EVERY = pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)


def controls(name: str) -> ProjectControls:
    return read_label_config((REPOSITORY / "label_config" / f"{name}.xml").read_text())


@EVERY
def test_label_studio_accepts_the_config(path):
    LabelInterface(path.read_text()).validate()


@EVERY
def test_the_config_offers_clicks_masks_and_references(path):
    assert problems(read_label_config(path.read_text())) == []


@EVERY
def test_nothing_but_clicks_and_boxes_is_smart(path):
    for control in LabelInterface(path.read_text()).controls:
        if control.tag.endswith("Labels"):
            smart = "false" if control.tag in ("BrushLabels", "PolygonLabels") else "true"
            assert control.attr["smart"] == smart, control.name


@EVERY
def test_the_clicks_have_the_labels_of_the_masks_in_the_same_colours(path):
    config = LabelInterface(path.read_text())
    clicks = config.get_control("click").labels_attrs
    for control in config.controls:
        if control.tag.endswith("Labels"):
            colours = {label: found.attr["background"] for label, found in control.labels_attrs.items()}
            assert (
                colours.items()
                <= {label: found.attr["background"] for label, found in clicks.items()}.items()
            )


@EVERY
def test_smaller_and_larger_step_the_mask_and_have_hotkeys_of_their_own(path):
    found = read_label_config(path.read_text())
    assert [found.step_of(label, "image") for label in ("Smaller", "Larger", "Door")] == [-1, 1, 0]
    labels = LabelInterface(path.read_text()).get_control("click").labels_attrs
    assert {name: label.attr.get("hotkey") for name, label in labels.items() if label.attr.get("hotkey")} == {
        "Smaller": "s",
        "Larger": "l",
    }


def test_masks_come_back_as_what_the_configs_names_say():
    assert controls("clicks_polygon").mask_control("Door", "image").kind == "polygon"
    assert controls("clicks_brush").mask_control("Door", "image").kind == "brush"
    assert controls("clicks_box_brush").mask_control("Door", "image").kind == "brush"
    assert [control.name for control in controls("clicks_box_brush").boxes] == ["box"]


def test_the_parts_have_a_negative_label():
    parts = controls("object_parts")
    assert parts.is_negative_label("Negative", "image")
    assert not parts.is_negative_label("Shell", "image")
