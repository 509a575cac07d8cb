"""How the patches of an image compare with those of a reference, as arrays for what chooses among masks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch.nn import functional as F

from model.network.features import ImageFeatures, PreparedReference
from model.network.prompts import ReferenceTokens
from model.network.similarity import INSIDE_SHARE, REFERENCE_CHANNELS


@dataclass(frozen=True)
class ReferenceComparison:
    """An image beside a reference, in frozen features. The image has rows x columns patches.

    Attributes:
        channels: float32 (rows, columns, 12), see `model.network.similarity.reference_channels`.
        cosines: float32 (rows, columns, P), cosine to each of the P patches inside the reference's positive mask. P is 0
            without a positive mask.
    """

    channels: NDArray[np.float32]
    cosines: NDArray[np.float32]

    @classmethod
    def of(
        cls, features: ImageFeatures, prepared: PreparedReference | None, reference: ReferenceTokens | None
    ) -> ReferenceComparison | None:
        """Compare the features of one image (batch of 1) with a reference.

        Args:
            features: Of the whole image.
            prepared: The reference, applied to these features.
            reference: The reference.

        Returns:
            None without a reference, and for a network without similarity channels.
        """
        if reference is None or prepared is None or prepared.channels is None or features.comparison is None:
            return None
        positive = reference.positive[0]
        best = positive.max()
        inside = reference.tokens[0][(positive > INSIDE_SHARE * best) & (best > 0)]
        image = F.normalize(features.comparison[0].float(), dim=-1)
        cosines = image @ F.normalize(inside.float(), dim=-1).T
        channels = prepared.channels[0, :, :REFERENCE_CHANNELS].float()
        return cls(
            channels.cpu().numpy().reshape(*features.grid, -1),
            cosines.cpu().numpy().reshape(*features.grid, -1),
        )
