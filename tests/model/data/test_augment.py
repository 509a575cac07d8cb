"""The default augmentation: a mask stays on its part, and a part that is hardly visible is no target."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.random import default_rng

from model.data.augment import MIN_VISIBLE_SHARE, WHOLE_SHARE, augment_zoomed
from model.types import BoolMask, RgbImage

SIZE_PX = 112


def picture() -> tuple[RgbImage, dict[str, BoolMask]]:
    """A grey photograph (240 x 320) with a bright and a dark part."""
    image = np.full((240, 320, 3), 128, np.uint8)
    masks = {name: np.zeros((240, 320), bool) for name in ("bright", "dark")}
    masks["bright"][30:110, 40:140] = True
    masks["dark"][130:220, 180:300] = True
    image[masks["bright"]] = 230
    image[masks["dark"]] = 20
    return image, masks


@pytest.mark.parametrize("zoom_part", [None, "bright"])
def test_a_mask_moves_with_its_part(zoom_part: str | None) -> None:
    image, masks = picture()
    seen = 0
    for seed in range(40):
        crop = augment_zoomed(image, masks, SIZE_PX, default_rng(seed), zoom_part)
        assert crop.image.shape == (SIZE_PX, SIZE_PX, 3)
        brightness = crop.image.astype(int).sum(axis=2)
        outside = ~np.logical_or.reduce([np.zeros((SIZE_PX, SIZE_PX), bool), *crop.masks.values()])
        for name, mask in crop.masks.items():
            if outside.any():
                lighter = np.median(brightness[mask]) > np.median(brightness[outside])
                assert lighter == (name == "bright")
                seen += 1
    assert seen > 30


def test_a_close_up_shows_its_part_larger_than_the_whole_photograph_does() -> None:
    image, masks = picture()
    of_photograph = masks["bright"].mean()
    for seed in range(40):
        crop = augment_zoomed(image, masks, SIZE_PX, default_rng(seed), "bright")
        assert crop.masks["bright"].mean() > of_photograph


def test_views_that_are_not_close_up_mostly_show_the_whole_photograph() -> None:
    image, masks = picture()
    shares = [
        sum(
            mask.mean()
            for mask in augment_zoomed(image, masks, SIZE_PX, default_rng(seed), None).masks.values()
        )
        for seed in range(300)
    ]
    of_photograph = sum(mask.mean() for mask in masks.values())
    whole = np.isclose(shares, of_photograph, rtol=0.04).mean()
    assert whole == pytest.approx(WHOLE_SHARE, abs=0.12)


def test_a_part_that_is_nearly_cut_off_is_no_target() -> None:
    image, masks = picture()
    scale = SIZE_PX * SIZE_PX / (240 * 320)
    cut = 0
    for seed in range(200):
        crop = augment_zoomed(image, masks, SIZE_PX, default_rng(seed), None)
        cut += len(crop.masks) < len(masks)
        for name, mask in crop.masks.items():
            assert mask.sum() >= 0.9 * MIN_VISIBLE_SHARE * masks[name].sum() * scale
    assert cut
