"""The RefCut network: SimpleClick with a reference branch.

The forward pass is cut into stages as serving needs them, so that nothing is computed twice:

    stage               runs                         computes
    encode_image        once per image and crop      blocks before the fusion block, comparison features
    encode_reference    once per reference           tokens, and their shares inside the reference's masks
    condense_reference  once per label               prompt vector, the patches that images are compared with
    prepare_reference   once per crop and reference  similarity channels, labels carried over
    segment             once per click               the other blocks, neck and head, candidate masks

`prepare_reference` condenses the reference itself. `model.runtime.openvino` keeps condensed references.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.network.candidates import CandidateMasks, Segmentation
from model.network.click_maps import ClickEmbedding, no_clicks
from model.network.config import NetworkConfig
from model.network.decoder import DetailBranch, MlpHead, SimpleFpn
from model.network.encoder import Encoder, Grid, make_block, normalise, patch_tokens, run_block
from model.network.features import CondensedReference, ImageFeatures, PreparedReference
from model.network.prompts import PromptGenerator, ReferenceTokens, chosen_patches, reference_tokens
from model.network.reader import LABELS, SPACE_CHANNELS, Reader, label_shares, thin_out
from model.network.similarity import (
    CLICK_CHANNELS,
    LEARNED_CHANNELS,
    REFERENCE_CHANNELS,
    LearnedSimilarity,
    PatchCosines,
    ReferenceEvidence,
    SimilarityMlp,
    click_channels,
    reference_channels,
)

BASE_PREFIXES = ("backbone.", "comparison_mean", "comparison_std")
"""Tensors that training never changes when references are read with frozen features."""


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
        self.patch_embed_coords = ClickEmbedding(dim, config.patch_px, config.click_map_channels)
        hidden = config.prompt_hidden_dim or dim
        self.rpg = PromptGenerator(config.comparison_dim, hidden, dim, norm=config.prompt_norm)
        self.neck = SimpleFpn(dim, config.neck_channels, config.neck_inner_32_dim)
        self.head = MlpHead(config.neck_channels, config.head_channels, config.detail_channels)
        if config.detail_channels:
            self.detail = DetailBranch(config.detail_channels)
        if config.similarity:
            channels = self.similarity_channels + CLICK_CHANNELS + self.reader_channels
            self.similarity_in = SimilarityMlp(channels, dim)
            self.similarity_out = SimilarityMlp(channels, dim)
            if config.candidates > 1:
                self.candidates = CandidateMasks(config.head_channels, channels)
        if config.learned_similarity_dim:
            # The name in weight files: tensors are called `likeness.*` there.
            self.likeness = LearnedSimilarity(config.comparison_dim, config.learned_similarity_dim)
        if config.reader is not None:
            self.reader = Reader(config.comparison_dim, config.reader)
            # It is trained apart (`model.training.reader_training`); a training that wants to tune it says so.
            self.reader.requires_grad_(False)
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
        learned = self.config.learned_similarity_dim or self.config.reader is not None
        return REFERENCE_CHANNELS + (LEARNED_CHANNELS if learned else 0)

    @property
    def reader_channels(self) -> int:
        """Number of channels that the reader gives to the click path.

        These are its logit, as a number and as a probability, the labels per head, and frozen similarities.
        """
        if self.config.reader is None:
            return 0
        return 2 + LABELS * self.config.reader.matching_heads + 2 * SPACE_CHANNELS

    def train(self, mode: bool = True) -> RefCut:
        """As every module; a reader that is not trained stays without dropout."""
        super().train(mode)
        if self.config.reader is not None:
            self.reader.train(mode and any(p.requires_grad for p in self.reader.parameters()))
        return self

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
        detail = self.encode_detail(image)
        if not self._frozen:
            tokens = self.backbone.embed_patches(normalised)
            if self.config.fusion_block:
                tokens = self.backbone.add_positions(tokens, grid)
                for index in range(self.config.fusion_block):
                    tokens = self.backbone.run_block(index, tokens, grid)
            return ImageFeatures(tokens, None, detail, grid)
        with torch.no_grad():
            tokens, comparison = self._frozen_pass(normalised, grid)
        return ImageFeatures(tokens, comparison, detail, grid, self._encode_for_reader(comparison, grid))

    def encode_detail(self, image: Tensor) -> Tensor | None:
        """Border features of an RGB image (B, 3, H, W) in 0..1, a part of `encode_image`; None if there are none."""
        return self.detail(normalise(image)) if self.config.detail_channels else None

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
        return reference_tokens(tokens, positive, negative, grid, self._encode_for_reader(tokens, grid))

    def prepare_reference(self, features: ImageFeatures, reference: ReferenceTokens) -> PreparedReference:
        """Compute what the reference adds to every click on an image.

        That is the prompt (RefCut, eq. 5 to 7), the similarity channels, and what the reader carries over.
        """
        if self.config.reader is not None:
            return self._prepare_with_reader(features, reference)
        channels = None
        if features.comparison is not None:
            with torch.autocast(features.tokens.device.type, enabled=False):
                evidence = ReferenceEvidence.of(reference, features.comparison.shape[1])
                cosines = PatchCosines.of(features.comparison, reference.tokens)
                channels = reference_channels(cosines, evidence)
            channels = self._with_learned_similarity(channels, features, reference)
        return PreparedReference(self.rpg(reference), channels)

    def _prepare_with_reader(self, features: ImageFeatures, reference: ReferenceTokens) -> PreparedReference:
        assert features.comparison is not None
        assert features.reader is not None
        condensed = self.condense_reference(reference, features.reader.shape[1])
        channels, matched = self.match(features.reader, features.comparison, *condensed.match_inputs)
        channels = self._with_learned_similarity(channels, features, reference)
        return PreparedReference(condensed.prompt, channels, matched, condensed.present)

    def _with_learned_similarity(
        self, channels: Tensor, features: ImageFeatures, reference: ReferenceTokens
    ) -> Tensor:
        """The channels of a network with learned similarity, which a reader's own channels do not replace."""
        if not self.config.learned_similarity_dim:
            return channels
        with torch.autocast(features.tokens.device.type, enabled=False):
            learned = self.likeness(features.comparison, reference)
            return torch.cat([channels[..., :REFERENCE_CHANNELS], learned], dim=-1)

    def condense_reference(
        self, reference: ReferenceTokens, count: int, multiple: int | None = None
    ) -> CondensedReference:
        """Compute the part of `prepare_reference` that depends on the reference alone, in a network with a reader.

        Args:
            reference: One reference, or several joined. Their patches are thinned out, so that matching costs as much as
                with one.
            count: Number of patches of an image; the reader keeps so many or fewer of the reference.
            multiple: Evidence that changes nothing is left out, and numbers of patches are rounded up to a multiple of
                this. None leaves nothing out.

        Raises:
            ValueError: If the reference was encoded by a network without a reader.
        """
        if reference.reader is None:
            raise ValueError("the reference was encoded by a network without a reader")
        labels = label_shares(reference.positive, reference.negative)
        present = (labels.sum(dim=(1, 2)) > 0).float()
        tokens, comparison = reference.reader, reference.tokens
        evidence = ReferenceEvidence.of(reference, count)
        if tokens.shape[1] > count:
            kept, labels = thin_out(reference.positive, labels, count)
            evidence = evidence.beside(kept, comparison, multiple or 1)
            tokens, comparison = chosen_patches(tokens, kept), chosen_patches(comparison, kept)
        if multiple is not None:
            evidence = evidence.without_unused(multiple)
        return CondensedReference(self.rpg(reference), present, tokens, comparison, labels, evidence)

    def match(
        self,
        tokens: Tensor,
        comparison: Tensor,
        others: Tensor,
        others_comparison: Tensor,
        labels: Tensor,
        *evidence: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Compare an image with a reference: its similarity channels, and what the reader carries over.

        Args:
            tokens: The image as the reader matches it, (B, N, E).
            comparison: Its frozen features, (B, N, D).
            others: The reference's patches as the reader matches them, (B, M, E).
            others_comparison: Their frozen features, (B, M, D).
            labels: Their labels, (B, M, 3).
            evidence: The fields of `ReferenceEvidence`.

        Returns:
            `channels` and `matched` of `PreparedReference`.
        """
        with torch.autocast(tokens.device.type, enabled=False):
            cosines = PatchCosines.of(comparison, others_comparison)
            carried = self.reader.match(tokens, others, cosines, labels[:, :, None])[:, 0]
            compared = reference_channels(cosines, ReferenceEvidence(*evidence))
            return torch.cat([compared, self.reader.learned_channels(carried)], dim=-1), carried

    def segment(
        self, features: ImageFeatures, coords: Tensor, reference: PreparedReference | None = None
    ) -> Segmentation:
        """Compute the masks for a set of clicks.

        Args:
            features: The image or crop.
            coords: (B, `click_map_channels`, H, W): previous mask as probability, positive disks, negative disks, and
                the box, filled, if the network has an input for it.
            reference: The reference applied to this image; None means clicks alone.

        Returns:
            Logits at a quarter of the network's input (exactly: 4 per patch), and what the masks are worth.
        """
        channels = self.compare(features, coords, reference)
        return self.segment_compared(
            features, coords, None if reference is None else reference.prompt, channels
        )

    def segment_compared(
        self, features: ImageFeatures, coords: Tensor, prompt: Tensor | None, channels: Tensor | None
    ) -> Segmentation:
        """The part of `segment` after `compare`: everything whose weights a fine-tuning changes.

        Args:
            features: The image or crop. Its comparison and reader features are not used.
            coords: As for `segment`.
            prompt: `PreparedReference.prompt`; None without a reference.
            channels: What `compare` returned.

        Returns:
            As `segment`.
        """
        grid = features.grid
        added = self.patch_embed_coords(coords)
        if prompt is not None:
            added = added + prompt[:, None]
        if channels is not None:
            added = added + self.similarity_in(channels)
        tokens = self._click_path(self._add_to_patches(features.tokens, added), grid)
        tokens = patch_tokens(tokens, self.config)
        if channels is not None:
            tokens = tokens + self.similarity_out(channels)
        batch, _, dim = tokens.shape
        levels = self.neck(tokens.transpose(1, 2).reshape(batch, dim, *grid))
        logits, fused = self.head(levels, features.detail)
        if self.config.candidates == 1:
            return Segmentation(logits)
        assert channels is not None
        segmentation: Segmentation = self.candidates(logits, fused, channels, coords, grid)
        return segmentation

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

    def _encode_for_reader(self, comparison: Tensor, grid: Grid) -> Tensor | None:
        return None if self.config.reader is None else self.reader.encode(comparison, grid)

    def compare(
        self, features: ImageFeatures, coords: Tensor, reference: PreparedReference | None
    ) -> Tensor | None:
        """Compare each patch with the reference and with the clicks.

        Only a reader has weights here, so versions with the same reader compute the same.

        Args:
            features: The image or crop.
            coords: As for `segment`.
            reference: The reference applied to this image; None means clicks alone.

        Returns:
            The similarity channels (B, N, C); None if the network has none.
        """
        if features.comparison is None:
            return None
        weights = F.adaptive_avg_pool2d(coords[:, 1:3].float(), features.grid).flatten(2)
        with torch.autocast(coords.device.type, enabled=False):
            clicked = click_channels(features.comparison, weights)
        if reference is None or reference.channels is None:
            shape = (*clicked.shape[:2], self.similarity_channels)
            found = [clicked.new_zeros(shape), clicked]
        else:
            found = [reference.channels, clicked]
        if self.config.reader is not None:
            found.append(self._read(features, weights, reference))
        return torch.cat(found, dim=-1)

    def _read(self, features: ImageFeatures, clicks: Tensor, reference: PreparedReference | None) -> Tensor:
        """The reader's channels (B, N, `reader_channels`), float32; exactly zero where there is no reference."""
        assert features.comparison is not None
        assert features.reader is not None
        if reference is None or reference.matched is None or reference.present is None:
            return clicks.new_zeros(*features.comparison.shape[:2], self.reader_channels)
        matched = reference.matched
        reading = self.reader.read(
            features.reader, features.comparison, matched[:, None], clicks[:, None], features.grid
        )
        channels = self.reader.click_path_channels(reading.logits[:, 0], matched)
        return channels * reference.present[:, None, None]

    def read_reference(self, features: ImageFeatures, reference: PreparedReference) -> Tensor | None:
        """Find where an image has the label of a reference, as far as the reader knows without a click.

        Returns:
            Probability of each patch, float32 (B, rows, columns); None without a reader.
        """
        if self.config.reader is None:
            return None
        channels = self.compare(features, no_clicks(features, self.config), reference)
        return None if channels is None else self.reader_probability(channels, features.grid)

    def reader_probability(self, channels: Tensor, grid: Grid) -> Tensor:
        """What the reader says in the channels of `compare`: probability of each patch (B, rows, columns)."""
        return channels[..., self.similarity_channels + CLICK_CHANNELS + 1].reshape(-1, *grid)

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
