"""Reads and converts checkpoints in SimpleClick's official layout without running anything that is in them.

These files are pickles. torch's weights-only reader refuses every name that is not on its list. Official files also hold
a loss module in their description; this module has a stand-in for it that holds values and does nothing.

The shape of the network is derived from the tensors and checked against the description in the file. Tensors that the
released models contain but never use are left out.
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

from model.checkpoints.weights import PROMPT_PREFIX, save_network
from model.errors import WeightsError
from model.network.config import NetworkConfig
from model.network.encoder import IMAGE_MEAN, IMAGE_STD, grid_side
from model.network.refcut import RefCut

_LOSS_MODULE = "isegm.model.modeling.transformer_helper.cross_entropy_loss."
_GET_OFFICIAL = "download a SimpleClick model (links: github.com/uncbiag/SimpleClick) and convert that"
_DOWNLOAD_AGAIN = "download it again and compare its size with the one at the source"
_NO_CHECKPOINT_STARTS = {
    b"": "is empty",
    b"<": "is a web page",
    b"version https://git-lfs": "is a Git LFS pointer, not the file itself",
}


class _Inert:
    """Stands in for the loss module of official files: holds values and does nothing."""


def _inert_function(*_args: object) -> None:
    """Stands in for the loss function of official files."""


_STAND_INS: list[Any] = [
    (_Inert, _LOSS_MODULE + "CrossEntropyLoss"),
    (_inert_function, _LOSS_MODULE + "cross_entropy"),
    (_Inert, "argparse.Namespace"),
    set,
]
"""Everything that official files, and the MAE files that are mistaken for them, name beside tensors and containers."""


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
        raise WeightsError(
            f"{path} has no state_dict and is not a SimpleClick checkpoint", hint=_GET_OFFICIAL
        )
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
            f"{path} would run {refused[0]}, which no SimpleClick checkpoint needs; nothing was run",
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
    """Refuses a file by its first bytes if torch cannot have written it."""
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
    """Refuses files of SimpleClick's relatives, which look similar."""
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
        f"{path} is not a SimpleClick checkpoint{described}: it has no plain ViT", hint=_GET_OFFICIAL
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


DEAD_PREFIXES = (
    "backbone.cls_token",
    "backbone.fc_norm.",
    "backbone.head.",
    "head.up_conv1.",
    "head.up_conv2.",
)
"""Tensors of released files that segmentation never reads."""
_HEADS_OF_DIM = {160: 4, 768: 12, 1024: 16, 1280: 16}
_REQUIRED: dict[str, object] = {
    "use_disks": True,
    "norm_radius": 5,
    "with_prev_mask": True,
    "use_rgb_conv": False,
    "norm_mean_std": (IMAGE_MEAN, IMAGE_STD),
    "backbone_params.mlp_ratio": 4,
    "backbone_params.qkv_bias": True,
    "head_params.align_corners": False,
    "head_params.upsample": "x1",
    "head_params.in_index": (0, 1, 2, 3),
}
"""Settings of the official code that this network has built in."""


def convert(source: Path, target: Path) -> NetworkConfig:
    """Write the network of an official file as one safetensors file.

    Args:
        source: A `.pth` file of SimpleClick, or of a RefCut trained from one.
        target: The `.safetensors` file to write.

    Returns:
        Shape of the network.

    Raises:
        WeightsError: If the source is something else, damaged, or contradicts itself.
    """
    checkpoint = read_official(source)
    live = {name: t for name, t in checkpoint.tensors.items() if not name.startswith(DEAD_PREFIXES)}
    try:
        config = infer_config(live, checkpoint.params)
    except (KeyError, IndexError, ValueError) as error:
        raise WeightsError(
            f"{source} has the names of a SimpleClick checkpoint, but not its shapes ({error})",
            hint="use a file of SimpleClick's released models, or of a RefCut trained from one",
        ) from error
    _check_settings(source, config, checkpoint)
    _check_tensors(source, config, live)
    save_network(live, config, target)
    return config


