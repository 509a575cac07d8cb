"""What the predictor asks of a network, whoever computes it."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from model.network.config import NetworkConfig
from model.network.prompts import ReferenceTokens
from model.network.refcut import ImageFeatures, PreparedReference


class NetworkStages(Protocol):
    """The four stages of `model.network.refcut`, with the same shapes."""

    @property
    def config(self) -> NetworkConfig: ...

    @property
    def device(self) -> torch.device:
        """Where tensors are taken from and given back."""

    def encode_image(self, image: Tensor) -> ImageFeatures: ...

    def encode_reference(
        self, image: Tensor, positive: Tensor | None, negative: Tensor | None
    ) -> ReferenceTokens: ...

    def prepare_reference(self, features: ImageFeatures, reference: ReferenceTokens) -> PreparedReference: ...

    def segment(
        self, features: ImageFeatures, coords: Tensor, reference: PreparedReference | None = None
    ) -> Tensor: ...
