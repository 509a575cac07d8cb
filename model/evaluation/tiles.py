"""Small pictures with a caption, out of which sheets are put together."""

from __future__ import annotations

import cv2
import numpy as np

from model.types import BoolMask, RgbImage

TILE_PX = 240
CAPTION_PX = 22
MARGIN_PX = 4
GREEN, RED, BLUE = (40, 200, 60), (230, 50, 40), (50, 110, 240)


def tinted(photo: RgbImage, layers: list[tuple[BoolMask, tuple[int, int, int]]]) -> RgbImage:
    """The photograph with each mask (H, W) in its colour; a later one lies on top."""
    out = photo.astype(np.float32)
    for mask_hw, colour in layers:
        out[mask_hw] = 0.4 * photo[mask_hw] + 0.6 * np.array(colour, np.float32)
    return out.round().astype(np.uint8)


def with_click(photo: RgbImage, click: list[float]) -> RgbImage:
    out = photo.copy()
    radius = max(4, round(max(photo.shape[:2]) / 50))
    place = round(click[1]), round(click[0])
    cv2.circle(out, place, radius, (255, 255, 255), -1)
    cv2.circle(out, place, max(2, radius - 2), GREEN if click[2] else RED, -1)
    return out


def fitted(picture: RgbImage) -> RgbImage:
    """A picture as large as fits into a tile."""
    height, width = picture.shape[:2]
    scale = (TILE_PX - MARGIN_PX) / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)


def tile(picture: RgbImage, caption: str, height: int) -> RgbImage:
    """A fitted picture in the middle of a white tile with a line of text above."""
    tile = np.full((height + CAPTION_PX, TILE_PX, 3), 255, np.uint8)
    top = CAPTION_PX + (height - picture.shape[0]) // 2
    left = (TILE_PX - picture.shape[1]) // 2
    tile[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
    shown = caption if len(caption) <= 34 else caption[:32] + ".."
    cv2.putText(tile, shown, (4, CAPTION_PX - 7), cv2.FONT_HERSHEY_SIMPLEX, 0.38, (0, 0, 0), 1, cv2.LINE_AA)
    return tile
