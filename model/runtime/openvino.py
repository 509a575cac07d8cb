"""The network's stages computed by OpenVINO on a CPU.

What depends on a reference alone, and inputs of another size than the converted one, stay with torch.

Versions of a model share the stages whose weights are equal (`openvino_export.stage_keys`). On disk each stage has its
own folder. In memory a process compiles each stage once, and every network has its own requests. So a further version
costs what its training changed.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
import torch
from torch import Tensor

from model.network.candidates import Segmentation
from model.network.click_maps import no_clicks
from model.network.config import NetworkConfig
from model.network.features import CondensedReference, ImageFeatures, PreparedReference
from model.network.prompts import ReferenceTokens, reference_tokens
from model.network.refcut import BASE_PREFIXES, RefCut
from model.runtime.openvino_export import (
    convert,
    openvino_package,
    quantisation_group,
    stage_keys,
    stages_of,
)
from model.runtime.stage_inputs import click_inputs, compare_inputs, match_inputs

MODEL_FILE = "model.xml"
KEPT_BYTES = 4 * 2**30
"""Size of the cache folder, above which the stages that were used least recently are removed. A version's own stages take
26 MB, so about 150 versions fit."""
BFLOAT16_STAGES = frozenset({"image", "reader", "detail", "reference", "compare", "clicks"})
"""Stages computed in bfloat16 where the processor has it. "match" compares cosines that differ by less than it can tell
apart; it would save 2 ms, and change .03 % of the pixels."""
USED_WITH_TORCH = (*BASE_PREFIXES, "reader.", "rpg.", "likeness.")
"""Weights of a network that torch computes with beside OpenVINO."""

KEPT_REFERENCES = 16
"""Condensed references that a network keeps. A label has one, or two with close-ups; one takes at most 5 MB."""
EVIDENCE_STEP = 64
"""Numbers of evidence patches are multiples of this, because OpenVINO prepares itself for each number anew."""

_compiled: WeakValueDictionary[tuple[object, ...], Any] = WeakValueDictionary()
"""The compiled stages of this process, as long as a network uses them."""
_compile_lock = threading.Lock()


class OpenVinoStages:
    """A network (`model.runtime.base.NetworkStages`) for images of one size, one at a time, in one thread.

    Args:
        network: The network, on the CPU and in evaluation mode.
        size_px: Side of the square input.
        cache_dir: Folder of converted stages. They are taken from it, or converted and stored there. None converts at
            every start.
        threads: Number of processor threads; None takes torch's.
        bfloat16: Whether `BFLOAT16_STAGES` are computed in bfloat16 if the processor has it. 8-bit layers stay as they
            are. False computes what is not rounded to 8 bits in float32.
        reload: Loads the network again. If it is given, weights of `network` that only OpenVINO computes with are removed
            from memory, and loaded again for an image of another size. None keeps them.

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
        reload: Callable[[], RefCut] | None = None,
    ) -> None:
        self._network = network
        self._size_px = size_px
        options = _options(network, threads or torch.get_num_threads(), bfloat16=bfloat16)
        self._stages = _stages(network, size_px, cache_dir, options)
        self._requests = {name: stage.create_infer_request() for name, stage in self._stages.items()}
        self._condensed: OrderedDict[tuple[str, ...], CondensedReference] = OrderedDict()
        self._reload = reload
        if reload is not None:
            _drop_weights(network)

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
            return self._whole_network().encode_image(image)
        tokens, *compared = self._run("image", [image])
        comparison = compared[0] if compared else None
        detail = self._run("detail", [image])[0] if self.config.detail_channels else None
        reader = self._run("reader", compared)[0] if self.config.reader is not None else None
        return ImageFeatures(tokens, comparison, detail, self._network.backbone.grid_of(image), reader)

    def encode_reference(
        self, image: Tensor, positive: Tensor | None, negative: Tensor | None
    ) -> ReferenceTokens:
        """As `RefCut.encode_reference`. Images of another size than `size_px` are computed by torch."""
        if not self._fits(image):
            return self._whole_network().encode_reference(image, positive, negative)
        features = self.encode_image(image)
        tokens = features.comparison
        if tokens is None:
            (tokens,) = self._run("reference", [image])
        return reference_tokens(tokens, positive, negative, features.grid, features.reader)

    def prepare_reference(self, features: ImageFeatures, reference: ReferenceTokens) -> PreparedReference:
        """As `RefCut.prepare_reference`.

        What depends on the reference alone is computed once and kept. Torch computes all of it for references and images
        of another size than `size_px`, and for networks without a reader or with learned similarity.
        """
        count = (self._size_px // self.config.patch_px) ** 2
        if (
            self.config.learned_similarity_dim
            or features.reader is None
            or features.reader.shape[:2] != (1, count)
            or reference.tokens.shape[0] != 1
            or reference.tokens.shape[1] < count
        ):
            return self._network.prepare_reference(features, reference)
        condensed = self._condense(reference, count)
        channels, matched = self._run("match", match_inputs(features, condensed))
        return PreparedReference(condensed.prompt, channels, matched, condensed.present)

    def read_reference(self, features: ImageFeatures, reference: PreparedReference) -> Tensor | None:
        """As `RefCut.read_reference`. Images of another size than `size_px`, and batches, are computed by torch."""
        coords = no_clicks(features, self.config)
        if self.config.reader is None or not self._fits(coords, self.config.click_map_channels):
            return self._network.read_reference(features, reference)
        (channels,) = self._run("compare", compare_inputs(self._network, features, coords, reference))
        return self._network.reader_probability(channels, features.grid)

    def _condense(self, reference: ReferenceTokens, count: int) -> CondensedReference:
        """A condensed reference, unless it is kept."""
        key = reference.sources
        if key not in self._condensed:
            self._condensed[key] = self._network.condense_reference(reference, count, EVIDENCE_STEP)
            while len(self._condensed) > KEPT_REFERENCES:
                self._condensed.popitem(last=False)
        self._condensed.move_to_end(key)
        return self._condensed[key]

    def segment(
        self, features: ImageFeatures, coords: Tensor, reference: PreparedReference | None = None
    ) -> Segmentation:
        """As `RefCut.segment`. Images of another size than `size_px`, and batches, are computed by torch."""
        if not self._fits(coords, self.config.click_map_channels):
            return self._whole_network().segment(features, coords, reference)
        channels = None
        if self.config.similarity:
            (channels,) = self._run("compare", compare_inputs(self._network, features, coords, reference))
        inputs = click_inputs(self._network, features, coords, reference, channels)
        logits, *quality = self._run("clicks", inputs)
        return Segmentation(logits, *quality)

    def _whole_network(self) -> RefCut:
        """The network with all of its weights."""
        if self._reload is not None:
            self._network, self._reload = self._reload(), None
        return self._network

    def _fits(self, maps: Tensor, channels: int = 3) -> bool:
        return maps.shape == (1, channels, self._size_px, self._size_px)

    def _run(self, stage: str, inputs: list[Tensor]) -> list[Tensor]:
        """Runs a stage. Outputs are copies, because OpenVINO writes the next outputs to the same memory."""
        request = self._requests[stage]
        arrays = [np.ascontiguousarray(tensor.detach().numpy()) for tensor in inputs]
        request.infer(arrays, share_inputs=True)
        return [torch.from_numpy(np.array(output.data)) for output in request.output_tensors]


def is_cached(network: RefCut, size_px: int, cache_dir: Path) -> bool:
    """Whether all stages of a network are in the cache folder.

    Raises:
        ImportError: If OpenVINO is not installed.
    """
    return all((cache_dir / key).is_dir() for key in stage_keys(network, size_px).values())


def _options(network: RefCut, threads: int, *, bfloat16: bool) -> dict[str, dict[str, object]]:
    """How each stage is compiled, by stage."""
    has_bfloat16 = "BF16" in openvino_package().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    common: dict[str, object] = {
        "PERFORMANCE_HINT": "LATENCY",
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": quantisation_group(network),
        "INFERENCE_NUM_THREADS": threads,
        # With pinning, all workers of one machine would use its first cores.
        "ENABLE_CPU_PINNING": False,
    }

    def precision(stage: str) -> str:
        return "bf16" if bfloat16 and has_bfloat16 and stage in BFLOAT16_STAGES else "f32"

    return {
        stage: common | {"INFERENCE_PRECISION_HINT": precision(stage)} for stage in stages_of(network.config)
    }


def _stages(
    network: RefCut, size_px: int, cache_dir: Path | None, options: dict[str, dict[str, object]]
) -> dict[str, Any]:
    """The compiled stages of a network: those of this process, else from the cache folder, else converted."""
    keys = stage_keys(network, size_px)
    with _compile_lock:
        found = {stage: _known(keys[stage], options[stage], cache_dir) for stage in keys}
        missing = [stage for stage, compiled in found.items() if compiled is None]
        if missing:
            for stage, model in convert(network, size_px, missing).items():
                if cache_dir is not None:
                    _store(model, cache_dir / keys[stage])
                    # Compiled from its file, as by every later worker: from memory the last bits may differ.
                    model = str(cache_dir / keys[stage] / MODEL_FILE)
                found[stage] = _compile(model, keys[stage], options[stage])
            if cache_dir is not None:
                _remove_oldest(cache_dir)
        return found


def _known(key: str, options: dict[str, object], cache_dir: Path | None) -> Any | None:
    """A stage that is compiled in this process, or in the cache folder; None if it has to be converted."""
    folder = None if cache_dir is None else cache_dir / key
    if folder is not None:
        with suppress(OSError):
            os.utime(folder)
    compiled = _compiled.get((key, *options.items()))
    if compiled is None and folder is not None and folder.is_dir():
        try:
            compiled = _compile(str(folder / MODEL_FILE), key, options)
        except RuntimeError:
            shutil.rmtree(folder, ignore_errors=True)
    return compiled


def _compile(model: Any, key: str, options: dict[str, object]) -> Any:
    compiled = openvino_package().Core().compile_model(model, "CPU", options)
    _compiled[key, *options.items()] = compiled
    return compiled


def _drop_weights(network: RefCut) -> None:
    """Removes the weights that torch does not compute with from memory. Those that other networks share stay there."""
    for name, module in network.named_children():
        if not f"{name}.".startswith(USED_WITH_TORCH):
            module.to(device="meta")


def _store(model: Any, folder: Path) -> None:
    """Writes a converted stage into a temporary folder and renames it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix="partial-"))
    openvino_package().save_model(model, str(temporary / MODEL_FILE), compress_to_fp16=False)
    try:
        os.replace(temporary, folder)
    except OSError:
        shutil.rmtree(temporary)
        if not folder.is_dir():
            raise


def _remove_oldest(cache_dir: Path) -> None:
    """Removes the stages that were used least recently while the folder is larger than `KEPT_BYTES`."""
    used: list[tuple[float, int, Path]] = []
    for folder in cache_dir.iterdir():
        with suppress(OSError):
            size = sum(file.stat().st_size for file in folder.iterdir()) if folder.is_dir() else 0
            used.append((folder.stat().st_mtime, size, folder))
    total = 0
    for _, size, folder in sorted(used, reverse=True):
        total += size
        if total > KEPT_BYTES:
            shutil.rmtree(folder, ignore_errors=True)
