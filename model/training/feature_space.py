"""How `LearnedSimilarity` begins: it joins a network that was trained without it, and learns alone before the rest does.

Alone it sees a step's target and reference through the frozen encoder only, no clicks, which is quick: on 150 photographs
each of cars and people it found parts of other photographs by their likeness with IoU .47 and .42 (best threshold) after
600 steps, where the better of the untouched channels reached .40 and .38.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import cv2
import numpy as np
import torch
from numpy.random import default_rng
from torch import Tensor, nn
from tqdm import tqdm

from model.data.scenes import Scene
from model.network.encoder import patch_tokens
from model.network.prompts import area_weights
from model.network.refcut import RefCut, normalise
from model.network.similarity import LEARNED_CHANNELS, REFERENCE_CHANNELS
from model.training.batches import Batch
from model.training.losses import bce_and_dice
from model.training.trainer import references

LEARNING_RATE = 2e-3
FIRST_READING = (5.0, 5.0, -5.0, -5.0, -5.0, -5.0)
"""Like the positive mask is for, like anything else against."""


def with_learned_similarity(network: RefCut, learned_similarity_dim: int) -> RefCut:
    """The same network with a fresh `LearnedSimilarity`, whose channels change nothing yet. It must have similarity
    channels and no likeness."""
    grown = RefCut(dataclasses.replace(network.config, learned_similarity_dim=learned_similarity_dim))
    tensors = network.state_dict()
    for name in ("similarity_in.fc1.weight", "similarity_out.fc1.weight"):
        reference, clicks = tensors[name].split(
            [REFERENCE_CHANNELS, tensors[name].shape[1] - REFERENCE_CHANNELS], 1
        )
        tensors[name] = torch.cat(
            [reference, reference.new_zeros(len(reference), LEARNED_CHANNELS), clicks], dim=1
        )
    grown.load_state_dict(grown.likeness.state_dict(prefix="likeness.") | tensors)
    return grown.train(network.training)


def fit_learned_similarity(
    network: RefCut, steps: Iterator[list[Batch]], total: int, device: torch.device
) -> float:
    """Trains `network.likeness` alone through `total` steps: its channels, weighted and summed, must show the target.

    Returns the mean loss of the last tenth.
    """
    network.to(device).eval()
    reading = nn.Linear(LEARNED_CHANNELS, 1).to(device)
    with torch.no_grad():
        reading.weight.copy_(torch.tensor([FIRST_READING]))
        reading.bias.zero_()
    optimiser = torch.optim.Adam([*network.likeness.parameters(), *reading.parameters()], lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, total)
    losses: list[float] = []
    for batches in tqdm(steps, total=total, desc="likeness", mininterval=5):
        loss = torch.stack([_loss(network, reading, batch, device) for batch in batches]).mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
        losses.append(loss.item())
    last = losses[-max(total // 10, 1) :]
    return sum(last) / len(last)


def _loss(network: RefCut, reading: nn.Linear, batch: Batch, device: torch.device) -> Tensor:
    images = batch.images.to(device).float() / 255
    views = network.encode_image(images)
    assert views.comparison is not None
    reference = references(network, batch, images, views.comparison)
    named = (reference.positive.sum(dim=1) > 0).nonzero()[:, 0]
    if not len(named):
        named = torch.arange(len(batch.targets), device=device)
    target = views.comparison[batch.target_view.to(device)]
    channels = network.likeness(target[named], reference.repeated(named))
    wanted = area_weights(batch.targets.to(device)[named], views.grid)
    return bce_and_dice(reading(channels).transpose(1, 2)[..., None], wanted[:, None, :, None])


PHOTOS = 120
SIZE_PX = 336


@torch.no_grad()
def measure_comparison_statistics(network: RefCut, scenes: list[Scene], seed: int) -> None:
    """Fills the network's `comparison_mean` and `comparison_std` (blocks, C) from training photographs."""
    rng = default_rng(seed)
    chosen = rng.choice(len(scenes), size=min(PHOTOS, len(scenes)), replace=False)
    collected: list[list[torch.Tensor]] = [[] for _ in network.config.comparison_blocks]
    for number in chosen:
        pixels = cv2.resize(scenes[number].image(), (SIZE_PX, SIZE_PX), interpolation=cv2.INTER_AREA)
        image = torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)[None].float() / 255
        grid = network.backbone.grid_of(image)
        tokens = network.backbone.add_positions(network.backbone.embed_patches(normalise(image)), grid)
        for index in range(network.config.depth):
            tokens = network.backbone.run_block(index, tokens, grid)
            if index in network.config.comparison_blocks:
                place = network.config.comparison_blocks.index(index)
                collected[place].append(patch_tokens(tokens, network.config)[0])
    for place, values in enumerate(collected):
        joined = torch.cat(values)
        # Rounded to what the base file stores, so that training and serving compare in the same space.
        network.comparison_mean[place] = joined.mean(dim=0).half().float()
        network.comparison_std[place] = joined.std(dim=0).half().float()
