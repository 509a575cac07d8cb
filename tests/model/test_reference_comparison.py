"""An image beside a reference: cosines to the patches inside its mask, on the image's grid of patches."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from model.network.features import ImageFeatures, PreparedReference
from model.network.prompts import ReferenceTokens
from model.network.similarity import REFERENCE_CHANNELS
from model.reference_comparison import ReferenceComparison

GRID = (1, 2)
PREPARED = PreparedReference(torch.zeros(1, 4), torch.arange(2.0 * 15).reshape(1, 2, 15))


def features_of(*patches: tuple[float, float]) -> ImageFeatures:
    comparison = torch.tensor([patches])
    return ImageFeatures(comparison, comparison, None, GRID)


def reference_of(positive: tuple[float, ...]) -> ReferenceTokens:
    tokens = torch.tensor([[(2.0, 0.0), (0.0, 3.0), (1.0, 1.0)]])
    return ReferenceTokens(tokens, torch.tensor([positive]), torch.zeros(1, 3))


def test_every_patch_is_compared_with_those_that_the_mask_mostly_covers():
    found = ReferenceComparison.of(features_of((5, 0), (1, 1)), PREPARED, reference_of((0.8, 0.1, 0.6)))
    assert found is not None
    assert found.cosines.shape == (*GRID, 2)
    half = np.sqrt(0.5)
    assert found.cosines[0] == pytest.approx(np.array([[1, half], [half, 1]]), abs=1e-6)


def test_the_channels_are_those_of_frozen_features_alone():
    found = ReferenceComparison.of(features_of((5, 0), (1, 1)), PREPARED, reference_of((1, 0, 0)))
    assert found is not None
    assert found.channels.shape == (*GRID, REFERENCE_CHANNELS)
    assert found.channels[0, 1, 0] == 15


def test_a_reference_that_only_says_what_does_not_belong_has_no_patch_to_compare_with():
    found = ReferenceComparison.of(features_of((5, 0), (1, 1)), PREPARED, reference_of((0, 0, 0)))
    assert found is not None
    assert found.cosines.shape == (*GRID, 0)


def test_without_a_reference_there_is_nothing_to_compare():
    assert ReferenceComparison.of(features_of((5, 0), (1, 1)), None, None) is None
