"""Set an image, set a reference, pass clicks, get a mask: the public face of the network."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from model.box_prompts import box_clicks, box_limits, box_map, box_surroundings, cut_off
from model.masks import union
from model.memory import nbytes
from model.network.click_maps import disk_maps
from model.network.prompts import ReferenceTokens
from model.network.refcut import ImageFeatures, PreparedReference
from model.network.similarity import REFERENCE_CHANNELS
from model.predictor_config import SERVING, PredictorSettings, serving_settings
from model.runtime.base import NetworkStages
from model.transforms import (
    EXPANSION,
    bounding_box,
    click_table,
    clicks_to_network,
    crop_image,
    crop_map,
    crop_mask,
    expanded_box,
    mirrored,
    next_crop,
    paste_map,
)
from model.types import Box, Click

__all__ = ["SERVING", "MaskResult", "PredictorSettings", "RefCutPredictor", "serving_settings"]

KEPT_CROPS = 4
KEPT_STATES = 4


@dataclass(frozen=True)
class MaskResult:
    """mask_hw: bool (H, W). probability_hw: float32 (H, W), zero outside `roi`, in the image's frame."""

    mask_hw: NDArray[np.bool_]
    probability_hw: NDArray[np.float32]
    roi: Box


@dataclass(frozen=True)
class _State:
    """chosen: the surroundings in use; None while none were chosen."""

    box: Box | None
    clicks: tuple[Click, ...]
    result: MaskResult
    chosen: Box | None


