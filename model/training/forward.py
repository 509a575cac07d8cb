"""A batch through the network as annotators use it: some clicks on its own mistakes, then the pass that learns."""

from __future__ import annotations

import torch
from numpy.random import Generator
from torch import Tensor
from torch.nn import functional as F

from model.data.click_sampling import add_next_clicks
from model.network.click_maps import disk_maps
from model.network.prompts import ReferenceTokens
from model.network.refcut import RefCut
from model.training.batches import Batch


def click_through(network: RefCut, batch: Batch, rounds: int, rng: Generator, device: torch.device) -> Tensor:
    """Logits (T, 1, S, S) after `rounds` further clicks. The network is in evaluation mode while it is clicked on."""
    size_px = batch.images.shape[-1]
    network.train()
    images = batch.images.to(device).float() / 255
    views = network.encode_image(images)
    features = views.repeated(batch.target_view.to(device))
    prepared = network.prepare_reference(features, references(network, batch, images, views.comparison))
    table = batch.clicks.clone()
    previous = torch.zeros(len(table), 1, size_px, size_px, device=device)
    wanted = batch.targets[:, 0].numpy()
    for number in range(1, rounds + 1):
        network.eval()
        with torch.no_grad():
            logits = network.segment(features, _coords(table, previous), prepared)
            previous = torch.sigmoid(_upsample(logits.float(), size_px))
        add_next_clicks(table, wanted, previous[:, 0].cpu().numpy(), number, rng)
    network.train()
    return _upsample(network.segment(features, _coords(table, previous), prepared), size_px)


def references(network: RefCut, batch: Batch, images: Tensor, comparison: Tensor | None) -> ReferenceTokens:
    """Tokens of each target's reference; views that are nobody's reference are not encoded for it."""
    view = batch.reference_view.to(images.device)
    if comparison is None:
        used, view = torch.unique(view, return_inverse=True)
        comparison = network.encode_reference(images[used], None, None).tokens
    return ReferenceTokens(
        comparison[view], batch.positive.to(images.device), batch.negative.to(images.device)
    )


def _coords(table: Tensor, previous: Tensor) -> Tensor:
    size_px = previous.shape[-1]
    return torch.cat([previous, disk_maps(table.to(previous.device), size_px, size_px)], dim=1)


def _upsample(logits: Tensor, size_px: int) -> Tensor:
    """As at inference: bilinear, corners aligned (facts: section 1.2, step 10)."""
    return F.interpolate(logits, size=(size_px, size_px), mode="bilinear", align_corners=True)
