from __future__ import annotations

import pytest
from label_studio_sdk.label_interface import LabelInterface

from refcut_backend.core.label_config import problems, read_label_config
from tests.recorded import REPOSITORY

CONFIGS = sorted((REPOSITORY / "label_config").glob("*.xml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_label_studio_accepts_the_config(path):
    LabelInterface(path.read_text()).validate()


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_the_config_offers_clicks_masks_and_references(path):
    assert problems(read_label_config(path.read_text())) == []


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_the_brush_is_not_smart(path):
    assert LabelInterface(path.read_text()).get_control("brush").attr["smart"] == "false"
