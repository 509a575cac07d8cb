"""Weights on disk, as safetensors only: reading, writing, and sharing a base in memory.

    file                 content
    base.safetensors     the frozen encoder and its statistics; written once, shared by versions
    version.safetensors  what training changes; names its base by SHA-256
    ANY.safetensors      a whole network in SimpleClick's shape, as `python -m model convert` writes

A network with a frozen base is a folder with the first two files. Any other network is one file.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from model.checkpoints.version_folder import (
    BASE_FILE,
    ORIGIN_KEY,
    SHIPPED_DIR,
    VERSION_FILE,
    file_digest,
    version_name,
    whole_network_file,
)
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
PROMPT_SEED = 0
"""Prompt MLPs that a file lacks are drawn with this seed, so that all who load the file get the same network."""
VERSION_FORMAT = "refcut-version-1"
DIFFERENCES_FORMAT = "refcut-version-2"
"""As `VERSION_FORMAT`, but the large matrices of the tuned blocks are stored as differences to the frozen ones, in 8 bits
with a scale per row (`SCALE_SUFFIX`). That makes room for a reader in a file of the same size."""
SCALE_SUFFIX = ".row_scale"
MIN_DIFFERENCE_VALUES = 10_000
NETWORK_FORMAT = "refcut-network-1"
PROMPT_PREFIX = "rpg."
CLICK_EMBEDDING_STD = 0.01
"""DINOv2's token stream is small; a click embedding at the usual scale would drown it."""


def save_base(network: RefCut, path: Path, whole_network: Path | None = None) -> None:
    """Write the tensors that training never changes, in half precision.

    Args:
        network: The network.
        path: The file to write.
        whole_network: The file that the network was read from, if it is stored as one. The base file names it by hash
            (`ORIGIN_KEY`), so that all versions with this encoder are known to share it.
    """
    tensors = {name: t.half().contiguous() for name, t in network.state_dict().items() if _is_base(name)}
    metadata = {"format": BASE_FORMAT, "config": network.config.to_json()}
    if whole_network is not None:
        metadata[ORIGIN_KEY] = file_digest(whole_network)
    _save(tensors, path, metadata)


def save_version(tensors: dict[str, Tensor], config: NetworkConfig, base_path: Path, path: Path) -> None:
    """Write the tensors that training changes, in half precision.

    With a reader, the tuned blocks are written as 8-bit differences to the frozen ones.

    Args:
        tensors: Tensors by name; those of the base are left out.
        config: Shape of the network.
        base_path: The base file that the version belongs to. The version file stores its hash.
        path: The file to write.
    """
    values = {name: t.detach().cpu() for name, t in tensors.items() if not _is_base(name)}
    stored: dict[str, Tensor] = {}
    if config.reader is not None:
        base, _ = _load(base_path, BASE_FORMAT)
        for name in [name for name in values if _frozen_twin(name, config) in base]:
            if values[name].dim() == 2 and values[name].numel() >= MIN_DIFFERENCE_VALUES:
                difference = values.pop(name).float() - base[_frozen_twin(name, config)].float()
                scale = (difference.abs().amax(dim=1, keepdim=True) / 127).clamp_min(1e-12)
                stored[name] = torch.round(difference / scale).to(torch.int8)
                stored[name + SCALE_SUFFIX] = scale
    stored |= {name: value.half().contiguous() for name, value in values.items()}
    form = VERSION_FORMAT if config.reader is None else DIFFERENCES_FORMAT
    metadata = {"format": form, "config": config.to_json(), "base_sha256": file_digest(base_path)}
    _save(stored, path, metadata)


def save_network(tensors: dict[str, Tensor], config: NetworkConfig, path: Path) -> None:
    """Write a whole network as one file, in the precision of its tensors.

    Args:
        tensors: Tensors by name. Those of the prompt MLPs may be missing: the network is then SimpleClick, and references
            change nothing.
        config: Shape of the network.
        path: The file to write.
    """
    values = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    _save(values, path, {"format": NETWORK_FORMAT, "config": config.to_json()})


def load_network(path: Path = SHIPPED_DIR, relative: RefCut | None = None) -> RefCut:
    """Load a network in evaluation mode.

    Args:
        path: Folder with base and version, or a whole network: its file, or the folder of the training that wrote it.
        relative: A loaded network that may have tensors in common, such as the frozen encoder. Both networks share those
            that are equal in memory, on the device of `relative`. Not used for a whole network.

    Raises:
        WeightsError: If a file is missing, damaged, of another format, or belongs to another base.

    Example:
        The weights that ship:

        >>> from model import load_network
        >>> network = load_network()
        >>> network.config.patch_px, network.config.similarity
        (14, True)
    """
    whole = whole_network_file(path)
    if whole is not None:
        tensors, metadata = _load(whole, NETWORK_FORMAT)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(PROMPT_SEED)
            network = RefCut(NetworkConfig.from_json(metadata.get("config", "")))
        without_prompts = not any(name.startswith(PROMPT_PREFIX) for name in tensors)
        own = network.rpg.state_dict(prefix=PROMPT_PREFIX) if without_prompts else {}
        return _filled(network, own | tensors, whole)
    base_path, version_path = path / BASE_FILE, path / VERSION_FILE
    base, _ = _load(base_path, BASE_FORMAT)
    version, version_meta = _load(version_path, VERSION_FORMAT, DIFFERENCES_FORMAT)
    if version_meta.get("base_sha256") != file_digest(base_path):
        raise WeightsError(
            f"{version_path} was trained on another base than {base_path}",
            hint="put the base file that belongs to it beside it",
        )
    config = NetworkConfig.from_json(version_meta.get("config", ""))
    tensors = base | _restored(version, base, config)
    if relative is None:
        return _filled(RefCut(config), tensors, version_path)
    network = _like(relative) if config == relative.config else RefCut(config)
    return _filled(network, _shared(tensors, relative), version_path, in_place=False)


