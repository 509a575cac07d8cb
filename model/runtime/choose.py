"""Which runtime computes the network: torch, or OpenVINO where that is faster."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Literal

from model.errors import RuntimeChoiceError
from model.network.refcut import RefCut
from model.predictor_config import PredictorSettings
from model.runtime.openvino_stages import OpenVinoStages
from model.runtime.stages import NetworkStages

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
