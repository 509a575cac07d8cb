"""Clicks, boxes and array types: the vocabulary of everything in `model`. Imports no torch.

Frames: positions are (row, column) in pixels of the image, the origin at the top left corner.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

BoolMask = NDArray[np.bool_]
"""A mask (H, W)."""
RgbImage = NDArray[np.uint8]
"""Pixels (H, W, 3), red first."""
ROUND_SLOTS = 8
"""Slots for positive clicks, and as many for negative ones, in a table of drawn clicks (`data.click_sampling`)."""


@dataclass(frozen=True)
class Click:
    """A click on an image.

    Attributes:
        row: Row in pixels, 0 at the top. Fractions are allowed.
        col: Column in pixels, 0 at the left. Fractions are allowed.
        positive: True adds the part at this position to the mask, False removes it.

    Example:
        >>> from model import Click
        >>> Click(row=120, col=45.5)
        Click(row=120, col=45.5, positive=True)
    """

    row: float
    col: float
    positive: bool = True


@dataclass(frozen=True)
class Box:
    """A rectangle of an image, in pixels. Both ends are inclusive.

    Attributes:
        row_min: First row.
        row_max: Last row.
        col_min: First column.
        col_max: Last column.

    Example:
        >>> from model import Box, Click
        >>> box = Box(row_min=10, row_max=19, col_min=0, col_max=3)
        >>> box.height, box.width
        (10, 4)
        >>> box.contains(Click(12, 2))
        True
    """

    row_min: int
    row_max: int
    col_min: int
    col_max: int

    @classmethod
    def whole(cls, height: int, width: int) -> Box:
        """The box that covers an image of this size."""
        return cls(0, height - 1, 0, width - 1)

    @property
    def height(self) -> int:
        """Number of rows."""
        return self.row_max - self.row_min + 1

    @property
    def width(self) -> int:
        """Number of columns."""
        return self.col_max - self.col_min + 1

    @property
    def slices(self) -> tuple[slice, slice]:
        """Index of this box in an array (H, W, ...)."""
        return slice(self.row_min, self.row_max + 1), slice(self.col_min, self.col_max + 1)

    def is_within(self, height: int, width: int) -> bool:
        """Whether the box has a pixel, and all of its pixels lie on an image of this size."""
        rows = 0 <= self.row_min <= self.row_max < height
        return rows and 0 <= self.col_min <= self.col_max < width

    def contains(self, click: Click) -> bool:
        """Whether a click lies inside; the last row and column count as outside, as in SimpleClick."""
        return self.row_min <= click.row < self.row_max and self.col_min <= click.col < self.col_max

    def covers(self, other: Box) -> bool:
        """Whether all pixels of another box belong to this one."""
        rows = self.row_min <= other.row_min and other.row_max <= self.row_max
        return rows and self.col_min <= other.col_min and other.col_max <= self.col_max


class CandidateMask(Protocol):
    """One of the masks that the network proposes for the same clicks."""

    @property
    def mask_hw(self) -> NDArray[np.bool_]:
        """The mask, bool (H, W), in the image frame."""

    @property
    def probability_hw(self) -> NDArray[np.float32]:
        """Probability of each pixel, float32 (H, W), in the image frame."""

    @property
    def expected_iou(self) -> float | None:
        """IoU that the mask can be expected to have, 0 to 1; None if the network does not estimate it."""


@dataclass(frozen=True)
class MaskResult:
    """The mask of one call of `RefCutPredictor.predict`.

    Attributes:
        mask_hw: The mask, bool (H, W), in the image frame.
        probability_hw: Probability of each pixel, float32 (H, W), in the image frame; zero outside `crop`.
        crop: The part of the image that it was computed from.
        expected_iou: IoU that the mask can be expected to have, 0 to 1; None if the network does not estimate it.
        candidates: All masks that the network proposes, the smallest first: one, or three (smaller, as meant, larger).
            The mask above is one of them.
        chosen: Number of the candidate that the mask above is.

    Example:
        >>> import numpy as np
        >>> from model import Box, MaskResult
        >>> probability_hw = np.array([[0.2, 0.9]], np.float32)
        >>> result = MaskResult(probability_hw > 0.49, probability_hw, Box.whole(height=1, width=2))
        >>> result.mask_hw
        array([[False,  True]])
    """

    mask_hw: NDArray[np.bool_]
    probability_hw: NDArray[np.float32]
    crop: Box
    expected_iou: float | None = None
    candidates: Sequence[CandidateMask] = ()
    chosen: int = 0

    def stepped(self, steps: int) -> MaskResult:
        """The next larger or smaller of the candidates.

        Args:
            steps: How many candidates larger; negative for smaller. Beyond the last one, the last one is taken.

        Returns:
            The same answer with another of its masks; itself if it has only one.
        """
        number = min(max(self.chosen + steps, 0), len(self.candidates) - 1)
        if number < 0 or number == self.chosen:
            return self
        other = self.candidates[number]
        return MaskResult(
            other.mask_hw, other.probability_hw, self.crop, other.expected_iou, self.candidates, number
        )
