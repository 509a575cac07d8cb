from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from benchmarks.kinds_by_likeness import Thing, kinds_of, named
from model.data.annotated_objects import AnnotatedObject


def test_things_that_are_alike_are_one_kind_and_a_thing_like_no_other_has_none() -> None:
    first, second, other = np.eye(8, dtype=np.float32)[:3]
    near = np.float32(0.3) * np.eye(8, dtype=np.float32)[3]
    kinds = kinds_of(np.stack([first, second, first + near, other, second + near]))
    assert kinds[0] == kinds[2] != 0
    assert kinds[1] == kinds[4] != 0
    assert kinds[0] != kinds[1]
    assert kinds[3] == 0


def test_only_photographs_with_a_thing_that_has_company_are_taken_and_loners_keep_names_of_their_own(
    tmp_path: Path,
) -> None:
    mask_hw = np.zeros((20, 30), bool)
    mask_hw[5:10, 5:10] = True
    photographs = []
    for name in ("a", "b", "c"):
        cv2.imwrite(str(tmp_path / f"{name}.png"), np.full((20, 30, 3), 80, np.uint8))
        photographs.append(AnnotatedObject(tmp_path / f"{name}.png", "", {}, False, True))
    things = [Thing(number, mask_hw, None) for number in (0, 0, 1, 2)]
    first, second = named(photographs, things, [4, 0, 0, 4])
    assert (first.name, second.name) == ("a", "c")
    assert [name for name, _ in first.masks] == ["kind_4", "alone_1"]
    assert [name for name, _ in second.masks] == ["kind_4"]
