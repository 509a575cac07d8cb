"""What each stage of a converted network (`model.runtime.openvino_export`) is given, in the order that it takes it."""

from __future__ import annotations

import torch
from torch import Tensor

from model.network.features import CondensedReference, ImageFeatures, PreparedReference
from model.network.refcut import RefCut


def reader_inputs(features: ImageFeatures) -> list[Tensor]:
    """Inputs of the stage "reader": the comparison features of an image or crop."""
    assert features.comparison is not None
    return [features.comparison]


def match_inputs(features: ImageFeatures, reference: CondensedReference) -> list[Tensor]:
    """Inputs of the stage "match".

    Args:
        features: The image or crop.
        reference: What it is compared with. It may have any number of evidence patches up to that of the image's patches.

    Returns:
        Features of the image for the reader and for comparison, then those of the reference.
    """
    assert features.reader is not None
    assert features.comparison is not None
    return [features.reader, features.comparison, *reference.match_inputs]


def compare_inputs(
    network: RefCut, features: ImageFeatures, coords: Tensor, reference: PreparedReference | None
) -> list[Tensor]:
    """Inputs of the stage "compare", of a network with similarity.

    Args:
        network: The network.
        features: The image or crop.
        coords: (1, `click_map_channels`, H, W), as for `RefCut.segment`.
        reference: The reference applied to this image. Without one, its channels are zero, which is equivalent.

    Returns:
        Coords, comparison features and channels; with a reader also its features, what it has matched, and whether there
        was anything to match.
    """
    rows, cols = features.grid
    assert features.comparison is not None
    channels = None if reference is None else reference.channels
    if channels is None:
        channels = torch.zeros(1, rows * cols, network.similarity_channels)
    inputs = [coords, features.comparison, channels]
    if network.config.reader is None:
        return inputs
    assert features.reader is not None
    if reference is None or reference.matched is None or reference.present is None:
        none = torch.zeros(1, rows * cols, network.config.reader.match_channels), torch.zeros(1)
        return [*inputs, features.reader, *none]
    return [*inputs, features.reader, reference.matched, reference.present]


def click_inputs(
    network: RefCut,
    features: ImageFeatures,
    coords: Tensor,
    reference: PreparedReference | None,
    channels: Tensor | None,
) -> list[Tensor]:
    """Inputs of the stage "clicks".

    Args:
        network: The network.
        features: The image or crop.
        coords: (1, `click_map_channels`, H, W), as for `RefCut.segment`.
        reference: The reference applied to this image. Without one, its prompt is zero, which is equivalent.
        channels: What "compare" returned; None for a network without similarity.

    Returns:
        Tokens, coords and prompt; then channels and border features, if the network has them.
    """
    prompt = torch.zeros(1, network.config.embed_dim) if reference is None else reference.prompt
    others = [tensor for tensor in (channels, features.detail) if tensor is not None]
    return [features.tokens, coords, prompt, *others]