def infer_config(tensors: dict[str, Tensor], params: dict[str, Any]) -> NetworkConfig:
    """Derive the network's shape from its tensors. Only the number of heads cannot be seen in them.

    Args:
        tensors: The used tensors, by name.
        params: Stored arguments of the constructor; may be empty.

    Raises:
        KeyError: If a tensor of a plain-ViT SimpleClick is missing.
        IndexError: If a tensor has too few dimensions.
        ValueError: If the number of heads is unknown, or the positions do not form a square.
    """
    positions = tensors["backbone.pos_embed"]
    dim = positions.shape[2]
    side = grid_side(positions.shape[1] - 1)
    patch_px = tensors["backbone.patch_embed.proj.weight"].shape[-1]
    hidden = tensors["rpg.positive.fc1.weight"].shape[0] if _has_prompts(tensors) else dim
    heads = _setting(params, "backbone_params.num_heads") or _HEADS_OF_DIM.get(dim)
    if not isinstance(heads, int):
        raise ValueError(f"the number of heads of a network of {dim} dimensions is unknown")
    return NetworkConfig(
        embed_dim=dim,
        depth=1
        + max(
            int(found[1]) for found in map(re.compile(r"backbone\.blocks\.(\d+)\.").match, tensors) if found
        ),
        heads=heads,
        patch_px=patch_px,
        network_px=side * patch_px,
        position_grid=side,
        neck_channels=(
            tensors["neck.down_4.5.weight"].shape[0],
            tensors["neck.down_8.2.weight"].shape[0],
            tensors["neck.down_16.0.weight"].shape[0],
            tensors["neck.down_32.2.weight"].shape[0],
        ),
        head_channels=tensors["head.fusion_conv.conv.weight"].shape[0],
        prompt_norm="rpg.positive.norm.weight" in tensors,
        prompt_hidden_dim=None if hidden == dim else hidden,
    )


def _check_settings(source: Path, config: NetworkConfig, checkpoint: OfficialCheckpoint) -> None:
    """Compares the stored description, if there is one, with the tensors and with what this code has built in."""
    expected = _REQUIRED | {
        "backbone_params.embed_dim": config.embed_dim,
        "backbone_params.depth": config.depth,
        "backbone_params.patch_size": (config.patch_px, config.patch_px),
        "backbone_params.img_size": (config.network_px, config.network_px),
        "neck_params.out_dims": config.neck_channels,
        "head_params.channels": config.head_channels,
    }
    for name, wanted in expected.items():
        stored = _setting(checkpoint.params, name)
        if stored is not None and stored != wanted:
            raise WeightsError(
                f"{source} says {name} = {stored}, where its tensors and this code have {wanted}",
                hint="only SimpleClick's released plain-ViT layout is supported; check where the file comes from",
            )


def _check_tensors(source: Path, config: NetworkConfig, tensors: dict[str, Tensor]) -> None:
    with torch.device("meta"):
        wanted = {name: t.shape for name, t in RefCut(config).state_dict().items()}
    if not _has_prompts(tensors):
        wanted = {name: shape for name, shape in wanted.items() if not name.startswith(PROMPT_PREFIX)}
    wrong = [name for name in wanted.keys() | tensors.keys() if name not in wanted or name not in tensors]
    wrong += [name for name in wanted.keys() & tensors.keys() if wanted[name] != tensors[name].shape]
    if wrong:
        raise WeightsError(
            f"{source} does not have the tensors of a SimpleClick network ({len(wrong)} missing, unknown or of "
            f"another shape, such as {min(wrong)})",
            hint="use a file of SimpleClick's released models, or of a RefCut trained from one",
        )
    if not all(bool(t.isfinite().all()) for t in tensors.values()):
        raise WeightsError(
            f"{source} holds values that are not finite", hint="download it again, or train again"
        )


def _has_prompts(tensors: dict[str, Tensor]) -> bool:
    return any(name.startswith(PROMPT_PREFIX) for name in tensors)


def _setting(params: dict[str, Any], name: str) -> object:
    """Value of `group.name` in the stored arguments, lists as tuples; None if it is not stored."""
    value: Any = params
    for key in name.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return _as_tuple(value)


def _as_tuple(value: object) -> object:
    return tuple(_as_tuple(item) for item in value) if isinstance(value, list | tuple) else value
