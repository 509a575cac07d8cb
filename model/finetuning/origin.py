"""The weights that a fine-tuning must not wander away from: its outcome is averaged with them."""

from __future__ import annotations

import logging
from pathlib import Path

import torch
from torch import Tensor

from model.network.refcut import RefCut
from model.weights import load_network

log = logging.getLogger(__name__)


def origin_weights(parent: RefCut, origin_dir: Path | None) -> dict[str, Tensor]:
    """What training changes, as it is in the folder's network, by name; as it is in the parent when there is none.

    An average of two networks is one only if they have a common origin: where the folder's has another shape or another
    frozen encoder (the project's version descends from weights that shipped earlier), the parent's are taken as well.
    Raises WeightsError.
    """
    own = dict(parent.named_parameters())
    others = own
    if origin_dir is not None:
        origin = load_network(origin_dir)
        if origin.config == parent.config and _is_same_encoder(parent, origin):
            others = dict(origin.named_parameters())
        else:
            log.warning("not averaged with the shared model", extra={"problem": "it is of another kind"})
    return {name: others[name].detach().clone() for name, value in own.items() if value.requires_grad}


def _is_same_encoder(first: RefCut, second: RefCut) -> bool:
    frozen = {name: value for name, value in first.named_parameters() if not value.requires_grad}
    theirs = dict(second.named_parameters())
    return all(torch.equal(value, theirs[name]) for name, value in frozen.items())
