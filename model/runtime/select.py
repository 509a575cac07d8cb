"""Which runtime computes the network: torch, or OpenVINO where that is faster."""

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
from model.runtime.openvino import OpenVinoStages, is_kept

RuntimeName = Literal["auto", "openvino", "torch"]
log = logging.getLogger(__name__)


def with_runtime(
    network: RefCut, settings: PredictorSettings, runtime: RuntimeName, cache_dir: Path | None = None
) -> NetworkStages:
    """The network's stages for a predictor with these settings.

    auto: OpenVINO with 8-bit weights on a processor, where it is installed and loads; torch else.
    cache_dir: where OpenVINO's form of the network is kept for the next start; None keeps nothing.
    Raises RuntimeChoiceError when OpenVINO was asked for by name and cannot be used.
    """
    if runtime == "torch":
        return network
    problem = _problem(network, settings)
    if problem is None:
        try:
            return OpenVinoStages(network, settings.network_px, cache_dir)
        except (ImportError, OSError, RuntimeError) as error:
            problem = f"OpenVINO cannot be used ({type(error).__name__}: {error})"
            if runtime == "auto":
                log.warning("%s; clicks are computed by torch, which is slower", problem)
    if runtime == "openvino":
        raise RuntimeChoiceError(problem, hint="take the runtime auto or torch")
    return network


def can_use_openvino(network: RefCut, settings: PredictorSettings) -> bool:
    """Whether OpenVINO is for this use; it may be missing all the same."""
    return _problem(network, settings) is None


def _problem(network: RefCut, settings: PredictorSettings) -> str | None:
    """Why OpenVINO is not for this use."""
    if network.device.type != "cpu":
        return f"OpenVINO is used on processors only, and the network is on {network.device}"
    if settings.flip or settings.bfloat16:
        return "OpenVINO is used without flip and bfloat16 only"
    return None


LIMIT_S = 300
NICE = 15


def prepare(weights: Path, cache_dir: Path) -> None:
    """Raises ModelError when there is no such network, or OpenVINO cannot be used."""
    cache_dir.mkdir(parents=True, exist_ok=True)
    with cache_dir.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        network = load_network(weights)
        with_runtime(network, serving_settings(network.config), "openvino", cache_dir)


def prepare_aside(network: RefCut, weights: Path, runtime: RuntimeName, cache_dir: Path) -> None:
    """The same in another process of low priority, where it is of use and not done yet.

    network: those weights, where they shall serve. Raises RuntimeChoiceError when that process fails or takes too long.
    """
    settings = serving_settings(network.config)
    if runtime == "torch" or not can_use_openvino(network, settings) or _is_kept(network, cache_dir):
        return
    command = [sys.executable, "-m", "model", "prepare-runtime", str(weights), "--cache", str(cache_dir)]
    try:
        done = subprocess.run(
            ["nice", "-n", str(NICE), *command],
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise RuntimeChoiceError(
            f"OpenVINO's form of {weights.name} was not made within {LIMIT_S} s", hint="is the machine busy?"
        ) from None
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no reason"])[-1]
        raise RuntimeChoiceError(f"OpenVINO's form of {weights.name} was not made ({last})", hint="")


def _is_kept(network: RefCut, cache_dir: Path) -> bool:
    try:
        return is_kept(network, serving_settings(network.config).network_px, cache_dir)
    except ImportError:
        return True
