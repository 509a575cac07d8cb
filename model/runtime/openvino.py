"""The network's stages computed by OpenVINO on a CPU.

What depends on a reference alone, and inputs of another size than the converted one, stay with torch.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from model.network.candidates import Segmentation
from model.network.config import NetworkConfig
from model.network.prompts import ReferenceTokens, reference_tokens
from model.network.refcut import ImageFeatures, PreparedReference, RefCut
from model.runtime.openvino_export import STAGES, click_inputs, convert, openvino_package, quantisation_group

FORMAT = 3
"""Part of the name of a cached network. To be increased when `openvino_export` changes what it makes."""
KEPT_NETWORKS = 12
BFLOAT16_STAGES = frozenset({"image", "reference", "clicks"})
"""Stages computed in bfloat16 where the processor has it. "match" compares cosines that differ by less than it can tell
apart, and would not be faster."""


class OpenVinoStages:
    """A network (`model.runtime.base.NetworkStages`) for images of one size, one at a time, in one thread.

    Args:
        network: The network, on the CPU and in evaluation mode.
        size_px: Side of the square input.
        cache_dir: Folder of converted networks. The network is taken from it, or converted and stored there. None
            converts at every start.
        threads: Number of processor threads; None takes torch's.
        bfloat16: Whether `BFLOAT16_STAGES` are computed in bfloat16 if the processor has it. 8-bit layers stay as they
            are. False computes what is not rounded to 8 bits in float32.

    Raises:
        ImportError: If OpenVINO is not installed.
        RuntimeError: If the network cannot be converted or compiled.
        OSError: If the cache folder cannot be written.
    """

    def __init__(
        self,
        network: RefCut,
        size_px: int,
        cache_dir: Path | None,
        threads: int | None = None,
        *,
        bfloat16: bool = True,
    ) -> None:
        self._network = network
        self._size_px = size_px

        def compiled(models: dict[str, Any]) -> dict[str, Any]:
            return _compiled(network, models, threads or torch.get_num_threads(), bfloat16=bfloat16)

        if cache_dir is None:
            self._requests = compiled(convert(network, size_px))
            return
        folder = cache_dir / _key(network, size_px)
        if folder.is_dir():
            try:
                self._requests = compiled(_stored_files(folder))
                with suppress(OSError):
                    os.utime(folder)
                return
            except RuntimeError:
                shutil.rmtree(folder, ignore_errors=True)
        models = convert(network, size_px)
        _store(models, folder)
        self._requests = compiled(models)

    @property
    def config(self) -> NetworkConfig:
        """Shape of the network."""
        return self._network.config

    @property
    def device(self) -> torch.device:
        """Device of the network: always a CPU."""
        return self._network.device

    def encode_image(self, image: Tensor) -> ImageFeatures:
        """As `RefCut.encode_image`. Images of another size than `size_px` are computed by torch."""
        if not self._fits(image):
            return self._network.encode_image(image)
        tokens, *others = self._run("image", [image])
        comparison = others.pop(0) if self.config.reference_features == "frozen" else None
        detail = others.pop(0) if self.config.detail_channels else None
        reader = others.pop(0) if self.config.reader is not None else None
        return ImageFeatures(tokens, comparison, detail, self._network.backbone.grid_of(image), reader)

    def encode_reference(
        self, image: Tensor, positive: Tensor | None, negative: Tensor | None
    ) -> ReferenceTokens:
        """As `RefCut.encode_reference`. Images of another size than `size_px` are computed by torch."""
        if not self._fits(image):
            return self._network.encode_reference(image, positive, negative)
        features = self.encode_image(image)
        tokens = features.comparison
        if tokens is None:
            (tokens,) = self._run("reference", [image])
        return reference_tokens(tokens, positive, negative, features.grid, features.reader)

    def prepare_reference(self, features: ImageFeatures, reference: ReferenceTokens) -> PreparedReference:
        """As `RefCut.prepare_reference`. Torch computes what depends on the reference alone, and learned similarity."""
        if self.config.reader is None or self.config.learned_similarity_dim:
            return self._network.prepare_reference(features, reference)
        inputs, present = self._network.match_inputs(features, reference)
        side = self._size_px // self.config.patch_px
        if any(tensor.shape[:2] != (1, side * side) for tensor in inputs[:5]):
            return self._network.prepare_reference(features, reference)
        channels, matched = self._run("match", list(inputs))
        return PreparedReference(self._network.rpg(reference), channels, matched, present)

    def segment(
        self, features: ImageFeatures, coords: Tensor, reference: PreparedReference | None = None
    ) -> Segmentation:
        """As `RefCut.segment`. Images of another size than `size_px`, and batches, are computed by torch."""
        if not self._fits(coords, self.config.click_map_channels):
            return self._network.segment(features, coords, reference)
        logits, *quality = self._run("clicks", click_inputs(self._network, features, coords, reference))
        return Segmentation(logits, *quality)

    def _fits(self, maps: Tensor, channels: int = 3) -> bool:
        return maps.shape == (1, channels, self._size_px, self._size_px)

    def _run(self, stage: str, inputs: list[Tensor]) -> list[Tensor]:
        """Runs a stage. Outputs are copies, because OpenVINO writes the next outputs to the same memory."""
        request = self._requests[stage]
        request.infer([np.ascontiguousarray(tensor.detach().numpy()) for tensor in inputs])
        return [torch.from_numpy(np.array(output.data)) for output in request.output_tensors]


def is_cached(network: RefCut, size_px: int, cache_dir: Path) -> bool:
    """Whether the converted form of a network is in the cache folder.

    Raises:
        ImportError: If OpenVINO is not installed.
    """
    return (cache_dir / _key(network, size_px)).is_dir()


def _compiled(network: RefCut, models: dict[str, Any], threads: int, *, bfloat16: bool) -> dict[str, Any]:
    """An inference request per stage."""
    core = openvino_package().Core()
    has_bfloat16 = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    options = {
        "PERFORMANCE_HINT": "LATENCY",
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": quantisation_group(network),
        "INFERENCE_NUM_THREADS": threads,
        # With pinning, all workers of one machine would use its first cores.
        "ENABLE_CPU_PINNING": False,
    }

    def request(stage: str, model: Any) -> Any:
        short = bfloat16 and has_bfloat16 and stage in BFLOAT16_STAGES
        precision = {"INFERENCE_PRECISION_HINT": "bf16" if short else "f32"}
        return core.compile_model(model, "CPU", options | precision).create_infer_request()

    return {stage: request(stage, model) for stage, model in models.items()}


def _stored_files(folder: Path) -> dict[str, str]:
    """The model file of each stage, by name. Raises RuntimeError if one is missing."""
    paths = {path.stem: str(path) for path in folder.glob("*.xml")}
    if not {"image", "clicks"} <= set(paths) <= set(STAGES):
        raise RuntimeError(f"{folder} is incomplete")
    return paths


def _store(models: dict[str, Any], folder: Path) -> None:
    """Writes a converted network into a temporary folder, renames it, and removes the least recently used networks."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix="partial-"))
    for name, model in models.items():
        openvino_package().save_model(model, str(temporary / f"{name}.xml"), compress_to_fp16=False)
    try:
        os.replace(temporary, folder)
    except OSError:
        shutil.rmtree(temporary)
        if not folder.is_dir():
            raise
    newest = sorted(folder.parent.iterdir(), key=lambda path: path.stat().st_mtime, reverse=True)
    for old in newest[KEPT_NETWORKS:]:
        shutil.rmtree(old, ignore_errors=True)


def _key(network: RefCut, size_px: int) -> str:
    """Name of a converted network in the cache: a hash of everything that it depends on."""
    digest = hashlib.sha256(
        f"{FORMAT} {size_px} {openvino_package().get_version()} {network.config.to_json()}".encode()
    )
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.contiguous().numpy())
    return digest.hexdigest()[:16]
