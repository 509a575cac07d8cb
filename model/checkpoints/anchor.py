"""The weights that a version must not wander away from, and is averaged with."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from model.checkpoints.version_folder import can_be_averaged
from model.checkpoints.weights import load_network
from model.errors import WeightsError
from model.network.refcut import RefCut


def anchor_weights(parent: RefCut, parent_dir: Path, anchor_dir: Path | None) -> dict[str, Tensor]:
    """What training changes, by name, as it is in `anchor_dir`; None = in the parent.

    Raises WeightsError for an origin that cannot be read, or has another base or shape than the parent: the average would
    be no network that anybody has trained.
    """
    origin = parent
    if anchor_dir is not None:
        if not can_be_averaged(parent_dir, anchor_dir):
            raise WeightsError(
                f"{anchor_dir} has another base or shape than {parent_dir}",
                hint="average with weights that it comes from",
            )
        origin = load_network(anchor_dir)
    return {name: p.detach().clone() for name, p in origin.named_parameters() if p.requires_grad}
