"""What is kept of an image's crops: no more than its limits, and nothing that belongs to another reference."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest
import torch

from model import crop_features
from model.crop_features import CACHED_CROPS, CropFeatures
from model.network.features import ImageFeatures, PreparedReference
from model.network.prompts import ReferenceTokens
from model.predictor_config import PredictorSettings
from model.runtime.base import NetworkStages
from model.types import Box

IMAGE = np.zeros((40, 40, 3), np.uint8)
CROPS = [Box(0, 20 + number, 0, 20) for number in range(CACHED_CROPS + 1)]


class CountingStages:
    """Stages that only count what they are asked for."""

    device = torch.device("cpu")

    def __init__(self) -> None:
        self.encoded = 0
        self.prepared: list[float] = []
        self.read = 0

    def encode_image(self, image: torch.Tensor) -> ImageFeatures:
        self.encoded += 1
        return ImageFeatures(torch.zeros(len(image), 4, 2), None, None, (2, 2))

    def prepare_reference(self, _features: Any, reference: ReferenceTokens) -> PreparedReference:
        self.prepared.append(float(reference.tokens.mean()))
        return PreparedReference(reference.tokens[:, 0], None)

    def read_reference(self, _features: Any, _reference: PreparedReference) -> torch.Tensor:
        """A patch of four, another one each time."""
        self.read += 1
        return torch.eye(4)[self.read - 1].reshape(1, 2, 2)


@pytest.fixture
def stages() -> CountingStages:
    return CountingStages()


@pytest.fixture
def kept(stages: CountingStages) -> CropFeatures:
    return CropFeatures(cast("NetworkStages", stages), PredictorSettings(network_px=28))


def reference(value: float) -> ReferenceTokens:
    return ReferenceTokens(torch.full((1, 4, 2), value), torch.ones(1, 4), torch.zeros(1, 4))


def test_the_crop_that_was_not_used_for_longest_is_encoded_again(
    stages: CountingStages, kept: CropFeatures
) -> None:
    for crop in CROPS[:CACHED_CROPS]:
        kept.encoded(IMAGE, crop)
    kept.encoded(IMAGE, CROPS[0])
    kept.encoded(IMAGE, CROPS[CACHED_CROPS])
    assert stages.encoded == CACHED_CROPS + 1
    kept.encoded(IMAGE, CROPS[0])
    assert stages.encoded == CACHED_CROPS + 1
    kept.encoded(IMAGE, CROPS[1])
    assert stages.encoded == CACHED_CROPS + 2


def test_references_are_told_apart_by_their_sources_and_by_the_crop(
    stages: CountingStages, kept: CropFeatures
) -> None:
    one, other = reference(1.0), reference(2.0)
    features = kept.encoded(IMAGE, CROPS[0])
    for given in (one, other, ReferenceTokens.join([one]), ReferenceTokens.join([one, other]), other):
        prepared = kept.prepared(CROPS[0], features, given)
        assert prepared is not None
        assert prepared.prompt[0, 0] == given.tokens[0, 0, 0]
    assert stages.prepared == [1.0, 2.0, 1.5]
    kept.prepared(CROPS[1], kept.encoded(IMAGE, CROPS[1]), one)
    assert stages.prepared == [1.0, 2.0, 1.5, 1.0]
    assert kept.prepared(CROPS[0], features, None) is None


def test_prepared_references_have_a_limit_and_can_be_dropped_alone(
    stages: CountingStages, kept: CropFeatures, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crop_features, "CACHED_REFERENCES", 2)
    references = [reference(float(number)) for number in range(3)]
    features = kept.encoded(IMAGE, CROPS[0])
    for number in (0, 1, 2, 2, 1, 0):
        kept.prepared(CROPS[0], features, references[number])
    assert stages.prepared == [0.0, 1.0, 2.0, 0.0]
    kept.forget_references()
    kept.prepared(CROPS[0], features, references[0])
    assert stages.prepared == [0.0, 1.0, 2.0, 0.0, 0.0]
    kept.encoded(IMAGE, CROPS[0])
    assert stages.encoded == 1
    assert kept.nbytes > 0
    kept.forget()
    assert kept.nbytes == 0


def test_where_a_label_is_expected_is_read_once_per_image_and_reference(stages: CountingStages) -> None:
    settings = PredictorSettings(network_px=28, expected_crops=True, zoom_min_px=1)
    kept = CropFeatures(cast("NetworkStages", stages), settings)
    whole = CROPS[0]

    def expected(given: ReferenceTokens | None) -> tuple[Box, ...]:
        features = kept.encoded(IMAGE, whole)
        return kept.expected((40, 40), features, kept.prepared(whole, features, given), given)

    one, other = reference(1.0), reference(2.0)
    assert expected(None) == ()
    first = expected(one)
    assert len(first) == 1
    assert expected(ReferenceTokens.join([one])) == first
    assert expected(other) != first
    assert stages.read == 2
    kept.forget()
    assert expected(one) != first
    assert stages.read == 3
