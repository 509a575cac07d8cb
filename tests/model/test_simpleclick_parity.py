"""The predictor on a converted official checkpoint computes what SimpleClick's own predictor computed."""

from __future__ import annotations

import numpy as np
import pytest

from model.checkpoints.official import convert
from model.checkpoints.weights import load_network
from model.network.refcut import RefCut
from model.predictor import RefCutPredictor
from tests.support.recordings import CHECKPOINT, RUNS, read_picture, read_run


@pytest.fixture(scope="module")
def micro(tmp_path_factory: pytest.TempPathFactory) -> RefCut:
    path = tmp_path_factory.mktemp("weights") / "micro.safetensors"
    convert(CHECKPOINT, path)
    return load_network(path)


def test_all_recorded_runs_are_there() -> None:
    assert len(RUNS) == 8


@pytest.mark.parametrize("name", RUNS)
def test_probabilities_and_masks_are_simpleclicks(micro: RefCut, name: str) -> None:
    run = read_run(name)
    predictor = RefCutPredictor(micro, run.settings)
    predictor.set_image(read_picture(run.image_path))
    for number, roi in enumerate(run.rois):
        result = predictor.predict(run.clicks[: number + 1])
        assert result.crop == roi
        difference = np.abs(result.probability_hw[::2, ::2] - run.probabilities_nhw_half[number])
        assert difference.max() < 1e-3
        assert np.count_nonzero(result.mask_hw != run.masks_nhw[number]) <= 3
