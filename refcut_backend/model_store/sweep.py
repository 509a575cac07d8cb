"""Takes away what a killed trainer left in a store."""

from __future__ import annotations

from collections.abc import Sequence, Set

from refcut_backend.model_store.manifest import MANIFEST_FILE
from refcut_backend.model_store.store_files import PARTIAL, StoreFiles

HALF_FOLDER_S = 3600.0
"""A folder without a manifest is left alone so long: somebody may be writing it."""


def sweep(files: StoreFiles, needed_bases: Set[str], older_than_s: float) -> None:
    """Removes version folders without a manifest, halves of files, and bases other than those with these hashes."""
    for version in files.folders("versions"):
        folder = f"versions/{version}"
        found = files.files(folder)
        if MANIFEST_FILE not in found and _are_old(files, folder, found, older_than_s):
            files.remove(folder)
            continue
        _remove_old(files, folder, [name for name in found if name.endswith(PARTIAL)], older_than_s)
    unneeded = [
        name for name in files.files("bases") if name.removesuffix(".safetensors") not in needed_bases
    ]
    _remove_old(files, "bases", unneeded, older_than_s)


def _remove_old(files: StoreFiles, folder: str, names: Sequence[str], older_than_s: float) -> None:
    for name in names:
        if _are_old(files, folder, [name], older_than_s):
            files.remove(f"{folder}/{name}")


def _are_old(files: StoreFiles, folder: str, names: Sequence[str], older_than_s: float) -> bool:
    """Whether there are files, and none of them is young."""
    try:
        return bool(names) and all(files.age_s(f"{folder}/{name}") >= older_than_s for name in names)
    except FileNotFoundError:
        return False
