"""How much memory values hold on to, for caches that are bounded in bytes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch


def nbytes(*values: Any) -> int:
    """Bytes of the arrays and tensors in values: in dataclasses, mappings, lists and tuples too. A view counts as all
    that it keeps alive, and what several share counts once."""
    held: dict[tuple[str, int], int] = {}
    for value in values:
        _collect(value, held)
    return sum(held.values())


def _collect(value: Any, held: dict[tuple[str, int], int]) -> None:
    if isinstance(value, torch.Tensor):
        storage = value.untyped_storage()
        held[str(value.device), storage.data_ptr()] = storage.nbytes()
    elif isinstance(value, np.ndarray):
        while isinstance(value.base, np.ndarray):
            value = value.base
        held["numpy", value.__array_interface__["data"][0]] = value.nbytes
    elif isinstance(value, Mapping):
        for inner in value.values():
            _collect(inner, held)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            _collect(inner, held)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            _collect(getattr(value, field.name), held)
