"""The predictor: set an image, set a reference, pass clicks, get a mask.

It wraps the network's stages (`model.network.refcut`) in SimpleClick's way of clicking. Clicks are applied one after
another. Each is one step; a step computes a mask from all clicks so far and the mask of the step before.

    step          input mask           crop that the network sees
    no click      empty                the whole image; the mask shows what the reference alone suggests
    first click   empty                the whole image; again around a first mask that leaves some
                                       of it free (`second_look`); the answer is the mean of both
    later click   mask of the step     around the last mask; kept while the mask stays near it (`zoom`)
                  before
    box           empty; the box has   around the box; later clicks continue from its mask
                  an input of its own
    start         given (`start_from`), instead of computed

A second look takes a crop that the reference lets expect, if one is near (`model.expected_crops`). Crops are compared
with close-ups of references (`close_ups`): parts of one scale are more alike. Where the network proposes several masks,
`model.candidate_masks` chooses. A network without an input for boxes gets them as clicks and as a mask (`box_prompts`).

What is kept between calls, so that a new click costs as little as possible (the last in `model.click_steps`, the others
in `model.crop_features`):

    kept                          until                     saves
    features of the last crops    another image             encoding the crop
    prepared references of them   another image             comparing image and reference
    crops that they expect        another image             encoding the crop of a second look
    the last steps                another image             the steps that two click lists share
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.box_prompts import box_clicks, box_limits, box_map, box_surroundings
from model.candidate_masks import Placement, mask_result, mean_of_looks
from model.click_steps import ClickSteps, Step
from model.crop_features import CropFeatures
from model.expected_crops import crop_next_to
from model.masks import bounding_box, union
from model.memory import nbytes
from model.network.click_maps import box_maps, disk_maps
from model.network.features import ImageFeatures, PreparedReference
from model.network.prompts import ReferenceTokens
from model.predictor_config import SERVING, PredictorSettings, is_close
from model.reference_comparison import ReferenceComparison
from model.runtime.base import NetworkStages
from model.transforms import (
    EXPANSION,
    box_to_network,
    click_table,
    clicks_to_network,
    crop_map,
    crop_mask,
    expanded_box,
    mirrored,
    next_crop,
)
from model.types import Box, Click, MaskResult


class RefCutPredictor:
    """Segments one image at a time, from clicks, a box, and references. Not safe for several threads at once.

    Args:
        network: A network from `model.load_network`, or its stages from `model.with_runtime`.
        settings: How the network is used; `model.serving_settings` gives what the backend uses.

    Raises:
        ValueError: If `settings.network_px` is not a multiple of the network's patch.

    Example:
        A red rectangle on a grey image:

        >>> import numpy as np
        >>> from model import Click, PredictorSettings, RefCutPredictor, load_network
        >>> image_rgb = np.full((120, 160, 3), 200, np.uint8)
        >>> image_rgb[40:80, 60:110] = (180, 30, 30)
        >>> predictor = RefCutPredictor(load_network(), PredictorSettings(network_px=224, resampling="area"))
        >>> predictor.set_image(image_rgb)
        >>> result = predictor.predict([Click(row=60, col=85)])
        >>> result.mask_hw.shape, bool(result.mask_hw[60, 85])
        ((120, 160), True)

        The same image as a reference: without a click, the mask shows what the reference means.

        >>> reference = predictor.encode_reference(image_rgb, image_rgb[..., 1] < 100, None)
        >>> predictor.set_reference(reference)
        >>> predictor.predict([]).probability_hw.dtype
        dtype('float32')
    """

    def __init__(self, network: NetworkStages, settings: PredictorSettings = SERVING) -> None:
        patch = network.config.patch_px
        if settings.network_px % patch:
            raise ValueError(f"network_px {settings.network_px} is not a multiple of the patch of {patch} px")
        self.network = network
        self.settings = settings
        self.device = network.device
        self._image: NDArray[np.uint8] | None = None
        self._reference: ReferenceTokens | None = None
        self._features = CropFeatures(network, settings)
        self._start: MaskResult | None = None
        self._steps = ClickSteps()

    def set_image(self, image_rgb: NDArray[np.uint8]) -> None:
        """Set the image to segment. Clicks are forgotten, the reference is kept.

        Args:
            image_rgb: RGB image (H, W, 3), uint8.

        Raises:
            ValueError: If it has another shape or type.
        """
        if image_rgb.ndim != 3 or image_rgb.shape[2] != 3 or image_rgb.dtype != np.uint8:
            raise ValueError(
                f"expected an RGB image (H, W, 3) uint8, got {image_rgb.shape} {image_rgb.dtype}"
            )
        self._image = image_rgb
        self._features.forget()
        self.start_from(None)

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the image in pixels. Raises ValueError if no image is set."""
        if self._image is None:
            raise ValueError("no image is set; call set_image first")
        return self._image.shape[0], self._image.shape[1]

    @property
    def nbytes(self) -> int:
        """Bytes of memory that this object keeps: image, reference, features of crops, and earlier masks."""
        return nbytes(self._image, self._reference, self._start) + self._features.nbytes + self._steps.nbytes

    def set_reference(self, reference: ReferenceTokens | None) -> None:
        """Set what the clicks' label means. The image, its features and steps with other references are kept.

        Args:
            reference: From `encode_reference`, or several joined; None means clicks alone.
        """
        self._reference = reference

    def start_from(self, start: MaskResult | None) -> None:
        """Let the first click refine a given mask of the image, as a later click refines the mask before it.

        Args:
            start: The mask, also the result without clicks; not used with a box. None, or another image, ends this.
        """
        self._start = start
        self._steps.forget()

    def forget_clicks(self) -> None:
        """Forget clicks and reference, whatever an interrupted call has left; the image and its features are kept."""
        self._steps.forget()
        self._features.forget_references()
        self._reference = None

    @torch.inference_mode()
    def encode_reference(
        self,
        image_rgb: NDArray[np.uint8],
        positive_hw: NDArray[np.bool_] | None,
        negative_hw: NDArray[np.bool_] | None,
    ) -> ReferenceTokens:
        """Encode another image with its masks, as a value for `set_reference`.

        Several references of one label are joined with `ReferenceTokens.join`.

        Args:
            image_rgb: RGB image (H, W, 3), uint8.
            positive_hw: Mask of the label, bool (H, W); None if there is none.
            negative_hw: Mask of what does not belong to the label, bool (H, W); None if there is none.

        Raises:
            ValueError: If a mask has another size than the image.
        """
        if any(m is not None and m.shape != image_rgb.shape[:2] for m in (positive_hw, negative_hw)):
            raise ValueError("the masks of a reference must be as large as its image")
        crop = Box.whole(*image_rgb.shape[:2])
        masks = [mask for mask in (positive_hw, negative_hw) if mask is not None and mask.any()]
        if self.settings.reference_zoom and masks:
            box = bounding_box(union(masks))
            crop = expanded_box(box, *image_rgb.shape[:2])
        reference = self._encode_crop(image_rgb, positive_hw, negative_hw, crop)
        if not self.settings.close_ups or positive_hw is None or not positive_hw.any():
            return reference
        nearby = expanded_box(
            bounding_box(positive_hw), *image_rgb.shape[:2], min_crop_px=self.settings.zoom_min_px
        )
        if not is_close(nearby, image_rgb.shape[0], image_rgb.shape[1]):
            return reference
        return dataclasses.replace(
            reference, close_up=self._encode_crop(image_rgb, positive_hw, negative_hw, nearby)
        )

    def _encode_crop(
        self,
        image_rgb: NDArray[np.uint8],
        positive_hw: NDArray[np.bool_] | None,
        negative_hw: NDArray[np.bool_] | None,
        crop: Box,
    ) -> ReferenceTokens:
        def cut(mask_hw: NDArray[np.bool_] | None) -> Tensor | None:
            if mask_hw is None:
                return None
            return crop_mask(mask_hw, crop, self.settings.network_px).to(self.device)

        with self._precision():
            return self.network.encode_reference(
                self._features.pixels(image_rgb, crop), cut(positive_hw), cut(negative_hw)
            )

    def preload(
        self,
        reference: ReferenceTokens | None = None,
        *,
        closer: bool = True,
        must_stop: Callable[[], bool] = lambda: False,
    ) -> bool:
        """Compute what the first click on the image needs, before there is one. Clicks and reference stay as they are.

        Args:
            reference: Also compare the image with this reference, which clicks may set later.
            closer: Also encode the crops in which the reference lets its label be expected.
            must_stop: Asked before each of these crops; true leaves the rest undone.

        Returns:
            Whether everything was computed.

        Raises:
            ValueError: If no image is set.
        """
        with torch.inference_mode():
            crops = self._expected_crops(reference)
            for crop in crops if closer else ():
                if must_stop():
                    return False
                with self._precision():
                    self._prepare(crop, reference)
        return True

    @torch.inference_mode()
    def reference_comparison(self) -> ReferenceComparison | None:
        """How the patches of the whole image compare with the reference, in frozen features.

        Returns:
            None without a reference, and for a network without similarity channels.
        """
        with self._precision():
            features, prepared = self._prepare(Box.whole(*self.image_size), self._reference)
        return ReferenceComparison.of(features, prepared, self._reference)

    @torch.inference_mode()
    def predict(self, clicks: Sequence[Click], box: Box | None = None) -> MaskResult:
        """Segment the current image by the whole list of clicks.

        Clicks are applied one after another, each with the mask of the previous step, as an annotator would. Steps
        shared with the previous call are reused.

        Args:
            clicks: Clicks in image pixels (row, col; origin top left), oldest first. Without any, the result is what
                the reference alone suggests, or the mask in `box`. The first click does not build on a mask of the
                reference alone, but it refines the mask of a box.
            box: Box around the object in image pixels, both ends inclusive.

        Returns:
            Mask and probabilities in the image frame, the crop they were computed in, and what the mask is worth.

        Raises:
            ValueError: If no image is set, or a click or `box` lies outside the image.
        """
        height, width = self.image_size
        wanted = tuple(clicks)
        for click in wanted:
            if not (0 <= click.row < height and 0 <= click.col < width):
                raise ValueError(f"{click} lies outside the image of {height} rows and {width} columns")
        if box is not None and not box.is_within(height, width):
            raise ValueError(f"{box} lies outside the image of {height} rows and {width} columns")
        sources = None if self._reference is None else self._reference.sources
        step = self._steps.longest(sources, wanted, box)
        if step is None and self._start is not None and box is None:
            step = Step(None, (), self._start, None)
        first = 0 if box is not None else min(1, len(wanted))
        taken = first - 1 if step is None else len(step.clicks)
        for count in range(taken + 1, len(wanted) + 1):
            step = self._click_step(wanted[:count], box, step)
            self._steps.keep(sources, step)
        assert step is not None, "a list without a known step has at least one step to compute"
        return step.result

    def _click_step(self, clicks: tuple[Click, ...], box: Box | None, last: Step | None) -> Step:
        if last is None and box is not None:
            return self._box_step(box)
        crop, zoom_crop = self._choose_crop(clicks, last)
        result = self._segment_crop(clicks, crop, None if last is None else last.result.probability_hw, box)
        if last is not None or not self._looks_closer(result):
            return Step(box, clicks, result, zoom_crop)
        closer = self._zoomed_crop(clicks, result, result.crop, self.settings.second_look_expansion)
        if closer != crop:
            around = bounding_box(result.probability_hw > self.settings.zoom_threshold)
            closer = crop_next_to(closer, around, self._expected_crops(self._reference))
            second = self._segment_crop(clicks, closer, None)
            result = mean_of_looks(result, second)
        return Step(box, clicks, result, closer)

    def _expected_crops(self, reference: ReferenceTokens | None) -> tuple[Box, ...]:
        with self._precision():
            prepared = self._prepare(Box.whole(*self.image_size), reference)
            return self._features.expected(self.image_size, *prepared, reference)

    def _looks_closer(self, result: MaskResult) -> bool:
        """Whether a first mask is looked at again from nearby: only small ones gain."""
        mask_hw = result.probability_hw > self.settings.zoom_threshold
        if not self.settings.second_look or self.settings.second_look_share >= 1 or not mask_hw.any():
            return self.settings.second_look
        box, share = bounding_box(mask_hw), self.settings.second_look_share
        return box.height < share * result.crop.height and box.width < share * result.crop.width

    def _box_step(self, box: Box) -> Step:
        size = self.image_size
        crop = box_surroundings(box, *size) if self.settings.zoom else Box.whole(*size)
        previous_hw = None if self.network.config.box_input else box_map(box, *size)
        return Step(box, (), self._segment_crop((), crop, previous_hw, box), crop)

    def _choose_crop(self, clicks: tuple[Click, ...], last: Step | None) -> tuple[Box, Box | None]:
        """The crop for the next click, and the crop that counts as chosen from then on."""
        whole, skip = Box.whole(*self.image_size), self.settings.zoom_skip_clicks
        if last is None:
            return whole, (whole if skip < 0 else None)
        if not self.settings.zoom:
            return last.result.crop, last.zoom_crop
        empty = not (last.result.probability_hw > self.settings.zoom_threshold).any()
        if len(clicks) <= skip or (skip >= 0 and empty):
            return whole, last.zoom_crop
        crop = self._zoomed_crop(clicks, last.result, last.zoom_crop)
        return crop, crop

    def _zoomed_crop(
        self, clicks: tuple[Click, ...], last: MaskResult, zoom_crop: Box | None, expansion: float = EXPANSION
    ) -> Box:
        mask_hw, smallest = last.probability_hw > self.settings.zoom_threshold, self.settings.zoom_min_px
        return next_crop(mask_hw, clicks, zoom_crop, min_crop_px=smallest, expansion=expansion)

    def _segment_crop(
        self,
        clicks: tuple[Click, ...],
        crop: Box,
        previous_hw: NDArray[np.float32] | None,
        box: Box | None = None,
    ) -> MaskResult:
        size = self.settings.network_px
        limits = None if box is None else box_limits(box, clicks, *self.image_size)
        prompts = len(clicks) + (box is not None)
        if box is not None and limits is not None and not self.network.config.box_input:
            clicks = (*box_clicks(box, *self.image_size), *clicks)
        with self._precision():
            features, prepared = self._prepare(crop, self._reference)
            previous = torch.zeros(1, 1, size, size)
            if previous_hw is not None:
                previous = crop_map(previous_hw, crop, size)
            coords = self._coords(clicks_to_network(clicks, crop, size), previous, box, crop)
            found = self.network.segment(features, coords, prepared)
        if self.settings.flip:
            found = found.with_mirrored()
        placement = Placement(crop, size, self.image_size, limits, self.settings.threshold)
        return mask_result(found, placement, prompts)

    def _coords(
        self, clicks_network: Sequence[Click], previous: Tensor, box: Box | None, crop: Box
    ) -> Tensor:
        """The network's click maps (1 or 2, 3 or 4, S, S); with `flip`, those of the mirrored crop come second."""
        size = self.settings.network_px
        maps = [previous.to(self.device), disk_maps(click_table(clicks_network).to(self.device), size, size)]
        if self.network.config.box_input:
            maps.append(box_maps(box_to_network(box, crop, size).to(self.device), size, size))
        coords = torch.cat(maps, dim=1)
        if not self.settings.flip:
            return coords
        clicks_mirrored = click_table(mirrored(clicks_network, size))
        mirrored_maps = coords.flip(-1)
        mirrored_maps[:, 1:3] = disk_maps(clicks_mirrored.to(self.device), size, size)
        return torch.cat([coords, mirrored_maps])

    def _prepare(
        self, crop: Box, reference: ReferenceTokens | None
    ) -> tuple[ImageFeatures, PreparedReference | None]:
        assert self._image is not None
        if reference is not None and is_close(crop, *self.image_size):
            reference = reference.from_nearby
        features = self._features.encoded(self._image, crop)
        return features, self._features.prepared(crop, features, reference)

    def _precision(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.settings.bfloat16)
