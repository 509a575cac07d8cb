"""From a click request to Label Studio's answer: reads the clicks, asks a worker, builds the regions."""

from __future__ import annotations

from dataclasses import dataclass, field

from refcut_backend.label_studio.label_config import MaskKind
from refcut_backend.label_studio.polygons import OutlineSettings
from refcut_backend.settings import Settings


@dataclass(frozen=True)
class AnswerRules:
    """How answers are built. pending_s: how long unaccepted masks of other labels come along.

    mask_output: what masks come back as if a label can have several kinds.
    """

    max_references: int = 4
    pending_s: float = 120
    mask_output: MaskKind = "brush"
    outlines: OutlineSettings = field(default_factory=OutlineSettings)

    @classmethod
    def of(cls, settings: Settings) -> AnswerRules:
        """As the settings say."""
        outlines = OutlineSettings(settings.polygon_tolerance_px, settings.polygon_min_area_percent)
        return cls(
            settings.max_references_per_label, settings.pending_masks_s, settings.mask_output, outlines
        )
