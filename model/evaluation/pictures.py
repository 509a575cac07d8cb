"""Pictures to look at: a contact sheet of an evaluation, and before/after rows of a comparison.

`write_contact_sheet` shows target, click, reference, and the first mask with and without the reference: the worst masks
beside typical ones.
`draw_before_after` shows the first mask of the serving network and of the candidate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import cv2
import numpy as np

from model.data.annotated_objects import AnnotatedObject
from model.evaluation.comparison import AnnotatedMask, Comparison
from model.evaluation.modes import Mode
from model.evaluation.records import Record
from model.evaluation.references import ReferenceFinder
from model.evaluation.runner import EvaluationSet
from model.evaluation.samples import Sample
from model.images import read_image
from model.masks import decode, evenly_spaced, union
from model.types import BoolMask, RgbImage

TILE_PX = 240
CAPTION_PX = 22
MARGIN_PX = 4
GREEN, RED, BLUE = (40, 200, 60), (230, 50, 40), (50, 110, 240)


def tinted(photo: RgbImage, layers: list[tuple[BoolMask, tuple[int, int, int]]]) -> RgbImage:
    """Draw masks over an image.

    Args:
        photo: RGB (H, W, 3).
        layers: Masks (H, W) and their RGB colours; later ones are drawn over earlier ones.
    """
    out = photo.astype(np.float32)
    for mask_hw, colour in layers:
        out[mask_hw] = 0.4 * photo[mask_hw] + 0.6 * np.array(colour, np.float32)
    return out.round().astype(np.uint8)


def with_click(photo: RgbImage, click: list[float]) -> RgbImage:
    """Draw a click over an image: a green dot if it is positive, else a red one.

    Args:
        photo: RGB (H, W, 3).
        click: [row, column, 1 or 0 (negative)] in pixels of the image.
    """
    out = photo.copy()
    radius = max(4, round(max(photo.shape[:2]) / 50))
    centre_xy = round(click[1]), round(click[0])
    cv2.circle(out, centre_xy, radius, (255, 255, 255), -1)
    cv2.circle(out, centre_xy, max(2, radius - 2), GREEN if click[2] else RED, -1)
    return out


def fitted(picture: RgbImage) -> RgbImage:
    """Resize a picture (H, W, 3) so that it fits into a tile."""
    height, width = picture.shape[:2]
    scale = (TILE_PX - MARGIN_PX) / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)


def tile(picture: RgbImage, caption: str, height: int) -> RgbImage:
    """Place a fitted picture in the middle of a white tile, with a line of text above.

    Args:
        picture: A picture of `fitted`.
        caption: Shortened to 34 characters.
        height: Height of the tile below the caption, in pixels.
    """
    out = np.full((height + CAPTION_PX, TILE_PX, 3), 255, np.uint8)
    top = CAPTION_PX + (height - picture.shape[0]) // 2
    left = (TILE_PX - picture.shape[1]) // 2
    out[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
    shown = caption if len(caption) <= 34 else caption[:32] + ".."
    cv2.putText(out, shown, (4, CAPTION_PX - 7), cv2.FONT_HERSHEY_SIMPLEX, 0.38, (0, 0, 0), 1, cv2.LINE_AA)
    return out


def row_of_tiles(pictures: dict[str, RgbImage]) -> RgbImage:
    """Lay pictures out in a row of tiles, by caption."""
    shown = {caption: fitted(picture) for caption, picture in pictures.items()}
    height = max(picture.shape[0] for picture in shown.values()) + MARGIN_PX
    return np.concatenate([tile(picture, caption, height) for caption, picture in shown.items()], axis=1)


SHEET_ROWS = 12
"""Rows of a contact sheet: this many of the worst masks, beside as many around the median."""
GAP_PX = 16


@dataclass(frozen=True)
class _Pair:
    """A sample that was run with and without its reference."""

    annotated_objects: list[AnnotatedObject]
    sample: Sample
    right: Record
    none: Record


def write_contact_sheet(path: Path, records: Sequence[Record], one: EvaluationSet) -> bool:
    """Draw the samples with the worst first masks beside those around the median into a PNG.

    The order is that of the first click's IoU with the right reference. A sample is shown once.

    Args:
        path: The PNG.
        records: Results of any sets and modes.
        one: The set to be shown.

    Returns:
        False, with nothing written, if no sample was run in both of the modes "right" and "none".
    """
    pairs = _pairs(records, one)
    if not pairs:
        return False
    worst, median = worst_and_median([pair.right.ious[0] for pair in pairs], SHEET_ROWS)
    left, right = ([_row(pairs[number]) for number in chosen] for chosen in (worst, median))
    width = left[0].shape[1]
    heights = [max(row.shape[0] for row in rows if row is not None) for rows in zip_longest(left, right)]
    blocks = [
        _block(f"{len(rows)} {name} of {len(pairs)}", rows, heights, width)
        for name, rows in (("worst", left), ("around the median", right))
    ]
    gap = np.full((blocks[0].shape[0], GAP_PX, 3), 255, np.uint8)
    sheet = np.concatenate([blocks[0], gap, blocks[1]], axis=1)
    cv2.imwrite(str(path), cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))
    return True


def worst_and_median(ious: Sequence[float], rows: int) -> tuple[list[int], list[int]]:
    """Choose the worst masks, and those around the median that are not among them.

    Args:
        ious: IoU of each mask.
        rows: How many to choose of either; fewer if there are fewer than twice as many masks.

    Returns:
        Their numbers, the worst first.

    Example:
        >>> worst_and_median([0.9, 0.1, 0.8, 0.2, 0.7, 0.6, 1.0], rows=2)
        ([1, 3], [4, 2])
    """
    order = sorted(range(len(ious)), key=lambda number: ious[number])
    worst = order[: min(rows, (len(order) + 1) // 2)]
    first = max(len(worst), (len(order) - rows + 1) // 2)
    return worst, order[first : first + rows]


def _block(title: str, rows: Sequence[RgbImage], heights: Sequence[int], width: int) -> RgbImage:
    """Rows under a title, each padded with white to its height."""
    heading = np.full((CAPTION_PX, width, 3), 255, np.uint8)
    cv2.putText(heading, title, (4, CAPTION_PX - 6), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 1, cv2.LINE_AA)
    padded = []
    for number, height in enumerate(heights):
        out = np.full((height, width, 3), 255, np.uint8)
        if number < len(rows):
            out[: rows[number].shape[0]] = rows[number]
        padded.append(out)
    return np.concatenate([heading, *padded])


def _pairs(records: Sequence[Record], one: EvaluationSet) -> list[_Pair]:
    found: dict[str, dict[str, Record]] = {}
    for record in records:
        if record.set_name == one.name and record.referenced:
            found.setdefault(record.sample, {})[record.mode] = record
    pairs = [
        _Pair(one.annotated_objects, Sample.from_key(key), modes["right"], modes["none"])
        for key, modes in found.items()
        if {"right", "none"} <= set(modes)
    ]
    return sorted(pairs, key=lambda pair: (pair.sample.annotated_object, pair.sample.parts))


def _row(pair: _Pair) -> RgbImage:
    annotated_object = pair.annotated_objects[pair.sample.annotated_object]
    photo, masks = annotated_object.image(), annotated_object.masks()
    target_hw = union(masks[name] for name in pair.sample.parts)
    click = pair.right.clicks[0]
    with_hw, without_hw = decode(pair.right.first_mask), decode(pair.none.first_mask)
    pictures = {
        f"{pair.sample.kind}: {' + '.join(pair.sample.parts)}": tinted(photo, [(target_hw, BLUE)]),
        "first click": with_click(photo, click),
        "reference": _reference(pair),
        f"with: IoU {pair.right.ious[0]:.2f}": tinted(photo, [(with_hw, BLUE)]),
        f"without: IoU {pair.none.ious[0]:.2f}": tinted(photo, [(without_hw, BLUE)]),
    }
    return row_of_tiles(pictures)


def _reference(pair: _Pair) -> RgbImage:
    choice = ReferenceFinder(pair.annotated_objects).choose(pair.sample, Mode.parse("right"))[0]
    annotated_object = pair.annotated_objects[choice.annotated_object]
    masks = annotated_object.masks()
    layers = [
        (union(masks[name] for name in names), colour)
        for names, colour in ((choice.negative, RED), (choice.positive, GREEN))
        if names
    ]
    return tinted(annotated_object.image(), layers)


ROWS = 6


def draw_before_after(path: Path, comparison: Comparison, image_dir: Path) -> bool:
    """Draw a row for each of a few evenly spaced masks into a PNG.

    Args:
        path: The PNG.
        comparison: The compared networks with their masks.
        image_dir: Folder of the images.

    Returns:
        False, with nothing written, if there is no mask.
    """
    pairs = list(zip(*comparison.masks, strict=True))
    chosen = evenly_spaced(pairs, ROWS)
    if not chosen:
        return False
    rows = [_before_after_row(before, after, image_dir) for before, after in chosen]
    cv2.imwrite(str(path), cv2.cvtColor(np.concatenate(rows), cv2.COLOR_RGB2BGR))
    return True


def _before_after_row(before: AnnotatedMask, after: AnnotatedMask, image_dir: Path) -> RgbImage:
    photo = read_image(image_dir / before.image)
    click = before.first_click
    dot = [click.row, click.col, float(click.positive)]
    pictures = {
        before.label: with_click(tinted(photo, [(before.target_hw, GREEN)]), dot),
        f"before: IoU {before.ious[0]:.2f}": tinted(photo, [(before.first_mask_hw, BLUE)]),
        f"after: IoU {after.ious[0]:.2f}": tinted(photo, [(after.first_mask_hw, BLUE)]),
    }
    return row_of_tiles(pictures)
