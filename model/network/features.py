"""What the stages of the network hand to each other: features of an image, and a reference, condensed and applied."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from model.network.encoder import Grid
from model.network.similarity import ReferenceEvidence


@dataclass(frozen=True)
class ImageFeatures:
    """Everything that clicks need of an image or crop.

    Attributes:
        tokens: (B, T, C), the input of the fusion block (raw patch tokens if that is block 0).
        comparison: (B, N, D), standardised features in which references are compared; None without similarity.
        detail: (B, D', H/4, W/4), border features; None without a detail branch.
        grid: Rows and columns of patches.
        reader: (B, N, E), the patches as the reader matches them; None without a reader.
    """

    tokens: Tensor
    comparison: Tensor | None
    detail: Tensor | None
    grid: Grid
    reader: Tensor | None = None

    def repeated(self, index: Tensor) -> ImageFeatures:
        """The features with the rows `index` of the batch, in that order; a row may come more than once."""
        return ImageFeatures(
            self.tokens[index],
            None if self.comparison is None else self.comparison[index],
            None if self.detail is None else self.detail[index],
            self.grid,
            None if self.reader is None else self.reader[index],
        )


@dataclass(frozen=True)
class CondensedReference:
    """What of a reference is applied to images, however many references were joined. It does not depend on the image.

    Attributes:
        prompt: As in `PreparedReference`.
        present: As in `PreparedReference`.
        tokens: The patches that the reader matches with, as it matches them, (B, M, E).
        comparison: Their frozen features, (B, M, D).
        labels: Their labels, (B, M, 3); see `model.network.reader.thin_out`.
        evidence: What the similarity channels compare with: some of these patches, and others.
    """

    prompt: Tensor
    present: Tensor
    tokens: Tensor
    comparison: Tensor
    labels: Tensor
    evidence: ReferenceEvidence

    @property
    def match_inputs(self) -> tuple[Tensor, ...]:
        """What `RefCut.match` takes behind the features of the image."""
        evidence = self.evidence
        return (
            self.tokens,
            self.comparison,
            self.labels,
            evidence.means,
            evidence.numbers,
            evidence.tokens,
            evidence.inside,
        )


@dataclass(frozen=True)
class PreparedReference:
    """A reference applied to one image or crop.

    Attributes:
        prompt: (B, C), added to every token.
        channels: (B, N, `RefCut.similarity_channels`): those of `reference_channels`, then those of
            `LearnedSimilarity`, or of the reader's own space. None if the network has no similarity channels.
        matched: (B, N, C), what the reader carries over from the reference. None without a reader.
        present: (B,), 1 where the reference has a mask, else 0. None without a reader.
    """

    prompt: Tensor
    channels: Tensor | None
    matched: Tensor | None = None
    present: Tensor | None = None
