"""A small snapshot of drawn fish, and a parent version of a tiny network to learn from it."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import torch

from model.checkpoints.weights import BASE_FILE, VERSION_FILE, load_network, save_base, save_version
from model.data.snapshot import (
    Snapshot,
    SnapshotMask,
    SnapshotObject,
    SnapshotReference,
    write_snapshot,
)
from model.finetuning.config import FineTuneSettings
from model.masks import encode
from model.network.config import NetworkConfig
from tests.support.synthetic import TINY_FROZEN, drawn_objects, random_network

QUICK = FineTuneSettings(
    steps=4,
    size_px=56,
    groups=2,
    warmup_steps=1,
    loader_workers=0,
    checkpoint_minutes=1000,
    min_checked_images=1000,
    bfloat16=False,
)


def fish_snapshot(folder: Path, train: int = 4, holdout: int = 5, *, clicked: bool = True) -> Snapshot:
    """Two labels on every picture. The first picture to train on is the reference of both."""
    images = folder / "images"
    images.mkdir(parents=True)
    annotated_objects = [
        SnapshotObject(
            annotated_object.image_path.name, 128, 96, "1", [_mask(name, m, clicked) for name, m in parts]
        )
        for annotated_object in drawn_objects(images, train + holdout)
        for parts in [sorted(annotated_object.masks().items())]
    ]
    (images / "parts.json").unlink()
    references = [
        SnapshotReference(mask.label, annotated_objects[0].file_name, mask.rle, None, "0123456789ab")
        for mask in annotated_objects[0].masks
    ]
    return write_snapshot(
        folder,
        train=annotated_objects[:train],
        holdout=annotated_objects[train:],
        references=references,
        made_of={},
    )


def _mask(label: str, mask_hw: np.ndarray, clicked: bool) -> SnapshotMask:
    """With a session of two clicks: one in the middle of the mask, a negative one in the image's corner."""
    row, col = (float(values.mean()) for values in np.nonzero(mask_hw))
    sessions = [[[row, col, 1], [2.0, 3.0, 0]]] if clicked else []
    return SnapshotMask(label, encode(mask_hw), sessions)


def with_another_encoder(version_dir: Path, folder: Path) -> Path:
    """Weights of the same shape on another base."""
    network = load_network(version_dir)
    with torch.no_grad():
        for value in network.parameters():
            value += 0.1
    folder.mkdir()
    save_base(network, folder / BASE_FILE)
    save_version(network.state_dict(), network.config, folder / BASE_FILE, folder / VERSION_FILE)
    return folder


def with_another_shape(version_dir: Path, folder: Path) -> Path:
    """Weights on the same base without a learned similarity."""
    network = random_network(dataclasses.replace(TINY_FROZEN, learned_similarity_dim=0))
    folder.mkdir()
    shutil.copy(version_dir / BASE_FILE, folder / BASE_FILE)
    save_version(network.state_dict(), network.config, folder / BASE_FILE, folder / VERSION_FILE)
    return folder


def parent_version(folder: Path, config: NetworkConfig = TINY_FROZEN) -> Path:
    """Write a version of a tiny network with random weights, and return its folder."""
    network = random_network(config)
    save_base(network, folder / BASE_FILE)
    save_version(network.state_dict(), network.config, folder / BASE_FILE, folder / VERSION_FILE)
    return folder
