"""The state of a training run on disk: safetensors with JSON, so reading it runs no code.

tensors     network.NAME, average.NAME, optimiser.PARAMETER.KEY
metadata    the format; as JSON the counters of the run and the optimiser's groups
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from model.errors import TrainingError
from model.files import atomic_write

CHECKPOINT_FILE = "checkpoint.safetensors"
EARLIER_CHECKPOINT_FILE = "checkpoint.pt"
"""A pickle, as versions up to 0.1.0 wrote it."""
STATE_FORMAT = "refcut-training-1"
_PARTS = ("network", "average", "optimiser")


@dataclass(frozen=True)
class TrainingState:
    """What a run resumes from.

    Attributes:
        network: Weights by name.
        average: Averaged weights by name.
        optimiser: `state_dict` of a torch optimiser.
        counters: Numbers of the run, such as its step.
    """

    network: Mapping[str, Tensor]
    average: Mapping[str, Tensor]
    optimiser: Mapping[str, Any]
    counters: Mapping[str, float]


def has_checkpoint(run_dir: Path) -> bool:
    """Whether a run has a checkpoint to resume from.

    Raises:
        TrainingError: If an earlier version of this program wrote it.
    """
    if (run_dir / CHECKPOINT_FILE).exists():
        return True
    if (run_dir / EARLIER_CHECKPOINT_FILE).exists():
        raise TrainingError(
            f"{run_dir / EARLIER_CHECKPOINT_FILE} was written by an earlier version and is a pickle, which is not read",
            hint="finish the run with that version, or delete the file to start the run again",
        )
    return False


def save_state(state: TrainingState, run_dir: Path) -> None:
    """Write the checkpoint of a run atomically."""
    slots: dict[int, dict[str, Any]] = state.optimiser["state"]
    tensors = {f"network.{name}": value for name, value in state.network.items()}
    tensors |= {f"average.{name}": value for name, value in state.average.items()}
    numbers: dict[str, Any] = {}
    for parameter, slot in slots.items():
        for key, value in slot.items():
            (tensors if isinstance(value, Tensor) else numbers)[f"optimiser.{parameter}.{key}"] = value
    description = {
        "counters": dict(state.counters),
        "groups": state.optimiser["param_groups"],
        "numbers": numbers,
    }
    # Tensors may share memory, which safetensors refuses; a copy on the processor does not.
    copies = {name: value.detach().cpu().clone().contiguous() for name, value in tensors.items()}
    with atomic_write(run_dir / CHECKPOINT_FILE) as temporary:
        save_file(copies, temporary, {"format": STATE_FORMAT, "description": json.dumps(description)})


def load_state(run_dir: Path, device: torch.device) -> TrainingState:
    """Read the checkpoint of a run.

    Args:
        run_dir: Folder of the run.
        device: Device of the averaged weights; the others are copied to where they belong when they are loaded.

    Raises:
        TrainingError: If the file is damaged or of another format.
    """
    path = run_dir / CHECKPOINT_FILE
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != STATE_FORMAT:
                raise TrainingError(
                    f"{path} is not a {STATE_FORMAT}", hint="resume with the version that wrote it"
                )
            description = json.loads(metadata["description"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        parts: dict[str, dict[str, Any]] = {part: {} for part in _PARTS}
        for name, value in (tensors | description["numbers"]).items():
            part, _, rest = name.partition(".")
            parts[part][rest] = value
        slots: dict[int, dict[str, Any]] = {}
        for name, value in parts["optimiser"].items():
            parameter, key = name.split(".", 1)
            slots.setdefault(int(parameter), {})[key] = value
        groups = [_group(group) for group in description["groups"]]
        average = {name: value.to(device) for name, value in parts["average"].items()}
        return TrainingState(
            parts["network"], average, {"state": slots, "param_groups": groups}, description["counters"]
        )
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise TrainingError(
            f"{path} cannot be read ({error})", hint="restore the file, or delete it to start the run again"
        ) from error


def _group(group: dict[str, Any]) -> dict[str, Any]:
    """A group of parameters with the tuples that JSON has turned into lists."""
    return {
        key: tuple(value) if isinstance(value, list) and key != "params" else value
        for key, value in group.items()
    }
