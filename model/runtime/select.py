"""Which runtime computes the network: torch, or OpenVINO where that is faster.

OpenVINO needs a converted form of the network. It can be prepared ahead of time, in another process.
"""

from __future__ import annotations

import fcntl
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Literal

from model.checkpoints.weights import load_network
from model.errors import RuntimeChoiceError
from model.network.refcut import RefCut
from model.predictor_config import PredictorSettings, serving_settings
from model.runtime.base import NetworkStages
from model.runtime.openvino import OpenVinoStages, is_cached

RuntimeName = Literal["auto", "openvino", "torch"]
TIME_LIMIT_S = 300
"""Time limit of a conversion in a subprocess."""
NICENESS = 15
log = logging.getLogger(__name__)


def with_runtime(
    network: RefCut,
    settings: PredictorSettings,
    runtime: RuntimeName,
    cache_dir: Path | None = None,
    threads: int | None = None,
) -> NetworkStages:
    """The stages of a network, for a predictor.

    Args:
        network: A loaded network.
        settings: Settings of the predictor that will use the stages.
        runtime: "torch", "openvino", or "auto": OpenVINO with 8-bit weights on a CPU if it is installed and loads,
            otherwise torch.
        cache_dir: Folder in which the converted network is stored for the next start; None stores nothing.
        threads: Processor threads of OpenVINO; None takes torch's.

    Returns:
        The network itself, or an `OpenVinoStages`.

    Raises:
        RuntimeChoiceError: If `runtime` is "openvino" and OpenVINO cannot be used.

    Example:
        >>> from model import PredictorSettings, load_network, with_runtime
        >>> network = load_network()
        >>> with_runtime(network, PredictorSettings(), "torch") is network
        True
    """
    if runtime == "torch":
        return network
    problem = _problem(network, settings)
    if problem is None:
        try:
            return OpenVinoStages(network, settings.network_px, cache_dir, threads)
        except (ImportError, OSError, RuntimeError) as error:
            problem = f"OpenVINO cannot be used ({type(error).__name__}: {error})"
            if runtime == "auto":
                log.warning("%s; torch computes the clicks, which is slower", problem)
    if runtime == "openvino":
        raise RuntimeChoiceError(problem, hint="use the runtime auto or torch")
    return network


def can_use_openvino(network: RefCut, settings: PredictorSettings) -> bool:
    """Whether OpenVINO supports this network with these settings. It may still not be installed."""
    return _problem(network, settings) is None


def _problem(network: RefCut, settings: PredictorSettings) -> str | None:
    """The reason why OpenVINO does not support this use; None if it does."""
    if network.device.type != "cpu":
        return f"OpenVINO runs on CPUs only, and the network is on {network.device}"
    if settings.flip or settings.bfloat16:
        return "OpenVINO cannot be used with flip or bfloat16"
    return None


def prepare(weights: Path, cache_dir: Path) -> None:
    """Write the converted form of a network into a cache folder. Only one process does so at a time.

    Args:
        weights: Folder or file, as for `load_network`.
        cache_dir: Folder of converted networks.

    Raises:
        ModelError: If the network cannot be loaded, or OpenVINO cannot be used.
    """
    cache_dir.mkdir(parents=True, exist_ok=True)
    with cache_dir.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        network = load_network(weights)
        with_runtime(network, serving_settings(network.config), "openvino", cache_dir)


def prepare_in_subprocess(network: RefCut, weights: Path, runtime: RuntimeName, cache_dir: Path) -> None:
    """Run `prepare` in another process with low priority, if it is needed and not done yet; return when it is done.

    Args:
        network: The loaded network of `weights`, on the device that will serve it.
        weights: Folder or file of the network.
        runtime: The runtime that will serve it.
        cache_dir: Folder of converted networks.

    Raises:
        RuntimeChoiceError: If the process fails, or takes longer than `TIME_LIMIT_S`.
    """
    settings = serving_settings(network.config)
    if runtime == "torch" or not can_use_openvino(network, settings) or _is_cached(network, cache_dir):
        return
    command = [sys.executable, "-m", "model", "prepare-runtime", str(weights), "--cache", str(cache_dir)]
    try:
        done = subprocess.run(
            ["nice", "-n", str(NICENESS), *command],
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=TIME_LIMIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise RuntimeChoiceError(
            f"converting {weights.name} for OpenVINO took longer than {TIME_LIMIT_S} s",
            hint="check whether the machine is busy",
        ) from None
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise RuntimeChoiceError(f"{weights.name} could not be converted for OpenVINO ({last})", hint="")


def _is_cached(network: RefCut, cache_dir: Path) -> bool:
    try:
        return is_cached(network, serving_settings(network.config).network_px, cache_dir)
    except ImportError:
        return True
