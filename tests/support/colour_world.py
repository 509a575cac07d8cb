"""A world in which every part has its own flat colour, and a predictor that sees nothing but colours.

Without a reference a click gives the clicked colour, so a target of k parts takes k clicks. With one it gives all
colours of the reference's positive mask at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from model.data.annotated_objects import AnnotatedObject
from model.masks import encode, union
from model.network.prompts import ReferenceTokens
from model.predictor_config import PredictorSettings
from model.reference_comparison import ReferenceComparison
from model.types import BoolMask, Box, Click, MaskResult

COLOURS = {"wheel": 60, "door": 120, "roof": 180, "mirror": 240}
SIDE_PX = 40
PLACES = {
    "wheel": np.s_[20:30, 4:14],
    "door": np.s_[20:30, 14:24],
    "roof": np.s_[10:20, 14:24],
    "mirror": np.s_[2:8, 30:38],
}
"""Wheel and door touch along a side, door and roof too, wheel and roof in a corner; the mirror is by itself."""


def make_annotated_object(
    path: Path, parts: Sequence[str], *, object_class: str = "car", names_carry: bool = True
) -> AnnotatedObject:
    """Writes the photograph (PNG, no loss) and returns its annotated object."""
    image = np.zeros((SIDE_PX, SIDE_PX, 3), np.uint8)
    masks: dict[str, BoolMask] = {}
    for name in parts:
        image[PLACES[name]] = COLOURS[name]
        masks[name] = image[..., 0] == COLOURS[name]
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), image)
    rles = {name: [encode(mask)] for name, mask in sorted(masks.items())}
    return AnnotatedObject(path, object_class, rles, has_whole=True, names_carry=names_carry)


class ColourPredictor:
    """See the module. Counts how often an image was set."""

    def __init__(self) -> None:
        self._grey_hw: NDArray[np.uint8] = np.zeros((1, 1), np.uint8)
        self._reference: ReferenceTokens | None = None
        self._start: MaskResult | None = None
        self.settings = PredictorSettings()
        self.images_set = 0

    def set_image(self, image_rgb: NDArray[np.uint8]) -> None:
        self._grey_hw = image_rgb[..., 0]
        self.images_set += 1

    def set_reference(self, reference: ReferenceTokens | None) -> None:
        self._reference = reference

    def start_from(self, start: MaskResult | None) -> None:
        self._start = start

    def reference_comparison(self) -> ReferenceComparison | None:
        """One patch per pixel: 1 for a colour of the positive mask, -1 for one of the negative mask, 0 for both."""
        assert self._reference is not None
        colours = self._reference.tokens[0, :, 0].numpy()
        inside, outside = (
            np.isin(self._grey_hw, colours[weights[0].numpy() > 0])
            for weights in (self._reference.positive, self._reference.negative)
        )
        nearer = inside.astype(np.float32) - outside
        return ReferenceComparison(np.repeat(nearer[..., None], 12, axis=2), nearer[..., None])

    def encode_reference(
        self,
        image_rgb: NDArray[np.uint8],
        positive_hw: NDArray[np.bool_] | None,
        negative_hw: NDArray[np.bool_] | None,
    ) -> ReferenceTokens:
        """Tokens are the pixels' colours."""
        absent = torch.zeros(1, image_rgb[..., 0].size)
        positive, negative = (
            absent if mask is None else torch.from_numpy(mask.reshape(1, -1)).float()
            for mask in (positive_hw, negative_hw)
        )
        return ReferenceTokens(
            torch.from_numpy(image_rgb[..., 0].reshape(1, -1, 1).copy()), positive, negative
        )

    def predict(self, clicks: Sequence[Click]) -> MaskResult:
        wanted = {int(self._grey_hw[int(click.row), int(click.col)]) for click in clicks if click.positive}
        if self._reference is not None and self._reference.positive.any():
            wanted = set(self._reference.tokens[0, :, 0][self._reference.positive[0] > 0].tolist())
        wanted -= {
            int(self._grey_hw[int(click.row), int(click.col)]) for click in clicks if not click.positive
        }
        if clicks and self._start is not None:
            wanted |= set(self._grey_hw[self._start.mask_hw].tolist())
            wanted -= {int(self._grey_hw[int(c.row), int(c.col)]) for c in clicks if not c.positive}
        mask_hw = union(
            [self._grey_hw == colour for colour in wanted] or [np.zeros_like(self._grey_hw, bool)]
        )
        return MaskResult(mask_hw, mask_hw.astype(np.float32), Box.whole(*mask_hw.shape))
