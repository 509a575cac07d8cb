"""Reads checkpoints in SimpleClick's official layout without running anything that is in them.

These files are pickles. torch's weights-only reader refuses every name that is not on its list. Official files also hold
a loss module in their description; this module has a stand-in for it that holds values and does nothing.
"""

from __future__ import annotations

import pickle
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from model.errors import WeightsError

_LOSS_MODULE = "isegm.model.modeling.transformer_helper.cross_entropy_loss."
_GET_OFFICIAL = "download a SimpleClick model (links: github.com/uncbiag/SimpleClick) and convert that"
_DOWNLOAD_AGAIN = "download it again and compare its size with the one at the source"
_NO_CHECKPOINT_STARTS = {
    b"": "is empty",
    b"<": "is a web page",
    b"version https://git-lfs": "is a Git LFS pointer, not the file itself",
}


class _Inert:
    """Stands in for the loss module of official files: holds what it is given and does nothing."""


def _inert_function(*_args: object) -> None:
    """Stands in for the loss function of official files."""


_STAND_INS: list[Any] = [
    (_Inert, _LOSS_MODULE + "CrossEntropyLoss"),
    (_inert_function, _LOSS_MODULE + "cross_entropy"),
    (_Inert, "argparse.Namespace"),
    set,
]
"""All that official files, and the MAE files that people take for them, name beyond tensors and containers."""


@dataclass(frozen=True)
class OfficialCheckpoint:
    """Content of an official file.

    Attributes:
        tensors: The whole state dict.
        params: The constructor's arguments that were stored with it; may be empty.
    """

    tensors: dict[str, Tensor]
    params: dict[str, Any]


def read_official(path: Path) -> OfficialCheckpoint:
    """Read a SimpleClick or RefCut checkpoint.

    Args:
        path: A `.pth` file.

    Raises:
        WeightsError: For any other file. The message says what the file is and what to do.
    """
    content = _unpickle(path)
    if isinstance(content, list):
        raise WeightsError(f"{path} is a list of checkpoints, as RITM writes", hint=_GET_OFFICIAL)
    if not isinstance(content, Mapping) or not isinstance(content.get("state_dict"), Mapping):
        if isinstance(content, Mapping) and "model" in content:
            raise WeightsError(
                f"{path} is an MAE file: weights to start a training from, which cannot segment",
                hint=_GET_OFFICIAL,
            )
        raise WeightsError(f"{path} has no state_dict and is no SimpleClick checkpoint", hint=_GET_OFFICIAL)
    tensors = dict(content["state_dict"])
    stored = content.get("config")
    config = stored if isinstance(stored, Mapping) else {}
    _check_lineage(path, tensors, str(config.get("class", "")))
    return OfficialCheckpoint(tensors, _values(config.get("params")))


def _unpickle(path: Path) -> Any:
    _check_start(path)
    try:
        with torch.serialization.safe_globals(_STAND_INS), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        refused = re.findall(r"GLOBAL ([\w.]+)", str(error))
        if not refused:
            raise WeightsError(f"{path} is damaged or no checkpoint", hint=_DOWNLOAD_AGAIN) from error
        raise WeightsError(
            f"{path} wants to run {refused[0]}, which no SimpleClick checkpoint does; nothing was run",
            hint="do not use this file unless you know who made it; " + _GET_OFFICIAL,
        ) from error
    except (
        RuntimeError,
        EOFError,
        OSError,
        ValueError,
        KeyError,
        IndexError,
        AttributeError,
        TypeError,
    ) as error:
        reason = re.split(r"[.\n]", str(error))[0][:120] or type(error).__name__
        raise WeightsError(f"{path} is truncated or damaged ({reason})", hint=_DOWNLOAD_AGAIN) from error


def _check_start(path: Path) -> None:
    """Says at once what a file is that no torch ever wrote."""
    try:
        with path.open("rb") as file:
            start = file.read(64)
    except OSError as error:
        raise WeightsError(f"{path} cannot be read ({error.strerror})", hint="check the path") from error
    if start[8:10] == b'{"':
        raise WeightsError(f"{path} is a safetensors file already", hint="pass it as weights as it is")
    if start.startswith((b"PK\x03\x04", b"\x80\x02")):
        return
    if start.startswith(b"\x80"):
        raise WeightsError(
            f"{path} is a pickle that torch did not write; nothing was run", hint=_GET_OFFICIAL
        )
    for known, what in _NO_CHECKPOINT_STARTS.items():
        if start == known or (known and start.lstrip().startswith(known)):
            raise WeightsError(f"{path} {what}", hint=_DOWNLOAD_AGAIN)
    raise WeightsError(f"{path} is not a checkpoint: no torch version writes such a file", hint=_GET_OFFICIAL)


def _check_lineage(path: Path, tensors: dict[str, Any], class_name: str) -> None:
    """Tells the relatives of SimpleClick apart, whose files look much alike."""
    if not all(isinstance(t, Tensor) and t.is_floating_point() for t in tensors.values()):
        raise WeightsError(f"{path} holds other things than tensors in its state_dict", hint=_GET_OFFICIAL)
    names = " ".join(tensors)
    if "graco" in class_name.lower() or "gra_embed" in names or "lora_" in names:
        raise WeightsError(
            f"{path} is a GraCo file: low-rank changes to a SimpleClick model, useless without it",
            hint=_GET_OFFICIAL,
        )
    clicks = tensors.get("patch_embed_coords.proj.weight")
    if clicks is not None and clicks.ndim == 4 and clicks.shape[1] == 4:
        raise WeightsError(
            f"{path} is an MFP file: its click embedding takes four maps, SimpleClick's three",
            hint=_GET_OFFICIAL,
        )
    if clicks is not None and "backbone.pos_embed" in tensors:
        return
    if re.search("hrnet|deeplab", class_name.lower()) or "feature_extractor." in names:
        raise WeightsError(
            f"{path} is an RITM file: a convolutional network, no transformer", hint=_GET_OFFICIAL
        )
    described = f" (its class is {class_name})" if class_name else ""
    raise WeightsError(
        f"{path} is no SimpleClick checkpoint{described}: it has no plain ViT", hint=_GET_OFFICIAL
    )


def _values(params: Any) -> dict[str, Any]:
    """Official files wrap each argument as {"type": ..., "value": ..., "specified": ...}."""
    if not isinstance(params, Mapping):
        return {}
    return {
        str(name): entry["value"]
        for name, entry in params.items()
        if isinstance(entry, Mapping) and "value" in entry
    }
