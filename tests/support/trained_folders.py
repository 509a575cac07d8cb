"""Folders as a training run leaves them, of a network that loads in no time."""

from __future__ import annotations

from pathlib import Path

import torch

from model.checkpoints.weights import BASE_FILE, VERSION_FILE, save_base, save_version
from tests.support.synthetic import TINY_FROZEN, random_network

PARENT = "tiny-00000000"


def trained_folder(folder: Path, seed: int = 0) -> Path:
    """Weights that differ with the seed, on one base; and a picture."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    save_base(random_network(TINY_FROZEN), folder / BASE_FILE)
    torch.manual_seed(0)
    tensors = random_network(TINY_FROZEN, seed).state_dict()
    save_version(tensors, TINY_FROZEN, folder / BASE_FILE, folder / VERSION_FILE)
    (folder / "curves.png").write_bytes(b"a picture")
    return folder


def version_metadata(**more: object) -> dict[str, object]:
    """What a trainer publishes with a version."""
    return {"parent": PARENT} | more
