"""The recordings of SimpleClick in tests/fixtures/simpleclick (see the README there), as values."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from model.predictor_config import PredictorSettings
from model.types import Box, Click

FOLDER = Path(__file__).parents[1] / "fixtures" / "simpleclick"
CHECKPOINT = FOLDER / "simpleclick_micro.pth"
RUNS = sorted(path.stem for path in FOLDER.glob("micro_*.npz"))


@dataclass(frozen=True)
class Run:
    """One run of SimpleClick's predictor. n clicks; probabilities at every second row and column."""

    image_path: Path
    clicks: list[Click]
    settings: PredictorSettings
    rois: list[Box]
    masks_nhw: NDArray[np.bool_]
    probabilities_nhw_half: NDArray[np.float64]


def read_run(name: str) -> Run:
    """The recorded run of that name."""
    with np.load(FOLDER / f"{name}.npz") as values:
        zoom = json.loads(str(values["zoom"])) or {}
        rows, cols = (int(values["rois"][0, end]) + 1 for end in (1, 3))
        return Run(
            image_path=FOLDER / str(values["image"]),
            clicks=[Click(float(row), float(col), bool(sign)) for row, col, sign in values["clicks"]],
            settings=PredictorSettings(
                network_px=zoom.get("target_size", [448])[0],
                zoom=bool(zoom),
                flip=bool(values["with_flip"]),
                zoom_skip_clicks=zoom.get("skip_clicks", -1),
                zoom_threshold=zoom.get("prob_thresh", 0.5),
                zoom_min_px=zoom.get("min_crop_size", 200),
            ),
            rois=[Box(*(int(edge) for edge in roi)) for roi in values["rois"]],
            masks_nhw=np.unpackbits(values["masks"], axis=-1, count=cols)[:, :rows].astype(bool),
            probabilities_nhw_half=values["probs_65535"] / 65535,
        )


def read_picture(path: Path) -> NDArray[np.uint8]:
    """The picture of a run, (H, W, 3)."""
    with Image.open(path) as picture:
        return np.array(picture)
