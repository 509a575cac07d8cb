"""From a version of the store to a network that answers clicks."""

from __future__ import annotations

import logging
import os
import threading
from pathlib import Path

import torch

from model.checkpoints.weights import load_network
from model.errors import RuntimeChoiceError
from model.network.refcut import RefCut
from model.predictor_config import serving_settings
from model.runtime.select import RuntimeName, prepare_in_subprocess, with_runtime
from refcut_backend.errors import ConfigError
from refcut_backend.inference.models import ServedModel
from refcut_backend.settings import Settings

log = logging.getLogger("refcut.worker")


class ModelLoader:
    """Loads networks for one device and runtime. What several have in common is in memory once."""

    def __init__(self, device: torch.device, runtime: RuntimeName, runtime_cache_dir: Path) -> None:
        self._device = device
        self._runtime = runtime
        self._cache_dir = runtime_cache_dir
        self._shared: RefCut | None = None
        self._one_at_a_time = threading.Lock()

    def load_shared(self, folder: Path, version: str) -> ServedModel:
        """The model of all projects without their own. Raises ModelError, or ConfigError for a runtime that does not
        load."""
        self._shared = load_network(folder).to(self._device)
        settings = serving_settings(self._shared.config)
        try:
            stages = with_runtime(self._shared, settings, self._runtime, self._cache_dir)
        except RuntimeChoiceError as error:
            raise ConfigError(f"REFCUT_RUNTIME: {error.message}", hint=error.hint) from None
        return ServedModel(version, stages, settings)

    def load(self, folder: Path, version: str) -> ServedModel:
        """A version, while clicks are answered: what takes long is done in a process that gives way to them.

        Raises ModelError, OSError, RuntimeError or MemoryError.
        """
        with self._one_at_a_time:
            network = load_network(folder, self._shared).to(self._device)
            settings = serving_settings(network.config)
            try:
                prepare_in_subprocess(network, folder, self._runtime, self._cache_dir)
            except RuntimeChoiceError as error:
                log.warning("a version is converted in the worker", extra={"problem": str(error)})
            return ServedModel(
                version, with_runtime(network, settings, self._runtime, self._cache_dir), settings
            )


def prepare_version(folder: Path, settings: Settings) -> None:
    """Does ahead of time what workers on this machine would do when a version is promoted: they then switch at once.

    Raises ModelError; nothing is lost when it fails.
    """
    if choose_device(settings.device).type == "cpu":
        prepare_in_subprocess(load_network(folder), folder, settings.runtime, settings.runtime_cache_dir)


def choose_device(wanted: str) -> torch.device:
    """`auto` takes a GPU when there is one. Raises ConfigError when a GPU was asked for and there is none."""
    available = torch.cuda.is_available()
    if wanted.startswith("cuda") and not available:
        raise ConfigError(
            "REFCUT_DEVICE asks for CUDA, but torch sees no GPU", hint="use auto or cpu, or mend the driver"
        )
    return torch.device(("cuda" if available else "cpu") if wanted == "auto" else wanted)


def share_cores(device: torch.device, workers: int) -> None:
    """Each of several workers on a processor takes its part of it."""
    if device.type == "cpu":
        torch.set_num_threads(max(len(os.sched_getaffinity(0)) // workers, 1))
