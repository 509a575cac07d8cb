"""The weights of one version on disk: names and hashes, without loading anything (and without torch)."""

from __future__ import annotations

import hashlib
from pathlib import Path

from model.errors import WeightsError

SHIPPED_DIR = Path(__file__).parent / "weights" / "s14"
BASE_FILE = "base.safetensors"
VERSION_FILE = "version.safetensors"


def file_digest(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def have_one_base(first: Path, second: Path) -> bool:
    """Whether two folders hold versions with one frozen encoder, and so of one shape; never for single files."""
    bases = [folder / BASE_FILE for folder in (first, second)]
    return all(base.is_file() for base in bases) and file_digest(bases[0]) == file_digest(bases[1])


def version_name(directory: Path = SHIPPED_DIR) -> str:
    """Short stable name of the weights in a folder or single file, from their content: its name and 8 hex digits.

    Raises WeightsError when a file is missing.
    """
    if directory.is_file():
        return f"{directory.stem}-{file_digest(directory)[:8]}"
    for name in (BASE_FILE, VERSION_FILE):
        if not (directory / name).is_file():
            raise WeightsError(
                f"{directory / name} is missing",
                hint="check REFCUT_MODEL_DIR, or restore the weights that ship",
            )
    return f"{directory.name}-{file_digest(directory / VERSION_FILE)[:8]}"
