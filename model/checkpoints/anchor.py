"""The anchor: the weights that a fine-tuned version is averaged with, so that it stays close to them.

Averaging with the weights before a fine-tuning keeps what they were good at (Wortsman et al., Robust fine-tuning of
zero-shot models, CVPR 2022: WiSE-FT).
"""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from model.checkpoints.version_folder import (
    BASE_FILE,
    NETWORK_FILE,
    VERSION_FILE,
    can_be_averaged,
    copy_base,
    whole_network_file,
)
from model.checkpoints.weights import load_network, save_network, save_version
from model.errors import WeightsError
from model.network.refcut import RefCut


def anchor_weights(parent: RefCut, parent_dir: Path, anchor_dir: Path | None) -> dict[str, Tensor]:
    """The parameters of the anchor that training changes, by name, the reader's among them.

    Args:
        parent: The network that is trained. Its parameters that training changes require a gradient.
        parent_dir: Its folder, or the file of a whole network.
        anchor_dir: Folder or file of the anchor; None means the parent itself.

    Raises:
        WeightsError: If the anchor cannot be read, or has another base or shape than the parent. An average of such
            networks would be meaningless.
    """
    anchor = parent
    if anchor_dir is not None:
        _check_relation(parent_dir, anchor_dir)
        anchor = load_network(anchor_dir)
    values = dict(anchor.named_parameters())
    return {
        name: values[name].detach().clone()
        for name, p in parent.named_parameters()
        if p.requires_grad or name.startswith("reader.")
    }


def average(first: Path, second: Path, share: float, out: Path) -> None:
    """Write the weighted average of two versions: (1 - share) times the first, share times the second.

    The correction of the expected IoU is averaged, too (`model.cli.calibrate`).

    Args:
        first: Folder of a version, or a whole network (`model.checkpoints.version_folder.whole_network_file`).
        second: Another version with the same shape and base, or another whole network with the same shape. A version that
            was fine-tuned from a whole network has its base, so these two can be averaged as well.
        share: Share of the second version, 0..1.
        out: Folder for the result, neither of the two.

    Raises:
        WeightsError: If a version cannot be read, shape or base differ, or `out` is one of the versions.
    """
    if out.resolve() in (first.resolve(), second.resolve()):
        raise WeightsError(f"{out} is one of the versions to average", hint="name another folder for --out")
    whole = whole_network_file(first), whole_network_file(second)
    if not all(whole):
        _check_relation(second, first)
    begin, end = load_network(first), load_network(second)
    if begin.config != end.config:
        raise WeightsError(
            f"{first} has another shape than {second}", hint="use weights that the network was trained from"
        )
    learned = end.state_dict()
    between = {name: value.lerp(learned[name], share) for name, value in begin.state_dict().items()}
    out.mkdir(parents=True, exist_ok=True)
    if all(whole):
        save_network(between, end.config, out / NETWORK_FILE)
        return
    copy_base(second if whole[0] else first, out)
    save_version(between, end.config, out / BASE_FILE, out / VERSION_FILE)


def _check_relation(version_dir: Path, anchor_dir: Path) -> None:
    """Raise WeightsError if two versions have another base or shape: an average of them would be meaningless."""
    if not can_be_averaged(version_dir, anchor_dir):
        raise WeightsError(
            f"{anchor_dir} has another base or shape than {version_dir}",
            hint="use weights that the version descends from",
        )
