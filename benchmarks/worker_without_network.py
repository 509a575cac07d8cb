"""`refcut worker` whose network costs nothing: every click gets the same uneven blob. For `request_overhead`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import cache

import cv2
import numpy as np

from model.predictor import RefCutPredictor
from model.types import Box, Click, MaskResult
from refcut_backend.cli.main import app


@cache
def blob(height: int, width: int) -> MaskResult:
    """A shape with an uneven border, over about a quarter of the image."""
    noise = np.random.default_rng(0).random((height // 40, width // 40), np.float32)
    uneven_hw = cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
    rows, cols = np.mgrid[:height, :width]
    distance_hw = np.hypot((rows / height - 0.5) / 0.25, (cols / width - 0.5) / 0.3)
    probability_hw = 1 / (1 + np.exp(20 * (distance_hw + 0.3 * uneven_hw - 1)))
    return MaskResult(
        probability_hw > 0.5, probability_hw.astype(np.float32), Box(0, height - 1, 0, width - 1)
    )


def without_network(predictor: RefCutPredictor, _clicks: Sequence[Click], _box: object = None) -> MaskResult:
    """In the place of `RefCutPredictor.predict`."""
    return blob(*predictor.image_size)


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()
    RefCutPredictor.predict = without_network  # type: ignore[method-assign, assignment]
    app(["worker"])
