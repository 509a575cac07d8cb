"""Weights on disk: safetensors only. A network with a frozen base is a folder of two files, any other is one file.

base.safetensors     the frozen encoder and its statistics; written once
version.safetensors  what training changes; one a version, names its base by hash
ANY.safetensors      a whole network in SimpleClick's shape, such as `python -m model convert` writes
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from model.checkpoints.version_folder import BASE_FILE, SHIPPED_DIR, VERSION_FILE, file_digest, version_name
from model.errors import WeightsError
from model.files import atomic_write
from model.network.config import PRESETS, NetworkConfig
from model.network.refcut import BASE_PREFIXES, RefCut

__all__ = [
    "BASE_FILE",
    "SHIPPED_DIR",
    "VERSION_FILE",
    "file_digest",
    "initial_network",
    "load_network",
    "save_base",
    "save_network",
    "save_version",
    "version_name",
]

BASE_FORMAT = "refcut-base-1"
VERSION_FORMAT = "refcut-version-1"
NETWORK_FORMAT = "refcut-network-1"
PROMPT_PREFIX = "rpg."
CLICK_EMBEDDING_STD = 0.01
"""DINOv2's token stream is small; a click embedding at the usual scale would drown it."""


def save_base(network: RefCut, path: Path) -> None:
    """Writes the tensors that training never changes, in half precision."""
    tensors = {name: t.half().contiguous() for name, t in network.state_dict().items() if _is_base(name)}
    _save(tensors, path, {"format": BASE_FORMAT, "config": network.config.to_json()})


def save_version(tensors: dict[str, Tensor], config: NetworkConfig, base_path: Path, path: Path) -> None:
    """Writes what training changed, in half precision, bound to its base file."""
    halves = {name: t.detach().cpu().half().contiguous() for name, t in tensors.items() if not _is_base(name)}
    metadata = {"format": VERSION_FORMAT, "config": config.to_json(), "base_sha256": file_digest(base_path)}
    _save(halves, path, metadata)


def save_network(tensors: dict[str, Tensor], config: NetworkConfig, path: Path) -> None:
    """Writes a whole network as one file, in the precision that it comes in.

    The prompt MLPs may be left out: the network is SimpleClick then, whatever the reference.
    """
    values = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    _save(values, path, {"format": NETWORK_FORMAT, "config": config.to_json()})


def load_network(path: Path = SHIPPED_DIR, relative: RefCut | None = None) -> RefCut:
    """A network in evaluation mode from a folder with base and version, or from a file with a whole network.

    relative: a network that may have been trained on the same base; the frozen tensors are then one in memory, and on
    its device.
    Raises WeightsError when a file is missing, damaged, of another format, or belongs to another base.
    """
    if path.is_file() or path.suffix == ".safetensors":
        tensors, metadata = _load(path, NETWORK_FORMAT)
        network = RefCut(NetworkConfig.from_json(metadata.get("config", "")))
        without_prompts = not any(name.startswith(PROMPT_PREFIX) for name in tensors)
        own = network.rpg.state_dict(prefix=PROMPT_PREFIX) if without_prompts else {}
        return _filled(network, own | tensors, path)
    base_path, version_path = path / BASE_FILE, path / VERSION_FILE
    base, _ = _load(base_path, BASE_FORMAT)
    version, version_meta = _load(version_path, VERSION_FORMAT)
    if version_meta.get("base_sha256") != file_digest(base_path):
        raise WeightsError(
            f"{version_path} was trained on another base than {base_path}",
            hint="put the base file that belongs to it beside it",
        )
    network = _filled(
        RefCut(NetworkConfig.from_json(version_meta.get("config", ""))), base | version, version_path
    )
    if relative is not None:
        _share_base(network, relative)
    return network


def _share_base(network: RefCut, relative: RefCut) -> None:
    """Frozen tensors that are equal become those of `relative`."""
    own, others = network.state_dict(), relative.state_dict()
    names = [name for name in own if _is_base(name)]
    if all(name in others and torch.equal(own[name], others[name].cpu()) for name in names):
        network.load_state_dict({name: others[name] for name in names}, strict=False, assign=True)


def initial_network(preset: str, encoder_path: Path) -> RefCut:
    """A network that has not been trained: encoder weights from a timm-named safetensors file, the rest fresh."""
    config = PRESETS[preset]
    encoder, _ = _load(encoder_path, None)
    network = RefCut(config)
    wanted = network.backbone.state_dict()
    network.backbone.load_state_dict({name: encoder[name].float() for name in wanted})
    if config.reference_features == "frozen":
        for offset, block in enumerate(network.click_blocks):
            source = network.backbone.blocks[config.fusion_block + offset]
            block.load_state_dict(source.state_dict())
    torch.nn.init.normal_(network.patch_embed_coords.proj.weight, std=CLICK_EMBEDDING_STD)
    torch.nn.init.zeros_(network.patch_embed_coords.proj.bias)  # type: ignore[arg-type]
    return network


def _filled(network: RefCut, tensors: dict[str, Tensor], path: Path) -> RefCut:
    wanted = {name: t.shape for name, t in network.state_dict().items()}
    found = {name: t.shape for name, t in tensors.items()}
    if wanted != found:
        wrong = {name for name, _ in wanted.items() ^ found.items()}
        raise WeightsError(
            f"{path} does not fit the network: {len(wrong)} tensors are missing, unknown or of another shape, "
            f"such as {min(wrong)}",
            hint="use files written by the same version of this code",
        )
    network.load_state_dict({name: t.float() for name, t in tensors.items()})
    return network.eval()


def _is_base(name: str) -> bool:
    return name.startswith(BASE_PREFIXES)


def _save(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str]) -> None:
    with atomic_write(path) as temporary:
        save_file(tensors, temporary, metadata=metadata)


def _load(path: Path, expected_format: str | None) -> tuple[dict[str, Tensor], dict[str, str]]:
    if not path.is_file():
        raise WeightsError(
            f"{path} is missing", hint="check the path, or `git checkout` the weights that ship"
        )
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        if expected_format is not None and metadata.get("format") != expected_format:
            found = metadata.get("format", "safetensors file of something else")
            raise WeightsError(
                f"{path} is a {found}, not a {expected_format}", hint=_what_is_read(expected_format)
            )
        return load_file(path), metadata
    except SafetensorError as error:
        if path.suffix in {".pth", ".pt", ".pkl", ".ckpt"}:
            hint = "`python -m model convert` makes one of a SimpleClick checkpoint; other pickles are never read"
            raise WeightsError(f"{path} is no safetensors file", hint=hint) from error
        raise WeightsError(f"{path} is damaged ({error})", hint="restore the file") from error


def _what_is_read(expected_format: str) -> str:
    if expected_format == NETWORK_FORMAT:
        return (
            f"name the folder if the weights are two files ({BASE_FILE}, {VERSION_FILE}), "
            "otherwise a file of `python -m model convert`"
        )
    return "only files written by model.checkpoints.weights are read"
