from __future__ import annotations

import pytest

from refcut_backend.core.label_config import problems, read_label_config
from refcut_backend.errors import LabelConfigError
from tests.recorded import LABEL_CONFIG, backend_request


def test_the_shipped_config_has_no_problems():
    controls = read_label_config(LABEL_CONFIG)
    assert problems(controls) == []
    assert controls.roles == {"refcut_role"}
    assert controls.mask_control("Wheel", "image").name == "brush"
    assert controls.mask_control("Wheel", "image").image_field == "image"


def test_a_recorded_config_without_a_reference_choice_says_so():
    controls = read_label_config(backend_request("api_list_ml", "/setup")["schema"])
    assert [problem for problem in problems(controls) if "Reference" in problem]


@pytest.mark.parametrize("xml", ["<View>", "not xml"])
def test_what_is_no_label_config_is_refused_with_a_pattern_to_follow(xml):
    with pytest.raises(LabelConfigError, match="label_config/"):
        read_label_config(xml)


@pytest.mark.parametrize("xml", ["", "<View/>", "<View><Image name='i'/></View>"])
def test_a_config_without_controls_lists_all_that_is_missing(xml):
    assert len(problems(read_label_config(xml))) == 3


def test_a_label_that_no_brush_has_is_named():
    clicks, brush = LABEL_CONFIG.split("<BrushLabels")
    without_hood = brush.replace('<Label value="Hood" background="#2ca02c"/>', "")
    config = f"{clicks}<BrushLabels{without_hood}"
    controls = read_label_config(config)
    assert any("Hood" in problem for problem in problems(controls))
    with pytest.raises(LabelConfigError, match="Hood"):
        controls.mask_control("Hood", "image")
