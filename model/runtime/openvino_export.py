"""The network's stages as OpenVINO models: each for one image size, with 8-bit weights in large layers.

    stage       computes                                        weights
    image       image to tokens and comparison features         frozen encoder
    reader      comparison features to reader features          reader
    detail      image to border features                        detail branch
    reference   image to a reference's tokens, if "image" does not compute them
    match       image and reference, compared by the reader     reader
    compare     patches, compared with reference and clicks     reader
    clicks      click maps and tokens to logits                 all others

A fine-tuning leaves the encoder as it is, so its version has "image", the largest stage, in common with the model that it
comes from. `stage_keys` says which stages of two networks are equal.

Weights have one scale per output channel. Activations are rounded to 8 bits when they are computed, in groups of input
channels with one scale each ("dynamic quantisation"), so nothing has to be calibrated. Attention, norms, neck and head,
and layers whose width is no multiple of the group, are not rounded to 8 bits; `model.runtime.openvino` chooses bfloat16
or float32 for them.
"""

from __future__ import annotations

import hashlib
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from model.network.config import NetworkConfig
from model.network.features import ImageFeatures, PreparedReference
from model.network.prompts import ReferenceTokens
from model.network.refcut import BASE_PREFIXES, RefCut
from model.runtime.stage_inputs import click_inputs, compare_inputs, match_inputs, reader_inputs

MIN_WEIGHTS = 10_000
"""Layers with fewer weights are not rounded: they take no time."""
GROUPS = (256, 128, 64, 32)

STAGES = ("image", "reader", "detail", "reference", "match", "compare", "clicks")
FORMAT = 9
"""Part of all `stage_keys`. To be increased when this module changes what it makes."""
READER_PREFIX = "reader."
DETAIL_PREFIX = "detail."


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
    """Image to tokens, and the comparison features if the network has them."""

    def __init__(self, network: RefCut) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        features = self.network.encode_image(image)
        return (features.tokens,) if features.comparison is None else (features.tokens, features.comparison)


class _Reader(nn.Module):
    """Comparison features to what the reader matches."""

    def __init__(self, network: RefCut, grid: tuple[int, int]) -> None:
        super().__init__()
        self.network = network
        self.grid = grid

    def forward(self, comparison: Tensor) -> Tensor:
        return self.network.reader.encode(comparison, self.grid)


class _Detail(nn.Module):
    """Image to border features."""

    def __init__(self, network: RefCut) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        detail = self.network.encode_detail(image)
        assert detail is not None
        return detail


class _Reference(nn.Module):
    """Image to the tokens of a reference."""

    def __init__(self, network: RefCut) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        return self.network.encode_reference(image, None, None).tokens


class _Match(nn.Module):
    """Features of an image and a condensed reference (`match_inputs`) to what `RefCut.match` returns."""

    def __init__(self, network: RefCut) -> None:
        super().__init__()
        self.network = network

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        return self.network.match(*inputs)


class _Compare(nn.Module):
    """The inputs of a comparison (`compare_inputs`) to what `RefCut.compare` returns."""

    def __init__(self, network: RefCut, grid: tuple[int, int]) -> None:
        super().__init__()
        self.network = network
        self.grid = grid

    def forward(self, coords: Tensor, comparison: Tensor, channels: Tensor, *others: Tensor) -> Tensor:
        reader, matched, present = others or (None, None, None)
        features = ImageFeatures(comparison, comparison, None, self.grid, reader)
        compared = self.network.compare(
            features, coords, PreparedReference(comparison, channels, matched, present)
        )
        assert compared is not None
        return compared


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
        channels = rest.pop(0) if self.network.config.similarity else None
        detail = rest.pop(0) if self.network.config.detail_channels else None
        features = ImageFeatures(tokens, None, detail, self.grid)
        found = self.network.segment_compared(features, coords, prompt, channels)
        return found.logits if found.quality is None else (found.logits, found.quality)


def stages_of(config: NetworkConfig) -> tuple[str, ...]:
    """The stages that a network has, in the order of `STAGES`.

    "reference" is missing if "image" already computes a reference's tokens.
    """
    lacking = {
        "reader": config.reader is None,
        "detail": not config.detail_channels,
        "reference": config.reference_features == "frozen",
        "match": config.reader is None,
        "compare": not config.similarity,
    }
    return tuple(stage for stage in STAGES if not lacking.get(stage))


def stage_keys(network: RefCut, size_px: int) -> dict[str, str]:
    """Name of each converted stage: a hash of everything that it depends on. Equal names mean equal models.

    Args:
        network: A network on the CPU.
        size_px: Side of the square input.

    Returns:
        Stage to name, in the order of `stages_of`.

    Raises:
        ImportError: If OpenVINO is not installed.
    """
    version, config = openvino_package().get_version(), network.config.to_json()
    begin = f"{FORMAT} {type(network).__name__} {size_px} {version} {config}".encode()
    digests = {stage: hashlib.sha256(begin) for stage in stages_of(network.config)}
    for name, tensor in sorted(network.state_dict().items()):
        content = tensor.contiguous().numpy()
        for stage, digest in digests.items():
            if _has_weight(stage, name, network.config):
                digest.update(name.encode())
                digest.update(content)
    return {stage: f"{stage}-{digest.hexdigest()[:16]}" for stage, digest in digests.items()}


