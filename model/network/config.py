"""The shape of a network: one frozen description, saved beside the weights it belongs to. Imports no torch."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any, Literal

from model.errors import WeightsError

ReferenceFeatures = Literal["shared", "frozen"]
READER_LABELS = 3
READER_SPACE_CHANNELS = 2 * READER_LABELS
_PERSISTED_NAMES = {"learned_similarity_dim": "likeness_dim"}
"""Fields that weight files name differently: older files have these names, and older versions must read new files."""
_ABSENT = {"reader": None, "candidates": 1, "box_input": False}
"""Values of fields that weight files leave out."""


@dataclass(frozen=True)
class ReaderConfig:
    """Shape of a reader.

    Attributes:
        width: Width of the transformer blocks.
        blocks: How many of them.
        heads: Attention heads of each.
        matching_heads: Cosine spaces in which crop and reference are matched.
        matching_dim: Width of each.
        embedding_dim: Width of one more cosine space, for the channels that need no attention.
        hidden: Width of the convolutional network that reads the channels.
        refine_blocks: How many convolutional blocks.
        dropout: In the transformer blocks, while training.
        channel_dropout: Of the features' channels, the same ones for crop and reference, while training.
        affinity_heads: Heads of the attention among the crop's own patches; 0 leaves it out.
        affinity_dim: Width of each.
    """

    width: int = 192
    blocks: int = 2
    heads: int = 6
    matching_heads: int = 8
    matching_dim: int = 32
    embedding_dim: int = 64
    hidden: int = 96
    refine_blocks: int = 2
    dropout: float = 0.1
    channel_dropout: float = 0.1
    affinity_heads: int = 0
    affinity_dim: int = 16

    def __post_init__(self) -> None:
        if self.width % self.heads or self.width % 4:
            raise ValueError(f"width {self.width} is not divisible by 4 and by heads {self.heads}")
        if self.affinity_heads and self.hidden % self.affinity_heads:
            raise ValueError(f"hidden {self.hidden} is not divisible by affinity_heads {self.affinity_heads}")

    @property
    def token_dim(self) -> int:
        """Numbers per patch that `Reader.encode` returns."""
        affinity = 2 * self.affinity_heads * self.affinity_dim
        return self.matching_heads * self.matching_dim + self.embedding_dim + affinity

    def to_fields(self) -> dict[str, Any]:
        """The description as weight files have it. Earlier versions must read new files of readers without affinity."""
        fields = dataclasses.asdict(self)
        if not self.affinity_heads:
            del fields["affinity_heads"], fields["affinity_dim"]
        return fields

    @property
    def match_channels(self) -> int:
        """Channels that `Reader.match` returns: labels per head, both cosine spaces, and z-scores of the frozen one."""
        return READER_LABELS * self.matching_heads + 3 * READER_SPACE_CHANNELS


@dataclass(frozen=True)
class NetworkConfig:
    """Shape of one network. Blocks count from 0.

    Attributes:
        embed_dim: Width of the tokens.
        depth: Number of transformer blocks.
        heads: Attention heads per block.
        patch_px: Side of a patch in pixels.
        network_px: Side of the square input that a SimpleClick network is evaluated at.
        position_grid: Side of the stored grid of position embeddings, in patches.
        class_token: Whether the encoder has a class token.
        layer_scale: Whether the blocks have layer scale (DINOv2).
        windowed: Whether most blocks attend inside windows only (SimpleClick).
        fusion_block: Click maps and prompts enter in front of this block. 0 is the RefCut paper (eq. 5). A later
            block leaves the first ones to the image alone, so that they run once per crop instead of once per click.
        reference_features: "shared" reads the reference with the same blocks that serve clicks (the paper). "frozen"
            reads reference and target with the untouched initial blocks; tuned copies of the blocks from
            `fusion_block` on serve the clicks.
        comparison_blocks: The outputs of these blocks, standardised and joined, are the space in which target and
            reference are compared ("frozen" only; the paper uses the last block as it is).
        similarity: Whether there are similarity channels beside the prompts (`model.network.similarity`). Not in the
            paper.
        learned_similarity_dim: Width of a learned space for more of these channels; 0 leaves it out.
        reader: Shape of the reader (`model.network.reader`), for more channels; None leaves it out. Not in the paper.
        prompt_norm: Whether pooled references are normalised before the prompt MLPs.
        neck_channels: Channels of the pyramid at 1/4, 1/8, 1/16 and 1/32.
        head_channels: Width of the head.
        detail_channels: Width of a small convolutional branch on the pixels that sharpens borders; 0 leaves it out.
        candidates: Masks per answer: 1, or 3 (smaller, as meant, larger), each with the IoU that it can be expected to
            have (`model.network.candidates`). Not in the paper.
        box_input: Whether the click maps have a fourth channel, for a box prompt. Not in the paper.
        prompt_hidden_dim: Hidden width of the prompt MLPs; None takes `embed_dim`.
        neck_inner_32_dim: Inner width of the pyramid's coarsest level; None takes SimpleClick's.

    Raises:
        ValueError: If the fields contradict each other.

    Example:
        >>> from model import NetworkConfig
        >>> config = NetworkConfig(embed_dim=384, depth=12, heads=6)
        >>> NetworkConfig.from_json(config.to_json()) == config
        True
    """

    embed_dim: int
    depth: int
    heads: int
    patch_px: int = 16
    network_px: int = 448
    position_grid: int = 28
    class_token: bool = False
    layer_scale: bool = False
    windowed: bool = True
    fusion_block: int = 0
    reference_features: ReferenceFeatures = "shared"
    comparison_blocks: tuple[int, ...] = ()
    similarity: bool = False
    learned_similarity_dim: int = 0
    reader: ReaderConfig | None = None
    prompt_norm: bool = False
    neck_channels: tuple[int, int, int, int] = (128, 256, 512, 1024)
    head_channels: int = 256
    detail_channels: int = 0
    candidates: Literal[1, 3] = 1
    box_input: bool = False
    prompt_hidden_dim: int | None = None
    neck_inner_32_dim: int | None = None

    def __post_init__(self) -> None:
        if self.embed_dim % self.heads:
            raise ValueError(f"embed_dim {self.embed_dim} is not divisible by heads {self.heads}")
        if not 0 <= self.fusion_block < self.depth:
            raise ValueError(f"fusion_block {self.fusion_block} must lie in 0..{self.depth - 1}")
        if self.similarity and self.reference_features != "frozen":
            raise ValueError("similarity channels need reference_features='frozen'")
        if self.learned_similarity_dim and not self.similarity:
            raise ValueError("learned_similarity_dim needs similarity")
        if self.reader and not self.similarity:
            raise ValueError("reader needs similarity")
        if self.reference_features == "frozen" and not self.comparison_blocks:
            raise ValueError("reference_features='frozen' needs comparison_blocks")
        if self.candidates not in (1, 3):
            raise ValueError(f"candidates is 1 or 3, not {self.candidates}")
        if self.candidates > 1 and not self.similarity:
            raise ValueError("candidates need similarity")

    @property
    def comparison_dim(self) -> int:
        """Width of the vectors in which references are pooled and compared."""
        if self.reference_features == "shared":
            return self.embed_dim
        return self.embed_dim * len(self.comparison_blocks)

    @property
    def click_map_channels(self) -> int:
        """Channels of the click maps: previous mask, positive disks, negative disks, and the box if there is an input."""
        return 4 if self.box_input else 3

    def to_json(self) -> str:
        """The description as JSON text, the form in weight files. What a network does not have may be left out."""
        fields = {_PERSISTED_NAMES.get(name, name): value for name, value in dataclasses.asdict(self).items()}
        if self.reader is not None:
            fields["reader"] = self.reader.to_fields()
        for name, absent in _ABSENT.items():
            if fields[name] == absent:
                del fields[name]  # earlier versions must read new files
        return json.dumps(fields, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> NetworkConfig:
        """Read a description from a weight file.

        Args:
            text: JSON text as `to_json` writes it, also by earlier versions.

        Raises:
            WeightsError: If it is not a description that this version of the code knows.
        """
        try:
            fields: dict[str, Any] = json.loads(text)
            for name, persisted in _PERSISTED_NAMES.items():
                if persisted in fields:
                    fields[name] = fields.pop(persisted)
            for name in ("neck_channels", "comparison_blocks"):
                fields[name] = tuple(fields[name])
            if fields.get("reader") is not None:
                fields["reader"] = ReaderConfig(**fields["reader"])
            return cls(**fields)
        except (TypeError, ValueError, KeyError) as error:
            raise WeightsError(
                f"the network description in the weights file cannot be read ({error})",
                hint="use weights written by this version, or `git pull` to the version that wrote them",
            ) from error


_S14 = NetworkConfig(
    embed_dim=384,
    depth=10,
    heads=6,
    patch_px=14,
    position_grid=37,
    class_token=True,
    layer_scale=True,
    windowed=False,
    fusion_block=6,
    reference_features="frozen",
    comparison_blocks=(8, 9),
    similarity=True,
    learned_similarity_dim=64,
    prompt_norm=True,
    neck_channels=(64, 96, 192, 384),
    head_channels=96,
    detail_channels=48,
    prompt_hidden_dim=256,
    neck_inner_32_dim=384,
)
PRESETS: dict[str, NetworkConfig] = {
    "xtiny": NetworkConfig(
        embed_dim=160, depth=8, heads=4, neck_channels=(96, 192, 288, 384), head_channels=128
    ),
    "vit_b16": NetworkConfig(embed_dim=768, depth=12, heads=12),
    "vit_l16": NetworkConfig(embed_dim=1024, depth=24, heads=16, neck_channels=(192, 384, 768, 1536)),
    "vit_h14": NetworkConfig(
        embed_dim=1280,
        depth=32,
        heads=16,
        patch_px=14,
        position_grid=32,
        neck_channels=(240, 480, 960, 1920),
    ),
    "s14": _S14,
    "s14_reader": dataclasses.replace(
        _S14,
        learned_similarity_dim=0,
        reader=ReaderConfig(blocks=3, refine_blocks=3, affinity_heads=4),
        candidates=3,
        box_input=True,
    ),
}
