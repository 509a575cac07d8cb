"""Settings that say how the answer to a click is built. Pre-labelling builds its regions by the same settings."""

from __future__ import annotations

from dataclasses import dataclass, field

from refcut_backend.label_studio.label_config import MaskKind
from refcut_backend.label_studio.polygons import OutlineSettings
from refcut_backend.settings import Settings


@dataclass(frozen=True)
class AnswerRules:
    """How answers are built.

    Attributes:
        max_references: Highest number of references used per label.
        pending_s: Seconds for which an answer repeats unaccepted masks whose boxes the request shows.
        mask_output: Kind of region to return if the label config takes several kinds for a label.
        outlines: How masks become polygons.
    """

    max_references: int = 4
    pending_s: float = 120
    mask_output: MaskKind = "brush"
    outlines: OutlineSettings = field(default_factory=OutlineSettings)

    @classmethod
    def of(cls, settings: Settings) -> AnswerRules:
        """Take the rules from the settings."""
        outlines = OutlineSettings(settings.polygon_tolerance_px, settings.polygon_min_area_percent)
        return cls(
            settings.max_references_per_label, settings.pending_masks_s, settings.mask_output, outlines
        )