def _has_weight(stage: str, name: str, config: NetworkConfig) -> bool:
    """Whether a stage may depend on a tensor of the network."""
    of_base, of_reader = name.startswith(BASE_PREFIXES), name.startswith(READER_PREFIX)
    if stage == "detail":
        return name.startswith(DETAIL_PREFIX)
    if stage in ("reader", "match", "compare"):
        return of_reader
    if config.reference_features != "frozen":
        return not name.startswith(DETAIL_PREFIX)
    if stage == "image":
        return of_base
    # Block 0 adds the encoder's position embedding.
    return not (of_reader or name.startswith(DETAIL_PREFIX) or (of_base and config.fusion_block))


def convert(network: RefCut, size_px: int, stages: Sequence[str] | None = None) -> dict[str, Any]:
    """Convert a network.

    Args:
        network: A network on the CPU, in evaluation mode.
        size_px: Side of the square input.
        stages: Those of its stages (`stages_of`) to convert; None converts all of them.

    Returns:
        An OpenVINO model for each stage.
    """
    image = torch.zeros(1, 3, size_px, size_px)
    with torch.no_grad():
        features = network.encode_image(image)
        coords = torch.zeros(1, network.config.click_map_channels, size_px, size_px)
        channels = network.compare(features, coords, None)

    def reference_inputs() -> list[Tensor]:
        assert features.comparison is not None
        blank = torch.zeros(1, features.comparison.shape[1])
        reference = ReferenceTokens(features.comparison, blank, blank, features.reader)
        condensed = network.condense_reference(reference, blank.shape[1])
        # Several references have patches that the reader does not compare.
        evidence = replace(
            condensed.evidence,
            tokens=features.comparison,
            inside=torch.cat([condensed.evidence.inside] * 2, dim=2),
        )
        return match_inputs(features, replace(condensed, evidence=evidence))

    modules: dict[str, Callable[[], tuple[nn.Module, list[Tensor]]]] = {
        "image": lambda: (_Image(network), [image]),
        "reader": lambda: (_Reader(network, features.grid), reader_inputs(features)),
        "detail": lambda: (_Detail(network), [image]),
        "reference": lambda: (_Reference(network), [image]),
        "match": lambda: (_Match(network), reference_inputs()),
        "compare": lambda: (
            _Compare(network, features.grid),
            compare_inputs(network, features, coords, None),
        ),
        "clicks": lambda: (
            _Clicks(network, features.grid),
            click_inputs(network, features, coords, None, channels),
        ),
    }
    group = quantisation_group(network)
    models = {
        stage: _converted(*modules[stage](), group)
        for stage in stages_of(network.config)
        if stages is None or stage in stages
    }
    if "match" in models:
        _allow_any_evidence(models["match"])
    return models


def _converted(module: nn.Module, inputs: Sequence[Tensor], group: int) -> Any:
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
    _use_8_bit_weights(model, group)
    return model


def _allow_any_evidence(model: Any) -> None:
    """Lets "match" take any number of evidence patches, up to the number that it was converted with."""
    openvino = openvino_package()
    numbers, tokens, inside = model.inputs[-3:]
    _, count, dim = tokens.shape
    shapes = {one: one.get_partial_shape() for one in model.inputs[:-3]}
    shapes |= {
        numbers: openvino.PartialShape([1, openvino.Dimension(1, count)]),
        tokens: openvino.PartialShape([1, openvino.Dimension(0, count), dim]),
        inside: openvino.PartialShape([1, 2, openvino.Dimension(1, 2 * count)]),
    }
    model.reshape(shapes)


def _use_8_bit_weights(model: Any, group: int) -> None:
    """Replaces the weights of large layers by 8-bit integers and one scale per output channel.

    Layers whose width is no multiple of `group` stay as they are: OpenVINO would not round their activations, and would
    turn their weights back into floats in every run.
    """
    operations = openvino_package().opset13
    for node in model.get_ordered_ops():
        if node.get_type_name() != "MatMul" or not node.get_attributes()["transpose_b"]:
            continue
        constant = node.input_value(1).get_node()
        if constant.get_type_name() != "Constant":
            continue
        weights = constant.get_data()
        if weights.ndim != 2 or weights.size < MIN_WEIGHTS or weights.shape[1] % group:
            continue
        scale = np.maximum(np.abs(weights).max(axis=1, keepdims=True) / 127, 1e-12).astype(np.float32)
        rounded = operations.constant(np.round(weights / scale).astype(np.int8))
        restored = operations.multiply(operations.convert(rounded, np.float32), operations.constant(scale))
        node.input(1).replace_source_output(restored.output(0))
