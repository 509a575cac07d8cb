"""`python -m model convert official.pth out.safetensors`: a SimpleClick or RefCut checkpoint as weights for `model`.

The shape of the network is read off the tensors and held against the description in the file. Tensors that the
released models carry but never use are left out.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from model.checkpoints.official import OfficialCheckpoint, read_official
from model.checkpoints.weights import PROMPT_PREFIX, save_network
from model.cli.common import command_parser
from model.errors import WeightsError
from model.network.config import NetworkConfig
from model.network.encoder import grid_side
from model.network.refcut import IMAGE_MEAN, IMAGE_STD, RefCut

DEAD_PREFIXES = (
    "backbone.cls_token",
    "backbone.fc_norm.",
    "backbone.head.",
    "head.up_conv1.",
    "head.up_conv2.",
)
"""Tensors of released files that segmentation never reads (facts: section 1.4)."""
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
    """Writes the network of an official file as one safetensors file and returns its shape.

    Raises WeightsError when the source is something else, damaged, or contradicts itself.
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
    """The network's shape from its tensors; only the number of heads cannot be seen in them.

    Raises KeyError, IndexError or ValueError when the tensors are not those of a plain-ViT SimpleClick.
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
    """Holds the stored description, where there is one, against the tensors and against what is built in."""
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
    """The value of `group.name` in the stored arguments, lists as tuples; None where it is not stored."""
    value: Any = params
    for key in name.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return _as_tuple(value)


def _as_tuple(value: object) -> object:
    return tuple(_as_tuple(item) for item in value) if isinstance(value, list | tuple) else value


def main(argv: Sequence[str] | None = None) -> None:
    """Exits with status 2 and one line on stderr when the source cannot be used."""
    parser = command_parser("convert", __doc__)
    parser.add_argument("source", type=Path, help="checkpoint in the official layout (.pth)")
    parser.add_argument("target", type=Path, help="file to write (.safetensors)")
    arguments = parser.parse_args(argv)
    if arguments.target.suffix != ".safetensors":
        parser.error(f"{arguments.target} must end in .safetensors")
    try:
        config = convert(arguments.source, arguments.target)
    except (WeightsError, OSError) as error:
        parser.error(str(error))
    print(
        f"{arguments.target}: {config.depth} blocks of {config.embed_dim}, {config.heads} heads, "
        f"patch {config.patch_px} px, images of {config.network_px} px"
    )
