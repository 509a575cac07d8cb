"""The network's stages as OpenVINO models: each for one image size, with 8-bit weights in large layers.

Weights have one scale per output channel. Activations are rounded to 8 bits when they are computed, in groups of input
channels with one scale each ("dynamic quantisation"), so nothing has to be calibrated. Attention, norms, neck and head
are not rounded to 8 bits; `model.runtime.openvino` chooses bfloat16 or float32 for them.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from model.network.prompts import ReferenceTokens
from model.network.refcut import ImageFeatures, PreparedReference, RefCut

MIN_WEIGHTS = 10_000
"""Layers with fewer weights stay in float32: they take no time."""
GROUPS = (256, 128, 64, 32)

STAGES = ("image", "reference", "match", "clicks")


def openvino_package() -> Any:
    """Import OpenVINO without its telemetry.

    OpenVINO reports every import to Google Analytics unless its telemetry package is missing, so this import hides it.

    Raises:
        ImportError: If OpenVINO is not installed.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino


def quantisation_group(network: RefCut) -> int:
    """Number of input channels that share a scale.

    About a third of the width (measured: larger groups are less exact, smaller ones slower), and a divisor of it, because
    otherwise OpenVINO computes in float32.
    """
    dim = network.config.embed_dim
    return next((size for size in GROUPS if dim % size == 0 and 3 * size <= dim), GROUPS[-1])


class _Image(nn.Module):
    """Image to tokens, and the comparison, detail and reader features if the network has them."""

    def __init__(self, network: RefCut) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        features = self.network.encode_image(image)
        found = (features.tokens, features.comparison, features.detail, features.reader)
        return tuple(tensor for tensor in found if tensor is not None)


class _Reference(nn.Module):
    """Image to the tokens of a reference."""

    def __init__(self, network: RefCut) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        return self.network.encode_reference(image, None, None).tokens


class _Match(nn.Module):
    """What `RefCut.match_inputs` returns to what `RefCut.match` returns."""

    def __init__(self, network: RefCut) -> None:
        super().__init__()
        self.network = network

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        return self.network.match(*inputs)


class _Clicks(nn.Module):
    """The inputs of a click (`click_inputs`) to logits, and to their quality if there are several candidates."""

    def __init__(self, network: RefCut, grid: tuple[int, int]) -> None:
        super().__init__()
        self.network = network
        self.grid = grid

    def forward(
        self, tokens: Tensor, coords: Tensor, prompt: Tensor, *others: Tensor
    ) -> Tensor | tuple[Tensor, Tensor]:
        rest = list(others)
        comparison = rest.pop(0) if self.network.config.similarity else None
        channels = rest.pop(0) if self.network.config.similarity else None
        detail = rest.pop(0) if self.network.config.detail_channels else None
        reader, matched, present = rest if self.network.config.reader is not None else (None, None, None)
        features = ImageFeatures(tokens, comparison, detail, self.grid, reader)
        reference = PreparedReference(prompt, channels, matched, present)
        found = self.network.segment(features, coords, reference)
        return found.logits if found.quality is None else (found.logits, found.quality)


def click_inputs(
    network: RefCut, features: ImageFeatures, coords: Tensor, reference: PreparedReference | None
) -> list[Tensor]:
    """Inputs of the stage "clicks".

    Args:
        network: The network.
        features: The image or crop.
        coords: (1, `click_map_channels`, H, W), as for `RefCut.segment`.
        reference: The reference applied to this image. Without one, its prompt and channels are zero, which is
            equivalent.

    Returns:
        Tokens, coords and prompt; then, if the network has them, comparison features, channels, border features, and the
        reader's features, what it has matched, and whether there was anything to match.
    """
    config = network.config
    rows, cols = features.grid
    prompt = torch.zeros(1, config.embed_dim) if reference is None else reference.prompt
    inputs = [features.tokens, coords, prompt]
    if config.similarity:
        assert features.comparison is not None
        channels = None if reference is None else reference.channels
        if channels is None:
            channels = torch.zeros(1, rows * cols, network.similarity_channels)
        inputs += [features.comparison, channels]
    if config.detail_channels:
        assert features.detail is not None
        inputs.append(features.detail)
    if config.reader is not None:
        assert features.reader is not None
        inputs.append(features.reader)
        if reference is None or reference.matched is None or reference.present is None:
            inputs += [torch.zeros(1, rows * cols, config.reader.match_channels), torch.zeros(1)]
        else:
            inputs += [reference.matched, reference.present]
    return inputs


def convert(network: RefCut, size_px: int) -> dict[str, Any]:
    """Convert a network.

    Args:
        network: A network on the CPU, in evaluation mode.
        size_px: Side of the square input.

    Returns:
        An OpenVINO model for each of `STAGES`. "reference" is missing if "image" already computes a reference's tokens,
        "match" without a reader.
    """
    image = torch.zeros(1, 3, size_px, size_px)
    with torch.no_grad():
        features = network.encode_image(image)
    coords = torch.zeros(1, network.config.click_map_channels, size_px, size_px)
    clicks = click_inputs(network, features, coords, None)
    models = {
        "image": _converted(_Image(network), [image]),
        "clicks": _converted(_Clicks(network, features.grid), clicks),
    }
    if network.config.reader is not None:
        assert features.comparison is not None
        blank = torch.zeros(1, features.comparison.shape[1])
        reference = ReferenceTokens(features.comparison, blank, blank, features.reader)
        models["match"] = _converted(_Match(network), network.match_inputs(features, reference)[0])
    if network.config.reference_features != "frozen":
        models["reference"] = _converted(_Reference(network), [image])
    return models


def _converted(module: nn.Module, inputs: Sequence[Tensor]) -> Any:
    openvino = openvino_package()
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    with warnings.catch_warnings(), torch.no_grad():
        # Tracing warns about every size that becomes fixed; here all sizes are fixed on purpose.
        warnings.simplefilter("ignore")
        # torch would trace a second time and run both traces only to compare them.
        traced = TorchScriptPythonDecoder(
            module.eval(), example_input=tuple(inputs), trace_kwargs={"check_trace": False}
        )
        model = openvino.convert_model(
            traced, example_input=tuple(inputs), input=[tuple(tensor.shape) for tensor in inputs]
        )
    _use_8_bit_weights(model)
    return model


def _use_8_bit_weights(model: Any) -> None:
    """Replaces the weights of large layers by 8-bit integers and one scale per output channel."""
    operations = openvino_package().opset13
    for node in model.get_ordered_ops():
        if node.get_type_name() != "MatMul" or not node.get_attributes()["transpose_b"]:
            continue
        constant = node.input_value(1).get_node()
        if constant.get_type_name() != "Constant":
            continue
        weights = constant.get_data()
        if weights.ndim != 2 or weights.size < MIN_WEIGHTS:
            continue
        scale = np.maximum(np.abs(weights).max(axis=1, keepdims=True) / 127, 1e-12).astype(np.float32)
        rounded = operations.constant(np.round(weights / scale).astype(np.int8))
        restored = operations.multiply(operations.convert(rounded, np.float32), operations.constant(scale))
        node.input(1).replace_source_output(restored.output(0))
