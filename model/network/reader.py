"""The reader: carries the labels of a reference over to an image, and settles how far the thing reaches.

Not in the RefCut paper. A prompt says what to look for, and cosines say what looks alike; neither says where a part ends
when its neighbour looks the same. The reader learns that from frozen features, in four steps:

    encode   once per image, crop or reference   two transformer blocks; queries of `matching_heads` cosine spaces
    match    once per crop and reference         attention from the crop to the reference whose values are the labels of
                                                 the reference's masks: inside the positive one, the negative one, neither
    read     once per click                      what the labels are at the clicks, how alike each place is to the clicks,
                                                 and a small network on the grid of patches: convolutions, and attention
                                                 among the crop's own patches (`Affinity`)

It compares and attends, but no feature ever reaches the output by itself: this is why it carries over to kinds of things
that were never trained on. Without any reference mask its output is exactly zero.

Shapes: B crops, N patches of a crop, M patches of its references (N for one, 2 N for two, ...), K label sets that are
read off the same crop and references, D `comparison_dim`, E `token_dim`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.network.config import READER_LABELS, READER_SPACE_CHANNELS, ReaderConfig
from model.network.reader_layers import Affinity, AffinityBlock, ConvBlock, TransformerBlock, sine_positions
from model.network.similarity import PatchCosines

LABELS = READER_LABELS
"""Inside the positive mask, inside the negative mask, outside both."""
SPACE_CHANNELS = READER_SPACE_CHANNELS
"""Per label: cosine to the mean, and soft maximum of the cosines."""
CLICK_CHANNELS = 8
SHARPNESS = 20.0
MAX_SHARPNESS = 60.0
"""exp(60) is far from what float32 can hold, and sharper than any training has made it."""
CLICKED_PATCHES = 16
"""Largest number of clicked patches per sign that are compared."""
CLICKED_SHARE = 0.25
"""A patch counts as clicked if it is covered at least this much of what the best covered one is."""
INPUT_SCALE = 14.0
"""Comparison features have length 1 per block; this brings their numbers to about 0.7."""


@dataclass(frozen=True)
class Reading:
    """What the reader says of each patch.

    Attributes:
        logits: (B, K, N) float32; above 0 = belongs to what the reference means.
        hidden: (B, K, N, `hidden`), what the logits were computed from.
    """

    logits: Tensor
    hidden: Tensor


class Reader(nn.Module):
    """See the module's docstring. All of it works on frozen features and is trained apart from the click path."""

    def __init__(self, comparison_dim: int, config: ReaderConfig) -> None:
        super().__init__()
        self.config = config
        self.embed = nn.Linear(comparison_dim, config.width)
        self.positions = nn.Linear(config.width, config.width, bias=False)
        nn.init.normal_(self.positions.weight, std=0.01)
        self.blocks = nn.ModuleList(
            TransformerBlock(config.width, config.heads, config.dropout) for _ in range(config.blocks)
        )
        self.norm = nn.LayerNorm(config.width)
        self.to_matching = nn.Linear(config.width, config.matching_heads * config.matching_dim, bias=False)
        self.to_embedding = nn.Linear(config.width, config.embedding_dim, bias=False)
        self.log_sharpness = nn.Parameter(torch.linspace(math.log(6), math.log(30), config.matching_heads))
        per_sign = LABELS * config.matching_heads + CLICK_CHANNELS + config.matching_heads
        self.gather = nn.Sequential(
            nn.Linear(config.match_channels + 2 * per_sign, config.hidden),
            nn.GELU(),
            nn.Linear(config.hidden, config.hidden),
        )
        has_affinity = config.affinity_heads > 0
        self.refine = nn.ModuleList(ConvBlock(config.hidden) for _ in range(config.refine_blocks))
        self.affinity = (
            Affinity(config.width, config.affinity_heads, config.affinity_dim) if has_affinity else None
        )
        self.affinity_blocks = nn.ModuleList(
            AffinityBlock(config.hidden, config.affinity_heads)
            for _ in range(config.refine_blocks)
            if has_affinity
        )
        self.out_norm = nn.LayerNorm(config.hidden)
        self.to_logit = nn.Linear(config.hidden, 1)

    def encode(self, comparison: Tensor, grid: tuple[int, int]) -> Tensor:
        """Prepares an image, a crop or a reference for matching.

        Args:
            comparison: Frozen features (B, N, D).
            grid: Patches down and across; their product is N.

        Returns:
            (B, N, E) float32: normalised vectors of the matching heads, then the normalised embedding, then what the
            affinity is computed from.
        """
        x = comparison * INPUT_SCALE
        if self.training and self.config.channel_dropout:
            kept = torch.rand(x.shape[-1], device=x.device) >= self.config.channel_dropout
            x = x * (kept / (1 - self.config.channel_dropout))
        x = self.embed(x) + self.positions(sine_positions(grid, self.config.width, x.device))
        for block in self.blocks:
            x = block(x)
        x = self.norm(x)
        heads = self.to_matching(x).float().reshape(*x.shape[:2], self.config.matching_heads, -1)
        embedding = self.to_embedding(x).float()
        tokens = [F.normalize(heads, dim=-1).flatten(2), F.normalize(embedding, dim=-1)]
        if self.affinity is not None:
            tokens.append(self.affinity.vectors(x).float())
        return torch.cat(tokens, dim=-1)

    def match(
        self,
        tokens: Tensor,
        reference_tokens: Tensor,
        frozen: PatchCosines,
        labels: Tensor,
    ) -> Tensor:
        """Carries labels of references over to a crop.

        Args:
            tokens: The crop as `encode` returns it, (B, N, E).
            reference_tokens: The same of its references, (B, M, E), one behind the other.
            frozen: Both compared in frozen features.
            labels: Shares of each reference patch per label, (B, M, K, 3); see `label_shares` and `thin_out`. A patch
                that stands for several has shares above 1; all shares of one reference add up to N.

        Returns:
            (B, K, N, `match_channels`) float32.
        """
        with torch.autocast(tokens.device.type, enabled=False):
            references = (labels.sum(dim=(1, 3)) / tokens.shape[1]).clamp_min(1e-6)
            heads, embedding = self._split(tokens.float())
            reference_heads, reference_embedding = self._split(reference_tokens.float())
            propagated = self._propagate(heads, reference_heads, labels, references)
            learned = _space_channels(PatchCosines.of(embedding, reference_embedding), labels, references)
            with torch.no_grad():
                untouched = _space_channels(frozen, labels, references)
                mean = untouched.mean(dim=2, keepdim=True)
                spread = (untouched - mean).square().mean(dim=2, keepdim=True).sqrt().clamp_min(1e-2)
                scores = 0.3 * (untouched - mean) / spread
            return torch.cat([propagated, learned, untouched, scores], dim=-1)

    def read(
        self, tokens: Tensor, comparison: Tensor, matched: Tensor, clicks: Tensor, grid: tuple[int, int]
    ) -> Reading:
        """Says which patches belong to what the reference means, given the clicks.

        Args:
            tokens: The crop as `encode` returns it, (B, N, E).
            comparison: Frozen features of the crop, (B, N, D).
            matched: What `match` returned, (B, K, N, C).
            clicks: Share of each patch under positive and under negative click disks, (B, K, 2, N). Zeros = no click.
            grid: Patches down and across.
        """
        with torch.autocast(tokens.device.type, enabled=False):
            channels = torch.cat(
                [matched, self._click_channels(tokens, comparison, matched, clicks, grid)], dim=-1
            )
        batch, sets = matched.shape[:2]
        x = self.gather(channels).flatten(0, 1)
        affinity = None if self.affinity is None else self.affinity(self._affinity_vectors(tokens), grid)
        for number, block in enumerate(self.refine):
            if affinity is not None:
                x = self.affinity_blocks[number](x, affinity)
            x = block(x, grid)
        hidden = self.out_norm(x)
        logits = self.to_logit(hidden)[..., 0].float()
        return Reading(logits.reshape(batch, sets, -1), hidden.reshape(batch, sets, *hidden.shape[1:]))

    def propagated_channels(self, matched: Tensor) -> Tensor:
        """The part of what `match` returns (..., C) that holds the labels per head, (..., 3 * heads)."""
        return matched[..., : LABELS * self.config.matching_heads]

    def learned_channels(self, matched: Tensor) -> Tensor:
        """The part that holds similarities in the learned space, (..., 6); zero for absent labels."""
        start = LABELS * self.config.matching_heads
        return matched[..., start : start + SPACE_CHANNELS]

    def frozen_channels(self, matched: Tensor) -> Tensor:
        """The part that holds similarities of untouched features and their z-scores, (..., 12)."""
        return matched[..., -2 * SPACE_CHANNELS :]

    def click_path_channels(self, logits: Tensor, matched: Tensor) -> Tensor:
        """What the click path is given of a reading.

        Args:
            logits: Logits of each patch, (B, N).
            matched: What was carried over, as for `propagated_channels`.

        Returns:
            (B, N, `RefCut.reader_channels`): the logit, as a number and as a probability, then the labels.
        """
        own = torch.stack([0.25 * logits, torch.sigmoid(logits)], dim=-1)
        return torch.cat([own, self.propagated_channels(matched), self.frozen_channels(matched)], dim=-1)

    def _split(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors of the matching heads (B, heads, N, dim), and the embedding (B, N, dim)."""
        width = self.config.matching_heads * self.config.matching_dim
        heads = tokens[..., :width].reshape(*tokens.shape[:2], self.config.matching_heads, -1)
        return heads.transpose(1, 2), tokens[..., width : width + self.config.embedding_dim]

    def _affinity_vectors(self, tokens: Tensor) -> Tensor:
        """What `Affinity.vectors` returned, the last part of the tokens."""
        return tokens[
            ..., self.config.matching_heads * self.config.matching_dim + self.config.embedding_dim :
        ]

    def _propagate(
        self, heads: Tensor, reference_heads: Tensor, labels: Tensor, references: Tensor
    ) -> Tensor:
        """Share of the positive and of the negative label, and log of the total, per head: (B, K, N, 3 * heads)."""
        batch, count, patches, _ = heads.shape
        sharpness = self.log_sharpness.exp().clamp(max=MAX_SHARPNESS)
        # exp(s * (cos - 1)) = exp(s * cos) / exp(s), and the second factor counts in the total only.
        affinity = torch.exp((heads * sharpness[:, None, None]) @ reference_heads.transpose(-1, -2))
        sums = affinity @ labels.flatten(2)[:, None]
        sums = sums.reshape(batch, count, patches, -1, LABELS).permute(0, 3, 2, 1, 4)
        sums = sums / references[:, :, None, None, None]
        total = sums.sum(dim=-1, keepdim=True)
        sums, total = sums / (total + 1e-6), torch.log(total + 1e-6) - sharpness[:, None]
        found = torch.cat([3 * sums[..., :2] - 1, 0.2 * total], dim=-1)
        return found.reshape(batch, -1, patches, LABELS * count)

    def _click_channels(
        self, tokens: Tensor, comparison: Tensor, matched: Tensor, clicks: Tensor, grid: tuple[int, int]
    ) -> Tensor:
        """(B, K, N, 2 * (labels at the clicks, `CLICK_CHANNELS`, one cosine per head)), positive clicks first."""
        propagated = self.propagated_channels(matched)
        heads, embedding = self._split(tokens.float())
        frozen = F.normalize(comparison.float(), dim=-1)
        count = min(CLICKED_PATCHES, clicks.shape[-1])
        weights, places = clicks.float().topk(count, dim=-1)
        counted = (weights > CLICKED_SHARE * weights[..., :1]) & (weights > 0)
        present = (weights[..., 0] > 0).float()[..., None, None]
        share = clicks.float() / clicks.sum(dim=-1, keepdim=True).clamp_min(1e-6)
        at_clicks = torch.einsum("bksn,bknc->bksc", share, propagated)[:, :, :, None]
        found = [
            at_clicks.expand(-1, -1, -1, tokens.shape[1], -1),
            _most_similar(frozen[:, None], places, counted),
            _most_similar(embedding[:, None], places, counted),
            _nearest_click(places, counted, grid),
            torch.ones_like(clicks)[..., None],
            _most_similar(heads, places, counted),
        ]
        return (torch.cat(found, dim=-1) * present).transpose(2, 3).flatten(3)


def label_shares(positive: Tensor, negative: Tensor) -> Tensor:
    """Labels of reference patches from the shares that the masks cover.

    The patch that is covered best counts as a whole one. Without any mask all labels are zero.

    Args:
        positive: Share of each patch inside the positive mask, (B, M, ...).
        negative: The same of the negative mask.

    Returns:
        (B, M, ..., 3): inside the positive mask, inside the negative mask, outside both.
    """
    best = torch.maximum(positive, negative).amax(dim=1, keepdim=True)
    first, second = (shares / best.clamp_min(1e-12) for shares in (positive, negative))
    outside = (1 - first - second).clamp_min(0) * (best > 0)
    return torch.stack([first, second, outside], dim=-1)


def thin_out(positive: Tensor, labels: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Chooses patches that stand for all patches of several references, so that matching costs as much as with one.

    Patches of the positive mask are kept rather than those of the negative mask, and these rather than others. Where
    only a share of the patches of a kind is kept, each stands for several.

    Args:
        positive: Share of each patch inside the positive mask, (B, M).
        labels: What `label_shares` returned, (B, M, 3).
        count: Patches to keep, at most M.

    Returns:
        Numbers of the patches that are kept, (B, count), and their labels, (B, count, 3). Labels are zero where fewer
        patches are needed.
    """
    importance = 1 + 2 * (labels[..., 1] > 0).float() + 8 * (positive > 0).float()
    kept = (count * importance / importance.sum(dim=1, keepdim=True)).clamp(max=1.0)
    for _ in range(3):  # what patches that are surely kept leave over goes to the others
        sure = kept >= 1
        left = count - sure.sum(dim=1, keepdim=True)
        rest = (importance * ~sure).sum(dim=1, keepdim=True).clamp_min(1e-6)
        kept = torch.where(sure, 1.0, (left * importance / rest).clamp(max=1.0))
    # Patches are counted off within each reference, so that the order of references does not matter.
    each = count if labels.shape[1] % count == 0 else labels.shape[1]
    within = kept.double().reshape(len(kept), -1, each)
    steps = torch.cumsum(within, dim=-1) * (1 + 1e-9)
    chosen = (torch.floor(steps) > torch.floor(steps - within * (1 + 1e-9))).reshape(kept.shape)
    chosen |= kept >= 1
    order = torch.argsort(chosen.int(), dim=1, descending=True, stable=True)[:, :count]
    weights = torch.where(chosen, 1 / kept, 0.0)
    return order, torch.gather(labels * weights[..., None], 1, order[..., None].expand(-1, -1, LABELS))


def _space_channels(compared: PatchCosines, labels: Tensor, references: Tensor) -> Tensor:
    """Per label the cosine to the mean and the soft maximum of cosines, (B, K, N, 6); zero for absent labels."""
    batch, _, sets, _ = labels.shape
    flat = labels.flatten(2).transpose(1, 2)
    mean = F.normalize(flat @ compared.reference, dim=-1)
    to_mean = mean @ compared.target.transpose(1, 2)
    similar = flat @ torch.exp(SHARPNESS * (compared.cosines - 1))
    similar = similar / references.repeat_interleave(LABELS, dim=1)[..., None]
    nearest = 1 + torch.log(similar + 1e-16) / SHARPNESS
    present = (flat.sum(dim=2) > 0).float()[..., None]
    both = torch.stack([to_mean * present, nearest * present], dim=2)
    return both.reshape(batch, sets, 2 * LABELS, -1).transpose(2, 3)


def _most_similar(vectors: Tensor, places: Tensor, counted: Tensor) -> Tensor:
    """Largest cosine of each patch to a clicked patch, in each of H spaces: (B, K, 2, N, H).

    vectors: (B, H, N, C) of length 1. places: clicked patches (B, K, 2, P). counted: which of them are.
    """
    spaces, dim = vectors.shape[1], vectors.shape[-1]
    flat = places.flatten(1)[:, None, :, None].expand(-1, spaces, -1, dim)
    clicked = torch.gather(vectors, 2, flat)
    cosines = vectors @ clicked.transpose(-1, -2)
    cosines = cosines.reshape(*cosines.shape[:3], *places.shape[1:])
    cosines = torch.where(counted[:, None, None], cosines, -1.0)
    return cosines.amax(dim=-1).permute(0, 3, 4, 2, 1)


def _nearest_click(places: Tensor, counted: Tensor, grid: tuple[int, int]) -> Tensor:
    """Where the nearest clicked patch lies, (B, K, 2, N, 5): columns and rows to it, nearness in two widths, is it one.

    Distances are shares of the grid's sides.
    """
    rows, cols = grid
    number = torch.arange(rows * cols, device=places.device)
    patch_row, patch_col = number // cols / rows, number % cols / cols
    row_offset = patch_row[:, None] - (places // cols / rows)[..., None, :]
    col_offset = patch_col[:, None] - (places % cols / cols)[..., None, :]
    squared = torch.where(counted[..., None, :], row_offset.square() + col_offset.square(), 9.0)
    distance, nearest = squared.min(dim=-1, keepdim=True)
    found = [
        torch.gather(col_offset, -1, nearest),
        torch.gather(row_offset, -1, nearest),
        torch.exp(-60 * distance),
        torch.exp(-8 * distance),
        (distance == 0).float(),
    ]
    return torch.cat(found, dim=-1)
