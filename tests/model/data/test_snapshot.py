from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from model.data.snapshot import (
    HEAD_FILE,
    HOLDOUT_FILE,
    TRAIN_FILE,
    Snapshot,
    SnapshotMask,
    SnapshotObject,
    SnapshotReference,
    read_snapshot,
    write_snapshot,
)
from model.errors import DataError
from model.masks import encode

LEFT = np.arange(12)[None, :].repeat(8, axis=0) < 5


def annotated_object(name: str, annotation: str = "7") -> SnapshotObject:
    wheel = SnapshotMask("wheel", encode(LEFT), [[[2.0, 1.0, 1], [3.0, 9.0, 0]]])
    return SnapshotObject(name, 12, 8, annotation, [SnapshotMask("door", encode(~LEFT)), wheel])


def made_snapshot(folder: Path, **changes: str) -> Snapshot:
    names = {"train": "a.png", "holdout": "b.png"} | changes
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for name in ("a.png", "b.png"):
        cv2.imwrite(str(folder / "images" / name), np.full((8, 12, 3), 90, np.uint8))
    return write_snapshot(
        folder,
        train=[annotated_object(names["train"]), annotated_object(names["train"], "8")],
        holdout=[annotated_object(names["holdout"])],
        references=[SnapshotReference("wheel", "a.png", encode(LEFT), None, "0123456789ab")],
        made_of={"project": 3},
    )


def test_a_snapshot_comes_back_as_it_was_written(tmp_path: Path) -> None:
    written = made_snapshot(tmp_path)

    assert read_snapshot(tmp_path) == written
    assert written.labels == ["door", "wheel"]
    assert written.train == [annotated_object("a.png"), annotated_object("a.png", "8")]
    assert written.references[0].negative is None


def test_each_annotation_is_an_object_whose_parts_are_its_labels(tmp_path: Path) -> None:
    annotated_objects = made_snapshot(tmp_path).train_objects()

    assert [sorted(s.part_rles) for s in annotated_objects] == [["door", "wheel"]] * 2
    np.testing.assert_array_equal(annotated_objects[0].masks()["wheel"], LEFT)
    assert annotated_objects[0].image().shape == (8, 12, 3)


def test_the_same_annotations_have_the_same_digest_in_another_folder(tmp_path: Path) -> None:
    assert made_snapshot(tmp_path / "one").digest == made_snapshot(tmp_path / "two").digest


def test_an_image_is_never_on_both_sides(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"overlap.*a\.png"):
        made_snapshot(tmp_path, holdout="a.png")


def test_a_missing_image_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"c\.png is missing"):
        made_snapshot(tmp_path, train="c.png")


@pytest.mark.parametrize("name", [TRAIN_FILE, HOLDOUT_FILE])
def test_a_changed_file_is_refused(tmp_path: Path, name: str) -> None:
    made_snapshot(tmp_path)
    path = tmp_path / name
    path.write_text(path.read_text().replace("wheel", "wheels"))

    with pytest.raises(DataError, match="was changed"):
        read_snapshot(tmp_path)


def test_a_half_written_snapshot_is_none(tmp_path: Path) -> None:
    made_snapshot(tmp_path)
    (tmp_path / HEAD_FILE).unlink()

    with pytest.raises(DataError, match="not a complete snapshot"):
        read_snapshot(tmp_path)


def test_a_snapshot_of_another_format_is_named(tmp_path: Path) -> None:
    made_snapshot(tmp_path)
    head = json.loads((tmp_path / HEAD_FILE).read_text())
    (tmp_path / HEAD_FILE).write_text(json.dumps(head | {"format": "refcut-snapshot-0"}))

    with pytest.raises(DataError, match="expected refcut-snapshot-1"):
        read_snapshot(tmp_path)
