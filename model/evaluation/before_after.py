"""The picture of a judgement: first masks of the serving network and of the candidate side by side."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from model.evaluation.tiles import BLUE, GREEN, MARGIN_PX, fitted, tile, tinted, with_click
from model.images import read_image
from model.judgement import JudgedMask, Judgement
from model.types import RgbImage

ROWS = 6


def draw_before_after(path: Path, judgement: Judgement, image_dir: Path) -> bool:
    """A row for each of a few masks, picked evenly and not for their looks. False (nothing written) without any."""
    pairs = list(zip(*judgement.masks, strict=True))
    count = min(ROWS, len(pairs))
    chosen = [pairs[int((place + 0.5) * len(pairs) / count)] for place in range(count)]
    if not chosen:
        return False
    rows = [_row(before, after, image_dir) for before, after in chosen]
    cv2.imwrite(str(path), cv2.cvtColor(np.concatenate(rows), cv2.COLOR_RGB2BGR))
    return True


def _row(before: JudgedMask, after: JudgedMask, image_dir: Path) -> RgbImage:
    photo = read_image(image_dir / before.image)
    click = before.first_click
    place = [click.row, click.col, float(click.positive)]
    pictures = {
        before.label: with_click(tinted(photo, [(before.target_hw, GREEN)]), place),
        f"before: IoU {before.ious[0]:.2f}": tinted(photo, [(before.first_mask_hw, BLUE)]),
        f"after: IoU {after.ious[0]:.2f}": tinted(photo, [(after.first_mask_hw, BLUE)]),
    }
    shown = {caption: fitted(picture) for caption, picture in pictures.items()}
    height = max(picture.shape[0] for picture in shown.values()) + MARGIN_PX
    return np.concatenate([tile(shown[caption], caption, height) for caption in shown], axis=1)
