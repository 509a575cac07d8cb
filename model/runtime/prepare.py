"""`python -m model.runtime.prepare WEIGHTS --cache FOLDER`: makes OpenVINO's form of a network ahead of time.

Whoever serves the network then only has to load it. Nothing happens where it is there already; several that want the
same one wait for each other.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from model.checkpoints.weights import load_network
from model.command_line import OneLineParser
from model.errors import ModelError, RuntimeChoiceError
from model.network.refcut import RefCut
from model.predictor_config import serving_settings
from model.runtime.choose import RuntimeName, can_use_openvino, with_runtime
from model.runtime.openvino_stages import is_kept

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
    command = [sys.executable, "-m", "model.runtime.prepare", str(weights), "--cache", str(cache_dir)]
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


def main(argv: Sequence[str] | None = None) -> None:
    """Exits with status 2 and one line on stderr when it cannot be done."""
    parser = OneLineParser(prog="python -m model.runtime.prepare", description=__doc__)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--cache", type=Path, required=True, help="folder of OpenVINO's forms")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    try:
        prepare(arguments.weights, arguments.cache)
    except ModelError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
