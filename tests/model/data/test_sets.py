from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from model.data.readers import SetDescription
from model.errors import DataError
from model.masks import decode, encode


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/d/ccp/val.json", SetDescription("ccp-val", "coco", Path("/d/ccp/val.json"), {})),
        (
            "coco:/d/x.json,grouping=photo,images=/p,name=mine",
            SetDescription("mine", "coco", Path("/d/x.json"), {"grouping": "photo", "images": "/p"}),
        ),
        (
            "part_imagenet:/d/pin,split=test",
            SetDescription("d-pin", "part_imagenet", Path("/d/pin"), {"split": "test"}),
        ),
        ("tda:/d/tda/part", SetDescription("tda-part", "tda", Path("/d/tda/part"), {})),
    ],
)
def test_a_set_is_described_in_one_word(text: str, expected: SetDescription) -> None:
    assert SetDescription.parse(text) == expected


@pytest.mark.parametrize(
    "text", ["", "tda:", "tda:/d,split=a", "/d/val.json,grouping", "/d/val.json,colour=red"]
)
def test_a_description_that_means_nothing_is_refused(text: str) -> None:
    with pytest.raises(DataError, match="cannot be understood"):
        SetDescription.parse(text)


def test_a_coco_style_file_is_read_with_its_images_beside_it(tmp_path: Path) -> None:
    rle = encode(np.eye(4, dtype=bool))
    content = {
        "images": [{"id": 1, "file_name": "a.jpg"}],
        "categories": [{"id": 1, "name": "wheel", "supercategory": "car"}],
        "annotations": [{"image_id": 1, "category_id": 1, "object_id": 1, "segmentation": rle}],
    }
    (tmp_path / "val.json").write_text(json.dumps(content))
    (scene,) = SetDescription.parse(str(tmp_path / "val.json")).read()
    assert (scene.image_path, scene.object_class) == (tmp_path / "images" / "a.jpg", "car")
    with pytest.raises(DataError, match="unknown grouping"):
        SetDescription.parse(f"{tmp_path / 'val.json'},grouping=colour").read()


def test_a_mask_survives_its_run_lengths() -> None:
    mask_hw = np.random.default_rng(0).random((7, 11)) > 0.5
    rle = json.loads(json.dumps(encode(mask_hw)))
    np.testing.assert_array_equal(decode(rle), mask_hw)
