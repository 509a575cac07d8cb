"""What a label may mean on a demo photograph: one of its parts, or the whole car."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from model.data.annotated_objects import read_annotated_objects
from model.masks import union
from refcut_backend.cli.demo import demo_mask
from refcut_backend.playground.demo import PARTS_FILE, PHOTOGRAPHS

CAR = "car"
PARTS = ("wheel", "hood", "front_door")


def demo_region(photograph: str, meaning: str) -> NDArray[np.bool_]:
    """Mask (H, W) of a part, or of all parts for "car"."""
    if meaning != CAR:
        return demo_mask(photograph, meaning)
    annotated_objects = read_annotated_objects(PARTS_FILE, PHOTOGRAPHS, grouping="object")
    return union(next(s for s in annotated_objects if s.image_path.stem == photograph).masks().values())


def other_regions(photograph: str, meaning: str) -> dict[str, NDArray[np.bool_]]:
    """Parts that are not meant; there are none where the whole car is."""
    return {name: demo_mask(photograph, name) for name in PARTS if CAR != meaning != name}
