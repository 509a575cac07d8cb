from __future__ import annotations

from pathlib import Path

import pytest

from model.cli.cache_features import main
from tests.support.reader_data import write_part_file

CONFIG = """
crops: 2
sets:
  fish: {json_path: parts.json, image_dir: images, grouping: object}
  river: {json_path: parts.json, image_dir: images, grouping: object, crops: 1}
"""


@pytest.mark.parametrize(
    ("asked", "cached"),
    [([], {"fish-0", "fish-1", "river-0"}), (["--crops", "1", "--sets", "river"], {"river-1"})],
)
def test_each_set_gets_the_crops_that_its_training_reads_or_those_that_are_asked_for(
    tmp_path: Path, asked: list[str], cached: set[str]
) -> None:
    write_part_file(tmp_path / "data", 2, {"fin": [(10, 40, 10, 60)], "tail": [(50, 90, 70, 120)]})
    (tmp_path / "config.yaml").write_text(CONFIG)
    paths = ["--data", str(tmp_path / "data"), "--cache", str(tmp_path / "cache")]
    main([str(tmp_path / "config.yaml"), *paths, *asked])
    assert {folder.name for folder in (tmp_path / "cache").iterdir()} == cached
