"""Whether files are weights at all, looked at without torch: nothing but safetensors is ever taken."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError, safe_open

from model.checkpoints.version_folder import BASE_FILE, VERSION_FILE, file_digest
from refcut_backend.errors import ModelStoreError

_HINT = "only folders written by model.cli.finetune or model.cli.train are taken"


def check_weights(folder: Path) -> tuple[str, str]:
    """SHA-256 of the base and of the version in a folder. Raises ModelStoreError when they are no such weights."""
    _metadata(folder / BASE_FILE)
    named = _metadata(folder / VERSION_FILE).get("base_sha256")
    base, version = file_digest(folder / BASE_FILE), file_digest(folder / VERSION_FILE)
    if named != base:
        raise ModelStoreError(f"{VERSION_FILE} was trained on another base", hint=_HINT)
    return base, version


def _metadata(path: Path) -> dict[str, str]:
    """Of a whole safetensors file."""
    try:
        with safe_open(path, framework="numpy") as file:
            return dict(file.metadata() or {})
    except FileNotFoundError:
        raise ModelStoreError(f"{path.name} is missing", hint=_HINT) from None
    except SafetensorError as error:
        raise ModelStoreError(f"{path.name} is no whole safetensors file ({error})", hint=_HINT) from None
