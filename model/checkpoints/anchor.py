"""The anchor: the weights that a fine-tuned version is averaged with, so that it stays close to them.

Averaging with the weights before a fine-tuning keeps what they were good at (Wortsman et al., Robust fine-tuning of
zero-shot models, CVPR 2022: WiSE-FT).
"""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from model.checkpoints.version_folder import can_be_averaged
from model.checkpoints.weights import load_network
from model.errors import WeightsError
from model.network.refcut import RefCut


def anchor_weights(parent: RefCut, parent_dir: Path, anchor_dir: Path | None) -> dict[str, Tensor]:
    """The trainable tensors of the anchor, by name.

    Args:
        parent: The network that is trained.
        parent_dir: Its folder.
        anchor_dir: Folder of the anchor; None means the parent itself.

    Raises:
        WeightsError: If the anchor cannot be read, or has another base or shape than the parent. An average of such
            networks would be meaningless.
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
