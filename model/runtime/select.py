"""Which runtime computes the network: torch, or OpenVINO where that is faster.

OpenVINO needs a converted form of the network. It can be prepared ahead of time, in another process.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from model.checkpoints.version_folder import VERSION_FILE, file_digest, whole_network_file
from model.checkpoints.weights import load_network
from model.errors import RuntimeChoiceError
from model.files import atomic_write
from model.network.refcut import RefCut
from model.predictor_config import PredictorSettings, serving_settings
from model.runtime.base import NetworkStages
from model.runtime.openvino import OpenVinoStages, is_cached
from model.runtime.openvino_export import FORMAT, openvino_package, stage_keys

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
    reload: Callable[[], RefCut] | None = None,
) -> NetworkStages:
    """The stages of a network, for a predictor.

    Args:
        network: A loaded network.
        settings: Settings of the predictor that will use the stages.
        runtime: "torch", "openvino", or "auto": OpenVINO with 8-bit weights on a CPU if it is installed and loads,
            otherwise torch.
        cache_dir: Folder in which the converted network is stored for the next start; None stores nothing.
        threads: Processor threads of OpenVINO; None takes torch's.
        reload: Loads the network again. If it is given and OpenVINO computes, weights of `network` that are no longer
            needed are removed from memory (`OpenVinoStages`).

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
            return OpenVinoStages(network, settings.network_px, cache_dir, threads, reload=reload)
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
        settings = serving_settings(network.config)
        with_runtime(network, settings, "openvino", cache_dir)
        keys = stage_keys(network, settings.network_px).values()
        with atomic_write(_mark(weights, cache_dir)) as temporary:
            temporary.write_text("\n".join(keys))


def is_prepared(weights: Path, cache_dir: Path) -> bool:
    """Whether `prepare` has converted a network and its stages are still there. Loads no weights.

    Args:
        weights: Folder or file of the network.
        cache_dir: Folder of converted networks.

    Raises:
        ImportError: If OpenVINO is not installed.
        OSError: If the weights cannot be read.
    """
    try:
        keys = _mark(weights, cache_dir).read_text().splitlines()
    except FileNotFoundError:
        return False
    return all((cache_dir / key).is_dir() for key in keys)


def _mark(weights: Path, cache_dir: Path) -> Path:
    """The file that lists the converted stages of these weights."""
    whole = whole_network_file(weights)
    # The file of a version names its base by hash.
    content = file_digest(weights / VERSION_FILE if whole is None else whole)
    made_by = f"{FORMAT} {openvino_package().get_version()}"
    return cache_dir / f"stages-{hashlib.sha256(f'{content} {made_by}'.encode()).hexdigest()[:16]}.txt"


def needs_preparing(network: RefCut, weights: Path, runtime: RuntimeName, cache_dir: Path) -> bool:
    """Whether a network would be converted when it is loaded.

    Args:
        network: The loaded network, on the device that will serve it.
        weights: Folder or file of the network.
        runtime: The runtime that will serve it.
        cache_dir: Folder of converted networks.
    """
    settings = serving_settings(network.config)
    if runtime == "torch" or not can_use_openvino(network, settings):
        return False
    try:
        # The first needs no hash of all weights.
        return not (is_prepared(weights, cache_dir) or is_cached(network, settings.network_px, cache_dir))
    except ImportError:
        return False


def prepare_in_subprocess(weights: Path, cache_dir: Path) -> None:
    """Run `prepare` in another process with low priority; return when it is done.

    Args:
        weights: Folder or file of the network.
        cache_dir: Folder of converted networks.

    Raises:
        RuntimeChoiceError: If the process fails, or takes longer than `TIME_LIMIT_S`.
    """
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
