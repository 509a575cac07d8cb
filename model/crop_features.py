"""What is computed of an image before any click, and kept for later clicks.

These are features of crops, references prepared for them, and the crops in which a reference lets its label be expected.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.expected_crops import expected_crops
from model.memory import nbytes
from model.network.features import ImageFeatures, PreparedReference
from model.network.prompts import ReferenceTokens
from model.predictor_config import PredictorSettings
from model.runtime.base import NetworkStages
from model.transforms import crop_image
from model.types import Box

CACHED_CROPS = 8
"""Crops whose features are kept, 5 MB each: the whole image, those expected for two labels, and those of clicks."""
CACHED_REFERENCES = 16
"""Prepared references that are kept, of all crops together. One takes a twentieth of the memory of a crop's features."""


class CropFeatures:
    """Features of the crops of one image. The least recently used ones are dropped.

    Args:
        network: The network's stages.
        settings: How the network is used.
    """

    def __init__(self, network: NetworkStages, settings: PredictorSettings) -> None:
        self._network = network
        self._settings = settings
        self._crops: OrderedDict[Box, ImageFeatures] = OrderedDict()
        self._prepared: OrderedDict[tuple[Box, tuple[str, ...]], PreparedReference] = OrderedDict()
        self._expected: OrderedDict[tuple[str, ...], tuple[Box, ...]] = OrderedDict()

    def forget(self) -> None:
        """Drop everything: the next crops are of another image."""
        self._crops.clear()
        self.forget_references()

    def forget_references(self) -> None:
        """Drop the prepared references, and what was expected of them."""
        self._prepared.clear()
        self._expected.clear()

    @property
    def nbytes(self) -> int:
        """Bytes of memory that are kept."""
        return nbytes(self._crops, self._prepared)

    def pixels(self, image_rgb: NDArray[np.uint8], crop: Box) -> Tensor:
        """Cut a crop out of any image: the network's input (1, 3, S, S) on its device."""
        size, resampling = self._settings.network_px, self._settings.resampling
        return crop_image(image_rgb, crop, size, resampling).to(self._network.device)

    def encoded(self, image_rgb: NDArray[np.uint8], crop: Box) -> ImageFeatures:
        """Encode a crop of the image, unless it is kept; with `flip`, the mirrored crop is the second of the batch."""
        if crop not in self._crops:
            pixels = self.pixels(image_rgb, crop)
            if self._settings.flip:
                pixels = torch.cat([pixels, pixels.flip(-1)])
            self._crops[crop] = self._network.encode_image(pixels)
            _trim(self._crops, CACHED_CROPS)
        self._crops.move_to_end(crop)
        return self._crops[crop]

    def prepared(
        self, crop: Box, features: ImageFeatures, reference: ReferenceTokens | None
    ) -> PreparedReference | None:
        """Apply a reference to a crop, unless that is kept.

        Args:
            crop: The crop.
            features: What `encoded` returned for it.
            reference: The reference, recognised by its sources. None gives None.
        """
        if reference is None:
            return None
        key = crop, reference.sources
        if key not in self._prepared:
            if self._settings.flip:
                both = torch.zeros(len(features.tokens), dtype=torch.long, device=self._network.device)
                reference = reference.repeated(both)
            self._prepared[key] = self._network.prepare_reference(features, reference)
            _trim(self._prepared, CACHED_REFERENCES)
        self._prepared.move_to_end(key)
        return self._prepared[key]

    def expected(
        self,
        image_size: tuple[int, int],
        features: ImageFeatures,
        prepared: PreparedReference | None,
        reference: ReferenceTokens | None,
    ) -> tuple[Box, ...]:
        """The crops in which a reference's label is expected, unless they are kept.

        Args:
            image_size: Height and width of the image in pixels.
            features: What `encoded` returned for the whole image.
            prepared: What `prepared` returned for it.
            reference: The reference, recognised by its sources.

        Returns:
            The crops; empty without a reference, without a reader, and where the settings do not ask for them.
        """
        if reference is None or prepared is None or not self._settings.expected_crops:
            return ()
        if reference.sources not in self._expected:
            reading = self._network.read_reference(features, prepared)
            self._expected[reference.sources] = (
                ()
                if reading is None
                else expected_crops(
                    reading[0].float().cpu().numpy(),
                    image_size,
                    largest_share=self._settings.second_look_share,
                    expansion=self._settings.second_look_expansion,
                    min_crop_px=self._settings.zoom_min_px,
                )
            )
            _trim(self._expected, CACHED_REFERENCES)
        self._expected.move_to_end(reference.sources)
        return self._expected[reference.sources]


def _trim(cache: OrderedDict[Any, Any], size: int) -> None:
    while len(cache) > size:
        cache.popitem(last=False)