class RefCutPredictor:
    """One image at a time. `predict` may be called with any click list: what it shares with the last one is kept."""

    def __init__(self, network: NetworkStages, settings: PredictorSettings = SERVING) -> None:
        patch = network.config.patch_px
        if settings.network_px % patch:
            raise ValueError(f"network_px {settings.network_px} is not a multiple of the patch of {patch} px")
        self.network = network
        self.settings = settings
        self.device = network.device
        self._image: NDArray[np.uint8] | None = None
        self._reference: ReferenceTokens | None = None
        self._crops: OrderedDict[Box, ImageFeatures] = OrderedDict()
        self._prepared: OrderedDict[Box, PreparedReference] = OrderedDict()
        self._states: list[_State] = []

    def set_image(self, image_rgb: NDArray[np.uint8]) -> None:
        """Image (H, W, 3) uint8 RGB. Forgets clicks, keeps the reference."""
        if image_rgb.ndim != 3 or image_rgb.shape[2] != 3 or image_rgb.dtype != np.uint8:
            raise ValueError(
                f"expected an RGB image (H, W, 3) uint8, got {image_rgb.shape} {image_rgb.dtype}"
            )
        self._image = image_rgb
        self._crops.clear()
        self._prepared.clear()
        self._states.clear()

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the image that is set."""
        if self._image is None:
            raise ValueError("set_image comes first")
        return self._image.shape[0], self._image.shape[1]

    @property
    def nbytes(self) -> int:
        """Memory that this object keeps: image, reference, features of crops, and earlier masks."""
        return nbytes(self._image, self._reference, self._crops, self._prepared, self._states)

    def set_reference(self, reference: ReferenceTokens | None) -> None:
        """What the clicks' label means; None = clicks alone. Forgets clicks, keeps the image and its features."""
        if reference is not self._reference:
            self._reference = reference
            self._prepared.clear()
            self._states.clear()

    @torch.inference_mode()
    def encode_reference(
        self,
        image_rgb: NDArray[np.uint8],
        positive_hw: NDArray[np.bool_] | None,
        negative_hw: NDArray[np.bool_] | None,
    ) -> ReferenceTokens:
        """Another image (H, W, 3) with its masks (H, W) as a value for `set_reference`; join several with
        `ReferenceTokens.join`."""
        if any(m is not None and m.shape != image_rgb.shape[:2] for m in (positive_hw, negative_hw)):
            raise ValueError("a reference's masks must be as large as its image")
        roi = Box.whole(*image_rgb.shape[:2])
        masks = [mask for mask in (positive_hw, negative_hw) if mask is not None and mask.any()]
        if self.settings.reference_zoom and masks:
            box = bounding_box(union(masks))
            roi = expanded_box(box, *image_rgb.shape[:2])

        def cut(mask_hw: NDArray[np.bool_] | None) -> Tensor | None:
            return (
                None if mask_hw is None else crop_mask(mask_hw, roi, self.settings.network_px).to(self.device)
            )

        with self._precision():
            return self.network.encode_reference(
                self._crop_image(image_rgb, roi), cut(positive_hw), cut(negative_hw)
            )

    def warm(self) -> None:
        """Computes what the first click on the image needs of it."""
        roi = Box.whole(*self.image_size)
        with torch.inference_mode(), self._precision():
            self._features(roi)

    @torch.inference_mode()
    def reference_channels(self) -> NDArray[np.float32] | None:
        """The channels of `model.network.similarity.reference_channels` of the whole image: float32 (rows, columns, 12)
        of its patches, not those of a learned space. None without a reference, and for a network that does not
        compare."""
        roi = Box.whole(*self.image_size)
        with self._precision():
            features = self._features(roi)
            prepared = self._prepare(roi, features)
        if prepared is None or prepared.channels is None:
            return None
        channels: NDArray[np.float32] = prepared.channels[0, :, :REFERENCE_CHANNELS].float().cpu().numpy()
        return channels.reshape(*features.grid, -1)

    @torch.inference_mode()
    def predict(self, clicks: Sequence[Click], box: Box | None = None) -> MaskResult:
        """The mask after `clicks`, applied one after another, each with the mask before it, as an annotator would.

        Clicks are in pixels of the image (row, column). An empty list gives what the reference alone suggests; a
        first click does not build on that. With a box round the object, an empty list gives the mask in the box, and
        clicks refine that. Raises ValueError for a click or box outside the image.
        """
        height, width = self.image_size
        wanted = tuple(clicks)
        for click in wanted:
            if not (0 <= click.row < height and 0 <= click.col < width):
                raise ValueError(f"{click} lies outside the image of {height} rows and {width} columns")
        if box is not None and not _lies_on(box, height, width):
            raise ValueError(f"{box} lies outside the image of {height} rows and {width} columns")
        while self._states and not _continues(self._states[-1], wanted, box):
            self._states.pop()
        first = 0 if box is not None else min(1, len(wanted))
        done = len(self._states[-1].clicks) if self._states else first - 1
        for count in range(done + 1, len(wanted) + 1):
            state = self._step(wanted[:count], box)
            self._states = [*self._states[-KEPT_STATES + 1 :], state]
        return self._states[-1].result

    def _step(self, clicks: tuple[Click, ...], box: Box | None) -> _State:
        last = self._states[-1] if self._states else None
        if last is None and box is not None:
            return self._step_into(box)
        roi, chosen = self._where(clicks, last)
        result = self._look(clicks, roi, None if last is None else last.result.probability_hw, box)
        if last is not None or not self.settings.second_look:
            return _State(box, clicks, result, chosen)
        closer = self._surroundings(clicks, result, result.roi, self.settings.second_look_expansion)
        if closer != roi:
            result = self._look(clicks, closer, None)
        return _State(box, clicks, result, closer)

    def _step_into(self, box: Box) -> _State:
        size = self.image_size
        roi = box_surroundings(box, *size) if self.settings.zoom else Box.whole(*size)
        return _State(box, (), self._look((), roi, box_map(box, *size), box), roi)

    def _where(self, clicks: tuple[Click, ...], last: _State | None) -> tuple[Box, Box | None]:
        """Where to look for a click, and the surroundings that count as chosen from then on."""
        whole, skip = Box.whole(*self.image_size), self.settings.zoom_skip_clicks
        if last is None:
            return whole, (whole if skip < 0 else None)
        if not self.settings.zoom:
            return last.result.roi, last.chosen
        empty = not (last.result.probability_hw > self.settings.zoom_threshold).any()
        if len(clicks) <= skip or (skip >= 0 and empty):
            return whole, last.chosen
        roi = self._surroundings(clicks, last.result, last.chosen)
        return roi, roi

    def _surroundings(
        self, clicks: tuple[Click, ...], last: MaskResult, chosen: Box | None, expansion: float = EXPANSION
    ) -> Box:
        mask_hw = last.probability_hw > self.settings.zoom_threshold
        return next_crop(mask_hw, clicks, chosen, min_crop_px=self.settings.zoom_min_px, expansion=expansion)

    def _look(
        self,
        clicks: tuple[Click, ...],
        roi: Box,
        previous_hw: NDArray[np.float32] | None,
        box: Box | None = None,
    ) -> MaskResult:
        size = self.settings.network_px
        limits = None if box is None else box_limits(box, clicks, *self.image_size)
        if box is not None and limits is not None:
            clicks = (*box_clicks(box, *self.image_size), *clicks)
        with self._precision():
            features = self._features(roi)
            prepared = self._prepare(roi, features)
            previous = torch.zeros(1, 1, size, size)
            if previous_hw is not None:
                previous = crop_map(previous_hw, roi, size)
            clicks_network = clicks_to_network(clicks, roi, size)
            logits = self._logits(features, previous.to(self.device), clicks_network, prepared)
        full = paste_map(torch.sigmoid(logits), roi, *self.image_size)
        if limits is not None:
            full = cut_off(full, limits)
        return MaskResult(full > self.settings.threshold, full, roi)

    def _logits(
        self,
        features: ImageFeatures,
        previous: Tensor,
        clicks_network: Sequence[Click],
        prepared: PreparedReference | None,
    ) -> Tensor:
        size = self.settings.network_px
        table = click_table(clicks_network)
        if self.settings.flip:
            table = torch.cat([table, click_table(mirrored(clicks_network, size))])
            previous = torch.cat([previous, previous.flip(-1)])
        coords = torch.cat([previous, disk_maps(table.to(self.device), size, size)], dim=1)
        logits = self.network.segment(features, coords, prepared).float()
        logits = F.interpolate(logits, size=(size, size), mode="bilinear", align_corners=True)
        return 0.5 * (logits[:1] + logits[1:].flip(-1)) if self.settings.flip else logits

    def _features(self, roi: Box) -> ImageFeatures:
        assert self._image is not None
        if roi not in self._crops:
            pixels = self._crop_image(self._image, roi)
            if self.settings.flip:
                pixels = torch.cat([pixels, pixels.flip(-1)])
            self._crops[roi] = self.network.encode_image(pixels)
            self._trim(self._crops)
        self._crops.move_to_end(roi)
        return self._crops[roi]

    def _prepare(self, roi: Box, features: ImageFeatures) -> PreparedReference | None:
        if self._reference is None:
            return None
        if roi not in self._prepared:
            batch = torch.zeros(len(features.tokens), dtype=torch.long, device=self.device)
            self._prepared[roi] = self.network.prepare_reference(features, self._reference.repeated(batch))
            self._trim(self._prepared)
        return self._prepared[roi]

    def _crop_image(self, image_rgb: NDArray[np.uint8], roi: Box) -> Tensor:
        return crop_image(image_rgb, roi, self.settings.network_px, self.settings.resampling).to(self.device)

    def _precision(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.settings.bfloat16)

    @staticmethod
    def _trim(cache: OrderedDict[Box, ImageFeatures] | OrderedDict[Box, PreparedReference]) -> None:
        while len(cache) > KEPT_CROPS:
            cache.popitem(last=False)


def _continues(done: _State, wanted: tuple[Click, ...], box: Box | None) -> bool:
    """Whether a state is a step on the way to `wanted`; without a box, one to no clicks is no step to others."""
    shared = done.box == box and done.clicks == wanted[: len(done.clicks)]
    return shared and bool(done.clicks or not wanted or box is not None)


def _lies_on(box: Box, height: int, width: int) -> bool:
    rows = 0 <= box.row_min <= box.row_max < height
    return rows and 0 <= box.col_min <= box.col_max < width
