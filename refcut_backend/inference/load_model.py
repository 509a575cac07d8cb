"""Loads a model version for a device and a runtime, and prepares versions ahead of time."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path

import cv2
import torch

from model.checkpoints.weights import load_network
from model.errors import RuntimeChoiceError
from model.memory import return_free_memory
from model.network.refcut import RefCut
from model.predictor_config import PredictorSettings, serving_settings
from model.runtime.base import NetworkStages
from model.runtime.openvino import OpenVinoStages
from model.runtime.select import (
    RuntimeName,
    is_prepared,
    needs_preparing,
    prepare_in_subprocess,
    with_runtime,
)
from refcut_backend.errors import ConfigError
from refcut_backend.inference.models import ServedModel
from refcut_backend.settings import Settings
from refcut_backend.system.cores import usable_cores

log = logging.getLogger("refcut.worker")


class ModelLoader:
    """Loads networks for one device and runtime. Versions share tensors and converted stages that are equal."""

    def __init__(
        self, device: torch.device, runtime: RuntimeName, runtime_cache_dir: Path, threads: int | None = None
    ) -> None:
        """Prepare a loader.

        Args:
            device: Where the networks compute.
            runtime: "auto", "openvino" or "torch".
            runtime_cache_dir: Folder of converted models; shared by the workers of a machine.
            threads: Processor threads of OpenVINO; None takes torch's.
        """
        self._device = device
        self._runtime = runtime
        self._cache_dir = runtime_cache_dir
        self._threads = threads
        self._shared: RefCut | None = None
        self._load_lock = threading.Lock()

    def load_shared(self, folder: Path, version: str) -> ServedModel:
        """Load the model of all projects without a version of their own.

        Args:
            folder: Folder with the weights.
            version: Its version as Label Studio shows it.

        Raises:
            ModelError: If the weights cannot be loaded.
            ConfigError: If the runtime of the settings cannot be loaded.
        """
        self._shared = load_network(folder).to(self._device)
        settings = serving_settings(self._shared.config)
        try:
            stages = self._with_runtime(self._shared, settings)
        except RuntimeChoiceError as error:
            raise ConfigError(f"REFCUT_RUNTIME: {error.message}", hint=error.hint) from None
        return ServedModel(version, stages, settings)

    def load(
        self, folder: Path, version: str, on_conversion: Callable[[], None] = lambda: None
    ) -> ServedModel:
        """Load a version of a project while clicks are answered; slow steps run in a process of low priority.

        Args:
            folder: Folder with the weights.
            version: Its version as Label Studio shows it.
            on_conversion: Called before the version is converted for OpenVINO, which takes many seconds.

        Raises:
            ModelError: If the weights cannot be loaded.
            OSError: If a file cannot be read.
            RuntimeError: If torch fails, for lack of memory too.
            MemoryError: If the memory is full.
        """
        with self._load_lock:
            network = self._network(folder)
            if needs_preparing(network, folder, self._runtime, self._cache_dir):
                on_conversion()
                try:
                    prepare_in_subprocess(folder, self._cache_dir)
                except RuntimeChoiceError as error:
                    log.warning("a version is converted in the worker", extra={"problem": str(error)})
            settings = serving_settings(network.config)
            stages = self._with_runtime(network, settings, reload=lambda: self._network(folder))
            return_free_memory()
            return ServedModel(version, stages, settings)

    def _network(self, folder: Path) -> RefCut:
        return load_network(folder, self._shared).to(self._device)

    def _with_runtime(
        self, network: RefCut, settings: PredictorSettings, reload: Callable[[], RefCut] | None = None
    ) -> NetworkStages:
        return with_runtime(network, settings, self._runtime, self._cache_dir, self._threads, reload)


def prepare_version(folder: Path, settings: Settings) -> None:
    """Convert a version before it is promoted, so that the workers of this machine switch to it at once.

    Args:
        folder: Folder with the weights of the version.
        settings: Their device and runtime are used.

    Raises:
        ModelError: If the conversion fails. The workers then convert it themselves.
    """
    if choose_device(settings.device).type != "cpu" or settings.runtime == "torch":
        return
    try:
        if is_prepared(folder, settings.runtime_cache_dir):
            return
    except ImportError:
        return
    prepare_in_subprocess(folder, settings.runtime_cache_dir)


def choose_device(wanted: str) -> torch.device:
    """Choose the device of the model.

    Args:
        wanted: "auto" (a GPU if there is one), "cpu", "cuda" or "cuda:N".

    Raises:
        ConfigError: If a GPU is wanted and torch sees none.
    """
    available = torch.cuda.is_available()
    if wanted.startswith("cuda") and not available:
        raise ConfigError(
            "REFCUT_DEVICE asks for CUDA, but torch sees no GPU", hint="use auto or cpu, or repair the driver"
        )
    return torch.device(("cuda" if available else "cpu") if wanted == "auto" else wanted)


def share_cores(device: torch.device, workers: int) -> int:
    """Limit OpenCV, and torch unless it computes on a GPU, to this worker's share of the processor cores.

    Returns:
        The share, as a number of threads.
    """
    threads = max(usable_cores() // workers, 1)
    cv2.setNumThreads(threads)
    if device.type == "cpu":
        torch.set_num_threads(threads)
    return threads


def uses_openvino(network: NetworkStages) -> bool:
    """Whether OpenVINO computes a network."""
    return isinstance(network, OpenVinoStages)


def leave_cores_to_openvino(network: NetworkStages) -> None:
    """Limit torch to one thread if OpenVINO computes the network.

    Threads of two pools wait for each other, because both keep a core busy for a while after each operation. What torch
    computes beside OpenVINO is too small for several threads.
    """
    if uses_openvino(network):
        torch.set_num_threads(1)
