"""One picture to look at: target, click, reference, and the first mask with and without the reference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from model.data.scenes import Scene
from model.evaluation.combinations import KINDS, Sample
from model.evaluation.modes import Mode
from model.evaluation.records import Record
from model.evaluation.references import ReferenceFinder
from model.evaluation.runner import EvaluationSet
from model.evaluation.tiles import BLUE, GREEN, MARGIN_PX, RED, fitted, tile, tinted, with_click
from model.masks import decode, union
from model.types import RgbImage

ROWS_PER_KIND = 2


@dataclass(frozen=True)
class _Pair:
    """The same sample with and without its right reference."""

    scenes: list[Scene]
    sample: Sample
    right: Record
    none: Record


def write_contact_sheet(path: Path, records: Sequence[Record], one: EvaluationSet) -> bool:
    """A row for each of a few samples of each kind; False (nothing written) without the modes right and none."""
    rows = [_row(pair) for pair in _spread(_pairs(records, one))]
    if not rows:
        return False
    cv2.imwrite(str(path), cv2.cvtColor(np.concatenate(rows), cv2.COLOR_RGB2BGR))
    return True


def _pairs(records: Sequence[Record], one: EvaluationSet) -> list[_Pair]:
    found: dict[str, dict[str, Record]] = {}
    for record in records:
        if record.set_name == one.name and record.referenced:
            found.setdefault(record.sample, {})[record.mode] = record
    pairs = [
        _Pair(one.scenes, Sample.from_key(key), modes["right"], modes["none"])
        for key, modes in found.items()
        if {"right", "none"} <= set(modes)
    ]
    return sorted(pairs, key=lambda pair: (pair.sample.scene, pair.sample.parts))


def _spread(pairs: list[_Pair]) -> list[_Pair]:
    chosen = []
    for kind in KINDS:
        own = [pair for pair in pairs if pair.sample.kind == kind]
        count = min(ROWS_PER_KIND, len(own))
        chosen += [own[int((place + 0.5) * len(own) / count)] for place in range(count)]
    return chosen


def _row(pair: _Pair) -> RgbImage:
    scene = pair.scenes[pair.sample.scene]
    photo, masks = scene.image(), scene.masks()
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
    shown = {caption: fitted(picture) for caption, picture in pictures.items()}
    height = max(picture.shape[0] for picture in shown.values()) + MARGIN_PX
    return np.concatenate([tile(shown[caption], caption, height) for caption in shown], axis=1)


def _reference(pair: _Pair) -> RgbImage:
    choice = ReferenceFinder(pair.scenes).choose(pair.sample, Mode.parse("right"))[0]
    scene = pair.scenes[choice.scene]
    masks = scene.masks()
    layers = [
        (union(masks[name] for name in names), colour)
        for names, colour in ((choice.negative, RED), (choice.positive, GREEN))
        if names
    ]
    return tinted(scene.image(), layers)
