"""The RefCut network: SimpleClick with a reference branch.

The forward pass is cut into stages as serving needs them, so that nothing is computed twice:

    stage              runs                         computes
    encode_image       once per image and crop      blocks before the fusion block, comparison features
    encode_reference   once per reference           tokens, and their shares inside the reference's masks
    prepare_reference  once per crop and reference  prompt vector and similarity channels
    segment            once per click               the other blocks, neck and head
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.network.click_maps import ClickEmbedding
from model.network.config import NetworkConfig
from model.network.decoder import DetailBranch, MlpHead, SimpleFpn
from model.network.encoder import Encoder, Grid, make_block, patch_tokens, run_block
from model.network.prompts import PromptGenerator, ReferenceTokens, area_weights
from model.network.similarity import (
    CLICK_CHANNELS,
    LEARNED_CHANNELS,
    REFERENCE_CHANNELS,
    LearnedSimilarity,
    SimilarityMlp,
    click_channels,
    reference_channels,
)

IMAGE_MEAN = (0.485, 0.456, 0.406)
IMAGE_STD = (0.229, 0.224, 0.225)
BASE_PREFIXES = ("backbone.", "comparison_mean", "comparison_std")
"""Tensors that training never changes when references are read with frozen features."""


@dataclass(frozen=True)
class ImageFeatures:
    """Everything that clicks need of an image or crop.

    Attributes:
        tokens: (B, T, C), the input of the fusion block (raw patch tokens if that is block 0).
        comparison: (B, N, D), standardised features in which references are compared; None without similarity.
        detail: (B, D', H/4, W/4), border features; None without a detail branch.
        grid: Rows and columns of patches.
    """

    tokens: Tensor
    comparison: Tensor | None
    detail: Tensor | None
    grid: Grid

    def repeated(self, index: Tensor) -> ImageFeatures:
        """The features with the rows `index` of the batch, in that order; a row may come more than once."""
        return ImageFeatures(
            self.tokens[index],
            None if self.comparison is None else self.comparison[index],
            None if self.detail is None else self.detail[index],
            self.grid,
        )


@dataclass(frozen=True)
class PreparedReference:
    """A reference applied to one image or crop.

    Attributes:
        prompt: (B, C), added to every token.
        channels: (B, N, `RefCut.similarity_channels`): those of `reference_channels`, then those of
            `LearnedSimilarity`. None if the network has no similarity channels.
    """

    prompt: Tensor
    channels: Tensor | None


class RefCut(nn.Module):
    """The network as a torch module; the module's docstring lists its stages.

    Tensor names are those of SimpleClick's released files. A file of a RefCut network in SimpleClick's shape is
    therefore a superset of a SimpleClick file.

    Args:
        config: Shape of the network. Weights are fresh; `model.checkpoints.weights.load_network` reads stored ones.
    """

    comparison_mean: Tensor
    comparison_std: Tensor

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        dim = config.embed_dim
        self.backbone = Encoder(config)
        self.patch_embed_coords = ClickEmbedding(dim, config.patch_px)
        hidden = config.prompt_hidden_dim or dim
        self.rpg = PromptGenerator(config.comparison_dim, hidden, dim, norm=config.prompt_norm)
        self.neck = SimpleFpn(dim, config.neck_channels, config.neck_inner_32_dim)
        self.head = MlpHead(config.neck_channels, config.head_channels, config.detail_channels)
        if config.detail_channels:
            self.detail = DetailBranch(config.detail_channels)
        if config.similarity:
            channels = self.similarity_channels + CLICK_CHANNELS
            self.similarity_in = SimilarityMlp(channels, dim)
            self.similarity_out = SimilarityMlp(channels, dim)
        if config.learned_similarity_dim:
            # The name in weight files: tensors are called `likeness.*` there.
            self.likeness = LearnedSimilarity(config.comparison_dim, config.learned_similarity_dim)
        if config.reference_features == "frozen":
            count = len(config.comparison_blocks)
            self.register_buffer("comparison_mean", torch.zeros(count, dim))
            self.register_buffer("comparison_std", torch.ones(count, dim))
            self.click_blocks = nn.ModuleList(
                make_block(config) for _ in range(config.fusion_block, config.depth)
            )
            self.backbone.requires_grad_(False)

    @property
    def device(self) -> torch.device:
        """The device that holds the weights."""
        return self.backbone.pos_embed.device

    @property
    def similarity_channels(self) -> int:
        """Number of channels that compare a patch with the reference."""
        return REFERENCE_CHANNELS + (LEARNED_CHANNELS if self.config.learned_similarity_dim else 0)

    @property
    def _frozen(self) -> bool:
        return self.config.reference_features == "frozen"

    def encode_image(self, image: Tensor) -> ImageFeatures:
        """Compute everything that clicks on an image share.

        Args:
            image: RGB image or crop (B, 3, H, W) in 0..1.
        """
        normalised = normalise(image)
        grid = self.backbone.grid_of(image)
        detail = self.detail(normalised) if self.config.detail_channels else None
        if not self._frozen:
            tokens = self.backbone.embed_patches(normalised)
            if self.config.fusion_block:
                tokens = self.backbone.add_positions(tokens, grid)
                for index in range(self.config.fusion_block):
                    tokens = self.backbone.run_block(index, tokens, grid)
            return ImageFeatures(tokens, None, detail, grid)
        with torch.no_grad():
            tokens, comparison = self._frozen_pass(normalised, grid)
        return ImageFeatures(tokens, comparison, detail, grid)

    def encode_reference(
        self, image: Tensor, positive: Tensor | None, negative: Tensor | None
    ) -> ReferenceTokens:
        """Encode a reference.

        Args:
            image: RGB image (B, 3, H, W) in 0..1.
            positive: Mask of the label (B, 1, H, W) in 0..1; None or empty if there is none.
            negative: Mask of what is not the label, likewise. Where both overlap, the positive mask wins.
        """
        grid = self.backbone.grid_of(image)
        if self._frozen:
            with torch.no_grad():
                tokens = self._frozen_pass(normalise(image), grid)[1]
        else:
            tokens = self.backbone.add_positions(self.backbone.embed_patches(normalise(image)), grid)
            for index in range(self.config.depth):
                tokens = self.backbone.run_block(index, tokens, grid)
            tokens = patch_tokens(tokens, self.config)
        return reference_tokens(tokens, positive, negative, grid)

    def prepare_reference(self, features: ImageFeatures, reference: ReferenceTokens) -> PreparedReference:
        """Compute what the reference adds to every click on an image.

        That is the prompt (RefCut, eq. 5 to 7) and the similarity channels.
        """
        channels = None
        if features.comparison is not None:
            with torch.autocast(features.tokens.device.type, enabled=False):
                channels = reference_channels(features.comparison, reference)
                if self.config.learned_similarity_dim:
                    learned = self.likeness(features.comparison, reference)
                    channels = torch.cat([channels, learned], dim=-1)
        return PreparedReference(self.rpg(reference), channels)

    def segment(
        self, features: ImageFeatures, coords: Tensor, reference: PreparedReference | None = None
    ) -> Tensor:
        """Compute the mask for a set of clicks.

        Args:
            features: The image or crop.
            coords: (B, 3, H, W): previous mask as probability, positive disks, negative disks.
            reference: The reference applied to this image; None means clicks alone.

        Returns:
            Logits (B, 1, h, w) at a quarter of the network's input (exactly: 4 per patch).
        """
        grid = features.grid
        added = self.patch_embed_coords(coords)
        channels = self._similarity(features, coords, reference)
        if reference is not None:
            added = added + reference.prompt[:, None]
        if channels is not None:
            added = added + self.similarity_in(channels)
        tokens = self._click_path(self._add_to_patches(features.tokens, added), grid)
        tokens = patch_tokens(tokens, self.config)
        if channels is not None:
            tokens = tokens + self.similarity_out(channels)
        batch, _, dim = tokens.shape
        return self.head(  # type: ignore[no-any-return]
            self.neck(tokens.transpose(1, 2).reshape(batch, dim, *grid)), features.detail
        )

    def _frozen_pass(self, normalised: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
        """Tokens entering the fusion block, and the standardised comparison features, of the untouched blocks."""
        tokens = self.backbone.add_positions(self.backbone.embed_patches(normalised), grid)
        fused = tokens
        compared = []
        for index in range(self.config.depth):
            if index == self.config.fusion_block:
                fused = tokens
            tokens = self.backbone.run_block(index, tokens, grid)
            if index in self.config.comparison_blocks:
                position = self.config.comparison_blocks.index(index)
                raw = patch_tokens(tokens, self.config).float()
                scaled = (raw - self.comparison_mean[position]) / self.comparison_std[position]
                compared.append(F.normalize(scaled, dim=-1))
        return fused, torch.cat(compared, dim=-1)

    def _similarity(
        self, features: ImageFeatures, coords: Tensor, reference: PreparedReference | None
    ) -> Tensor | None:
        if features.comparison is None:
            return None
        weights = F.adaptive_avg_pool2d(coords[:, 1:].float(), features.grid).flatten(2)
        with torch.autocast(coords.device.type, enabled=False):
            clicked = click_channels(features.comparison, weights)
        if reference is None or reference.channels is None:
            shape = (*clicked.shape[:2], self.similarity_channels)
            return torch.cat([clicked.new_zeros(shape), clicked], dim=-1)
        return torch.cat([reference.channels, clicked], dim=-1)

    def _add_to_patches(self, tokens: Tensor, added: Tensor) -> Tensor:
        if self.config.fusion_block and self.config.class_token:
            return torch.cat([tokens[:, :1], tokens[:, 1:] + added.to(tokens.dtype)], dim=1)
        return tokens + added.to(tokens.dtype)

    def _click_path(self, tokens: Tensor, grid: Grid) -> Tensor:
        start = self.config.fusion_block
        if start == 0:
            tokens = self.backbone.add_positions(tokens, grid)
        for index in range(start, self.config.depth):
            block = self.click_blocks[index - start] if self._frozen else self.backbone.blocks[index]
            tokens = run_block(block, index, tokens, grid, self.config)
        return tokens


def normalise(image: Tensor) -> Tensor:
    """RGB image (B, 3, H, W) in 0..1 to the value range that the encoders were trained with."""
    mean = image.new_tensor(IMAGE_MEAN)[:, None, None]
    std = image.new_tensor(IMAGE_STD)[:, None, None]
    return (image - mean) / std


def reference_tokens(
    tokens: Tensor, positive: Tensor | None, negative: Tensor | None, grid: Grid
) -> ReferenceTokens:
    """Join the tokens of an encoded image with its masks.

    Args:
        tokens: (B, N, D).
        positive: Mask (B, 1, H, W) in 0..1; None means no mask, which becomes weights of zero.
        negative: Likewise. Pixels of the positive mask are taken out of it.
        grid: Rows and columns of patches.
    """
    absent = tokens.new_zeros(tokens.shape[:2], dtype=torch.float32)
    if negative is not None and positive is not None:
        negative = negative * (1 - positive)
    return ReferenceTokens(
        tokens,
        absent if positive is None else area_weights(positive, grid),
        absent if negative is None else area_weights(negative, grid),
    )
