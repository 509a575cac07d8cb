"""New parts for a trained network: a reader, candidate masks, an input for boxes. Training starts from the result.

Where nothing else is said, the network answers as before until the new parts are trained.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Literal

import torch
from torch.nn import functional as F

from model.errors import WeightsError
from model.network.reader import Reader
from model.network.refcut import RefCut


def with_candidates(network: RefCut) -> RefCut:
    """A network that proposes three masks and has an input for boxes.

    Args:
        network: A network with similarity channels. Its mask becomes the one that is meant.
    """
    config = dataclasses.replace(network.config, candidates=3, box_input=True)
    if config == network.config:
        return network
    grown = RefCut(config)
    tensors = network.state_dict()
    name = "patch_embed_coords.proj.weight"
    missing = config.click_map_channels - tensors[name].shape[1]
    tensors[name] = F.pad(tensors[name], (0, 0, 0, 0, 0, missing))
    grown.load_state_dict(grown.state_dict() | tensors)
    return grown.train(network.training)


def with_reader(network: RefCut, reader: Reader, *, replaces_similarity: bool = False) -> RefCut:
    """A network with a trained reader in it.

    Args:
        network: A network with similarity channels; if it has a reader, that one is replaced.
        reader: Its weights are copied.
        replaces_similarity: Whether the reader's own space takes the place of the network's learned similarity. The
            output changes then; otherwise the new channels change nothing until they are trained. What candidate masks
            are worth is learned anew where the channels differ.
    """
    config = dataclasses.replace(network.config, reader=reader.config)
    if replaces_similarity:
        config = dataclasses.replace(config, learned_similarity_dim=0)
    grown = RefCut(config)
    tensors = {
        name: value
        for name, value in network.state_dict().items()
        if not name.startswith("reader.")
        and (config.learned_similarity_dim or not name.startswith("likeness."))
    }
    before, after = network.similarity_channels, grown.similarity_channels
    for name in ("similarity_in.fc1.weight", "similarity_out.fc1.weight"):
        weight, wanted = tensors[name], grown.state_dict()[name].shape[1]
        inserted = weight.new_zeros(len(weight), after - before)
        appended = weight.new_zeros(len(weight), wanted - weight.shape[1] - (after - before))
        tensors[name] = torch.cat([weight[:, :before], inserted, weight[:, before:], appended], dim=1)
    fresh = grown.state_dict()
    tensors = {name: value for name, value in tensors.items() if value.shape == fresh[name].shape}
    grown.load_state_dict(fresh | reader.state_dict(prefix="reader.") | tensors)
    return grown.train(network.training)


GrowingPart = Literal["blocks", "refine_blocks", "affinity_heads"]
"""Fields of `ReaderConfig` that a trained reader can have more of."""


def grown_reader(reader: Reader, shape: Mapping[GrowingPart, int]) -> Reader:
    """A deeper reader, or one with an affinity; it answers as before until it is trained.

    Args:
        reader: Its weights are copied; it is returned if it has the shape already.
        shape: What is to be larger.

    Raises:
        WeightsError: If something would be smaller, or another affinity than the reader has.
    """
    config = dataclasses.replace(reader.config, **{str(part): number for part, number in shape.items()})
    if config == reader.config:
        return reader
    before = reader.state_dict()
    tensors = Reader(reader.embed.in_features, config).state_dict()
    if any(name not in tensors or tensors[name].shape != value.shape for name, value in before.items()):
        raise WeightsError(
            f"a reader of {reader.config} cannot become one of {config}", hint="name larger numbers"
        )
    for name in tensors.keys() - before.keys():
        if name.rpartition(".")[2].startswith("scale"):  # what a new block adds
            tensors[name] = torch.zeros_like(tensors[name])
    grown = Reader(reader.embed.in_features, config)
    grown.load_state_dict(tensors | before)
    return grown.train(reader.training)
