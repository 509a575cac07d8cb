"""The network's stages computed by OpenVINO on a processor; what is small or of another size stays with torch."""

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

from model.network.config import NetworkConfig
from model.network.prompts import ReferenceTokens
from model.network.refcut import ImageFeatures, PreparedReference, RefCut, reference_tokens
from model.runtime.openvino_export import STAGES, click_inputs, convert, openvino_package, quantisation_group

FORMAT = 1
"""Part of the name of what is kept; a change of `openvino_model` needs another."""
KEPT_NETWORKS = 12


class OpenVinoStages:
    """A network (`model.runtime.base.NetworkStages`) for images of `size_px`, one at a time, in one thread."""

    def __init__(self, network: RefCut, size_px: int, cache_dir: Path | None) -> None:
        """Converts the network, or takes it from `cache_dir` where it was kept whole.

        Raises ImportError, RuntimeError or OSError.
        """
        self._network = network
        self._size_px = size_px
        if cache_dir is None:
            self._requests = _compiled(network, convert(network, size_px))
            return
        folder = cache_dir / _key(network, size_px)
        if folder.is_dir():
            try:
                self._requests = _compiled(network, _kept(folder))
                with suppress(OSError):
                    os.utime(folder)
                return
            except RuntimeError:
                shutil.rmtree(folder, ignore_errors=True)
        models = convert(network, size_px)
        _keep(models, folder)
        self._requests = _compiled(network, models)

    @property
    def config(self) -> NetworkConfig:
        return self._network.config

    @property
    def device(self) -> torch.device:
        return self._network.device

    def encode_image(self, image: Tensor) -> ImageFeatures:
        if not self._fits(image):
            return self._network.encode_image(image)
        tokens, *others = self._run("image", [image])
        comparison = others.pop(0) if self.config.reference_features == "frozen" else None
        detail = others.pop(0) if self.config.detail_channels else None
        return ImageFeatures(tokens, comparison, detail, self._network.backbone.grid_of(image))

    def encode_reference(
        self, image: Tensor, positive: Tensor | None, negative: Tensor | None
    ) -> ReferenceTokens:
        if not self._fits(image):
            return self._network.encode_reference(image, positive, negative)
        tokens = self.encode_image(image).comparison
        if tokens is None:
            (tokens,) = self._run("reference", [image])
        return reference_tokens(tokens, positive, negative, self._network.backbone.grid_of(image))

    def prepare_reference(self, features: ImageFeatures, reference: ReferenceTokens) -> PreparedReference:
        return self._network.prepare_reference(features, reference)

    def segment(
        self, features: ImageFeatures, coords: Tensor, reference: PreparedReference | None = None
    ) -> Tensor:
        if not self._fits(coords):
            return self._network.segment(features, coords, reference)
        (logits,) = self._run("clicks", click_inputs(self._network, features, coords, reference))
        return logits

    def _fits(self, image: Tensor) -> bool:
        return image.shape == (1, 3, self._size_px, self._size_px)

    def _run(self, stage: str, inputs: list[Tensor]) -> list[Tensor]:
        """Outputs are copies: OpenVINO writes the next ones to the same place."""
        request = self._requests[stage]
        request.infer([np.ascontiguousarray(tensor.detach().numpy()) for tensor in inputs])
        return [torch.from_numpy(np.array(output.data)) for output in request.output_tensors]


def is_kept(network: RefCut, size_px: int, cache_dir: Path) -> bool:
    """Whether a network's converted form lies in `cache_dir`. Raises ImportError where OpenVINO is not installed."""
    return (cache_dir / _key(network, size_px)).is_dir()


def _compiled(network: RefCut, models: dict[str, Any]) -> dict[str, Any]:
    """A request for each stage, ready to be run."""
    core = openvino_package().Core()
    options = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": quantisation_group(network),
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        # Workers on one machine would all be pinned to its first cores.
        "ENABLE_CPU_PINNING": False,
    }
    return {
        name: core.compile_model(model, "CPU", options).create_infer_request()
        for name, model in models.items()
    }


def _kept(folder: Path) -> dict[str, str]:
    """The files of a network's stages. Raises RuntimeError where one is missing."""
    paths = {path.stem: str(path) for path in folder.glob("*.xml")}
    if not {"image", "clicks"} <= set(paths) <= set(STAGES):
        raise RuntimeError(f"{folder} is not whole")
    return paths


def _keep(models: dict[str, Any], folder: Path) -> None:
    """Writes a network beside its place and moves it there; of others only those used last stay."""
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
    """Names what a kept network depends on."""
    digest = hashlib.sha256(
        f"{FORMAT} {size_px} {openvino_package().get_version()} {network.config.to_json()}".encode()
    )
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.contiguous().numpy())
    return digest.hexdigest()[:16]
