"""The files of a version: names and hashes, without loading weights. Imports no torch, so the web process can use it.

A version is a folder with `BASE_FILE` (the frozen encoder, shared by many versions) and `VERSION_FILE` (what training
changed), or a single file with a whole network (in the folder of a training: `NETWORK_FILE`).
"""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

from safetensors import SafetensorError, safe_open

from model.errors import WeightsError
from model.files import atomic_write
from model.network.config import NetworkConfig

SHIPPED_DIR = Path(__file__).parents[1] / "weights" / "s14"
BASE_FILE = "base.safetensors"
VERSION_FILE = "version.safetensors"
NETWORK_FILE = "network.safetensors"
ORIGIN_KEY = "network_sha256"
"""Key in the metadata of a base file: SHA-256 of the whole network whose encoder it holds."""


def file_digest(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def copy_base(parent_dir: Path, folder: Path) -> None:
    """Give a child version the base file of its parent, byte for byte, because a version names its base by hash.

    Args:
        parent_dir: Folder of the parent version.
        folder: Folder of the child. Its base file is replaced atomically.
    """
    with atomic_write(folder / BASE_FILE) as temporary:
        shutil.copyfile(parent_dir / BASE_FILE, temporary)


def whole_network_file(path: Path) -> Path | None:
    """The file of a network that is stored as one file.

    Args:
        path: The file itself, or the folder of a training that has written one.

    Returns:
        None for the folder of a version with a frozen base, and for a folder without weights.
    """
    if path.is_file() or path.suffix == ".safetensors":
        return path
    whole = path / NETWORK_FILE
    return whole if whole.is_file() and not (path / BASE_FILE).is_file() else None


def can_be_averaged(first: Path, second: Path) -> bool:
    """Whether two networks have the same shape and the same frozen encoder.

    Args:
        first: Folder of a version, or a whole network. A version that was fine-tuned from a whole network has its
            encoder.
        second: Another one.

    Raises:
        WeightsError: If a file cannot be read.
    """
    origins = [_encoder_origin(path) for path in (first, second)]
    if None in origins or origins[0] != origins[1]:
        return False
    return _shape(first) == _shape(second)


def _encoder_origin(path: Path) -> str | None:
    """SHA-256 that two networks with the same frozen encoder share; None if there are no weights.

    That of the whole network which the encoder comes from, or of the base file if it comes from none.
    """
    whole = whole_network_file(path)
    if whole is not None:
        return file_digest(whole) if whole.is_file() else None
    base = path / BASE_FILE
    return (_metadata(base).get(ORIGIN_KEY) or file_digest(base)) if base.is_file() else None


def _shape(path: Path) -> NetworkConfig:
    """Shape of a network, from its file; fields that an older file does not name have defaults. Raises WeightsError."""
    return NetworkConfig.from_json(
        _metadata(whole_network_file(path) or path / VERSION_FILE).get("config", "")
    )


def _metadata(path: Path) -> dict[str, str]:
    """Raises WeightsError for a file that cannot be read."""
    try:
        with safe_open(path, framework="np") as file:
            return file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{path} cannot be read ({error})", hint="restore the file") from error


def version_name(directory: Path = SHIPPED_DIR) -> str:
    """Short, stable name of stored weights: the name of the folder or file, and 8 hex digits of the content.

    Raises:
        WeightsError: If a file is missing.
    """
    whole = whole_network_file(directory)
    if whole is not None and whole.is_file():
        return f"{directory.stem}-{file_digest(whole)[:8]}"
    for name in (BASE_FILE, VERSION_FILE):
        if not (directory / name).is_file():
            raise WeightsError(
                f"{directory / name} is missing",
                hint="check REFCUT_MODEL_DIR, or restore the weights that ship",
            )
    return f"{directory.name}-{file_digest(directory / VERSION_FILE)[:8]}"
