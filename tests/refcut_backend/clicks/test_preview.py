from __future__ import annotations

import numpy as np
from sqlalchemy import Engine, insert

from refcut_backend.clicks.preview import LONGEST_SIDE_PX, MaskPreviews
from refcut_backend.database.click_tables import ClickedObjectState
from refcut_backend.label_studio import brush_rle
from refcut_backend.label_studio.prompts import PercentClick


def remember(engine: Engine, mask_hw: np.ndarray, rle: bytes | None = None) -> None:
    row = {
        "project_id": 7,
        "task_id": 3,
        "region_id": "r",
        "label": "Door",
        "to_name": "image",
        "clicks": [["a", 25.0, 75.0, True]],
        "box": None,
        "negative_label_clicks": [],
        "single_prompt": False,
        "accepted": False,
        "context_key": "",
        "requested_at_s": 1.0,
        "width": mask_hw.shape[1],
        "height": mask_hw.shape[0],
        "rle": bytes(brush_rle.encode(mask_hw)) if rle is None else rle,
        "score": 0.9,
        "reference_versions": [],
    }
    with engine.begin() as connection:
        connection.execute(insert(ClickedObjectState.__table__), row)


def test_a_preview_is_small_and_shows_the_mask_where_it_is(engine: Engine) -> None:
    mask_hw = np.zeros((900, 1400), bool)
    mask_hw[450:, :700] = True
    remember(engine, mask_hw)
    found = MaskPreviews(engine).of(7, 3, "r")
    assert found is not None
    assert max(found.mask_hw.shape) <= LONGEST_SIDE_PX
    height, width = found.mask_hw.shape
    assert found.mask_hw[height * 3 // 4, width // 4]
    assert abs(found.mask_hw.mean() - 0.25) < 0.01
    assert found.clicks == (PercentClick(25.0, 75.0, True, "a"),)


def test_a_mask_that_is_gone_or_too_large_has_no_preview(engine: Engine, monkeypatch) -> None:
    assert MaskPreviews(engine).of(7, 3, "r") is None
    remember(engine, np.ones((20, 20), bool))
    monkeypatch.setattr("refcut_backend.clicks.preview.MOST_PIXELS", 399)
    assert MaskPreviews(engine).of(7, 3, "r") is None
