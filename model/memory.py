"""The memory that values occupy, for caches that are bounded in bytes; and memory that is free, back to the system."""

from __future__ import annotations

import ctypes
import dataclasses
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import numpy as np
import torch


def nbytes(*values: Any) -> int:
    """Bytes of all arrays and tensors in some values.

    Dataclasses with their cached properties, mappings, lists and tuples are searched. A view counts as the whole memory
    that it keeps alive, and memory that several values share counts once.

    Example:
        >>> import numpy as np
        >>> from model.memory import nbytes
        >>> image = np.zeros((100, 200), np.uint8)
        >>> nbytes({"image": image, "row": image[0]})
        20000
    """
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
        _collect(vars(value), held)


def return_free_memory() -> None:
    """Give memory that was freed back to the system, after work that allocated much. Does nothing without glibc."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
