"""Checkpoints in the official layout, like the recorded one but with something changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from model.checkpoints.official import read_official
from tests.support.recordings import CHECKPOINT

MICRO = read_official(CHECKPOINT)
PARAMS = {
    name: {"type": "builtin", "value": value, "specified": True} for name, value in MICRO.params.items()
}
PARAMS["head_params"] = {
    "value": {name: value for name, value in MICRO.params["head_params"].items() if name != "loss_decode"}
}
SIMPLECLICK = "isegm.model.is_plainvit_model.PlainVitModel"


def official(
    path: Path,
    *,
    tensors: dict[str, Tensor] | None = None,
    params: dict[str, Any] | None = None,
    class_name: str = SIMPLECLICK,
) -> Path:
    """A checkpoint like the recorded one, with something changed."""
    config = {"class": class_name, "params": PARAMS if params is None else params}
    torch.save({"state_dict": MICRO.tensors if tensors is None else tensors, "config": config}, path)
    return path


def with_param(group: str, name: str, value: object) -> dict[str, Any]:
    """Returns the recorded parameters with one changed."""
    return PARAMS | {group: {"value": PARAMS[group]["value"] | {name: value}}}
