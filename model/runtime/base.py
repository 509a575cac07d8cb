"""What a runtime computes: the network's stages as a protocol, the same for torch and OpenVINO."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from model.network.candidates import Segmentation
from model.network.config import NetworkConfig
from model.network.features import ImageFeatures, PreparedReference
from model.network.prompts import ReferenceTokens


class NetworkStages(Protocol):
    """The stages of `model.network.refcut` that a predictor calls, with the same shapes.

    `RefCut` itself is one implementation, `model.runtime.openvino.OpenVinoStages` the other.
    """

    @property
    def config(self) -> NetworkConfig:
        """Shape of the network."""

    @property
    def device(self) -> torch.device:
        """Device of the tensors that the stages take and return."""

    def encode_image(self, image: Tensor) -> ImageFeatures:
        """Compute everything that clicks on an image share; as `RefCut.encode_image`."""

    def encode_reference(
        self, image: Tensor, positive: Tensor | None, negative: Tensor | None
    ) -> ReferenceTokens:
        """Encode another image with its masks; as `RefCut.encode_reference`."""

    def prepare_reference(self, features: ImageFeatures, reference: ReferenceTokens) -> PreparedReference:
        """Apply a reference to an image; as `RefCut.prepare_reference`."""

    def read_reference(self, features: ImageFeatures, reference: PreparedReference) -> Tensor | None:
        """Find where an image has a reference's label, without a click; as `RefCut.read_reference`."""

    def segment(
        self, features: ImageFeatures, coords: Tensor, reference: PreparedReference | None = None
    ) -> Segmentation:
        """Compute the masks for a set of clicks; as `RefCut.segment`."""
