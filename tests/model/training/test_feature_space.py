"""A learned similarity is added to a trained network without changing its masks, and is trained before the rest."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch

from model.network.refcut import RefCut
from model.training.batches import Batches, Part
from model.training.config import Stage, TrainConfig
from model.training.feature_space import fit_learned_similarity, with_learned_similarity
from model.training.sampling import SourcedObjects, make_sampler
from tests.support.synthetic import TINY_FROZEN, drawn_objects, random_network

WITHOUT = dataclasses.replace(TINY_FROZEN, learned_similarity_dim=0)
CPU = torch.device("cpu")


@torch.no_grad()
def logits(network: RefCut) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    image, other = torch.rand(2, 1, 3, 56, 56, generator=generator)
    positive = torch.zeros(1, 1, 56, 56)
    positive[..., :28, :28] = 1
    coords = torch.zeros(1, 3, 56, 56)
    coords[:, 1, 20:30, 20:30] = 1
    features = network.encode_image(image)
    reference = network.encode_reference(other, positive, 1 - positive)
    return network.segment(features, coords, network.prepare_reference(features, reference)).logits


def test_a_network_that_gains_a_likeness_computes_what_it_did() -> None:
    parent = random_network(WITHOUT)
    torch.testing.assert_close(logits(with_learned_similarity(parent, 8)), logits(parent))


def steps(folder: Path, count: int) -> Batches:
    stage = Stage(size_px=112, steps=count, groups=2)
    config = TrainConfig(preset="s14", sources=[], stages=[stage])
    sampler = make_sampler([SourcedObjects(drawn_objects(folder, 6), 1.0)], TINY_FROZEN, config)
    return Batches(sampler, stage, 0, 0, Part())


def test_fitting_changes_the_likeness_alone_and_finds_targets_better(tmp_path: Path) -> None:
    network = random_network(TINY_FROZEN)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    batches = steps(tmp_path, 60)
    first = fit_learned_similarity(network, iter(batches[n] for n in range(6)), 6, CPU)
    last = fit_learned_similarity(network, iter(batches[n] for n in range(60)), 60, CPU)
    assert last < first
    after = network.state_dict()
    assert {name for name in before if not torch.equal(before[name], after[name])} == {
        "likeness.project.weight"
    }