def _like(network: RefCut) -> RefCut:
    """Another network with the very same tensors. To make one on torch's device "meta" would import torch's compiler."""
    tensors = (*network.parameters(), *network.buffers())
    return copy.deepcopy(network, {id(tensor): tensor for tensor in tensors})


def _shared(tensors: dict[str, Tensor], relative: RefCut) -> dict[str, Tensor]:
    """Tensors in float32. Those that are equal in `relative` become its own, on its device."""
    others = relative.state_dict()

    def shared(name: str, tensor: Tensor) -> Tensor:
        other = others.get(name)
        is_equal = other is not None and torch.equal(other.cpu(), tensor)
        return other if other is not None and is_equal else tensor

    return {name: shared(name, tensor.float()) for name, tensor in tensors.items()}


def initial_network(preset: str, encoder_path: Path) -> RefCut:
    """Make a network that has not been trained.

    Args:
        preset: Name in `model.network.config.PRESETS`.
        encoder_path: Safetensors file with encoder weights, named as by timm. All other tensors are fresh.

    Raises:
        WeightsError: If the file is missing or damaged.
    """
    config = PRESETS[preset]
    encoder, _ = _load(encoder_path)
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


def _filled(network: RefCut, tensors: dict[str, Tensor], path: Path, *, in_place: bool = True) -> RefCut:
    """Gives a network its tensors: copies in float32, or `in_place` false the very ones."""
    wanted = {name: t.shape for name, t in network.state_dict().items()}
    found = {name: t.shape for name, t in tensors.items()}
    if wanted != found:
        wrong = {name for name, _ in wanted.items() ^ found.items()}
        raise WeightsError(
            f"{path} does not fit the network: {len(wrong)} tensors are missing, unknown or of another shape, "
            f"such as {min(wrong)}",
            hint="use files written by the same version of this code",
        )
    values = {name: t.float() for name, t in tensors.items()}
    network.load_state_dict(values, assign=not in_place)
    return network.eval()


def _restored(
    version: dict[str, Tensor], base: dict[str, Tensor], config: NetworkConfig
) -> dict[str, Tensor]:
    """The tensors of a version file, with differences added to the frozen tensors that they belong to."""
    restored = {name: t for name, t in version.items() if not name.endswith(SCALE_SUFFIX)}
    for name, scale in ((n, t) for n, t in version.items() if n.endswith(SCALE_SUFFIX)):
        own = name.removesuffix(SCALE_SUFFIX)
        twin = _frozen_twin(own, config)
        if own in restored and twin in base:
            restored[own] = base[twin].float() + restored[own].float() * scale
    return restored


def _frozen_twin(name: str, config: NetworkConfig) -> str:
    """The frozen encoder's tensor that a tuned block's tensor started from; empty for any other tensor."""
    kind, _, rest = name.partition(".")
    block, _, own = rest.partition(".")
    return f"backbone.blocks.{config.fusion_block + int(block)}.{own}" if kind == "click_blocks" else ""


def _is_base(name: str) -> bool:
    return name.startswith(BASE_PREFIXES)


def _save(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str]) -> None:
    with atomic_write(path) as temporary:
        save_file(tensors, temporary, metadata=metadata)
        _sort_metadata(temporary)


def _sort_metadata(path: Path) -> None:
    """Sort the metadata of a safetensors file in place.

    The library writes them in random order. Equal weights must be equal files: versions are named by their hashes, and
    the model store keeps a base once for all versions that share it.
    """
    with path.open("r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        file.seek(8)
        file.write(json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode().ljust(length))


def _load(path: Path, *expected_formats: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    if not path.is_file():
        raise WeightsError(
            f"{path} is missing", hint="check the path, or `git checkout` the weights that ship"
        )
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        if expected_formats and metadata.get("format") not in expected_formats:
            found = metadata.get("format", "safetensors file of something else")
            raise WeightsError(
                f"{path} is a {found}, not a {expected_formats[0]}", hint=_what_is_read(expected_formats[0])
            )
        return load_file(path), metadata
    except SafetensorError as error:
        if path.suffix in {".pth", ".pt", ".pkl", ".ckpt"}:
            hint = (
                "`python -m model convert` makes one of a SimpleClick checkpoint; other pickles are not read"
            )
            raise WeightsError(f"{path} is not a safetensors file", hint=hint) from error
        raise WeightsError(f"{path} is damaged ({error})", hint="restore the file") from error


def _what_is_read(expected_format: str) -> str:
    if expected_format == NETWORK_FORMAT:
        return (
            f"name the folder if the weights are two files ({BASE_FILE}, {VERSION_FILE}), "
            "otherwise a file of `python -m model convert`"
        )
    return "only files written by model.checkpoints.weights are read"
