"""Clicks that people really made, as training targets: the photograph as a first look sees it, and its logged clicks."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray

from model.data.click_sampling import ROUND_SLOTS
from model.data.pair_sampling import patch_shares, plain_view
from model.data.scenes import Scene
from model.data.snapshot import ClickSession, SnapshotScene
from model.masks import union
from model.network.click_maps import ABSENT
from model.training.batches import Batch
from model.types import BoolMask

TARGETS = 3
MAX_CLICKS = 5
"""Of each sign; the network's own mistakes are clicked on afterwards."""
FLIPPED_SHARE = 0.5


@dataclass(frozen=True)
class LoggedScene:
    """A scene with its labels' logged clicks."""

    scene: Scene
    sessions: dict[str, list[ClickSession]]


def logged_scenes(said: list[SnapshotScene], scenes: list[Scene]) -> list[LoggedScene]:
    """Those of `scenes` that people clicked on. said: what the snapshot says of the same images."""
    found = []
    for scene in scenes:
        sessions: dict[str, list[ClickSession]] = {}
        for one in said:
            if one.file_name != scene.image_path.name:
                continue
            for mask in one.masks:
                useful = [session for session in mask.sessions if session and session[0][2]]
                if useful and mask.label in scene.part_rles:
                    sessions.setdefault(mask.label, []).extend(useful)
        if sessions:
            found.append(LoggedScene(scene, sessions))
    return found


def session_batch(
    logged: LoggedScene, reference: Scene | None, size_px: int, grid: int, rng: Generator
) -> Batch:
    """Targets of one photograph with clicks of their sessions. View 0 is the photograph, view 1 its reference.

    reference: a scene that shares labels; None = without a reference.
    """
    image, masks = logged.scene.image(), logged.scene.masks()
    here = plain_view(image, masks, size_px)
    scale = size_px / image.shape[0], size_px / image.shape[1]
    labels = sorted(set(logged.sessions) & set(here.masks)) or sorted(here.masks)[:1]
    there_image, there_masks = here.image, {name: np.zeros_like(mask) for name, mask in here.masks.items()}
    if reference is not None:
        there = plain_view(reference.image(), reference.masks(), size_px)
        there_image, there_masks = there.image, there.masks
    flipped = rng.random() < FLIPPED_SHARE
    targets, tables, positives, negatives = [], [], [], []
    for _ in range(TARGETS):
        label = labels[rng.integers(len(labels))]
        target = here.masks[label][:, ::-1] if flipped else here.masks[label]
        targets.append(np.ascontiguousarray(target))
        tables.append(_table(logged.sessions.get(label, []), target, scale, size_px, flipped, rng))
        positive, negative = _reference_masks(there_masks, label, target)
        positives.append(patch_shares(positive, grid))
        negatives.append(patch_shares(negative, grid))
    view = np.ascontiguousarray(here.image[:, ::-1]) if flipped else here.image
    return Batch(
        images=torch.from_numpy(np.stack([view, there_image])).permute(0, 3, 1, 2),
        targets=torch.from_numpy(np.stack(targets))[:, None],
        target_view=torch.zeros(TARGETS, dtype=torch.long),
        reference_view=torch.ones(TARGETS, dtype=torch.long),
        positive=torch.from_numpy(np.stack(positives)),
        negative=torch.from_numpy(np.stack(negatives)),
        clicks=torch.from_numpy(np.stack(tables)),
    )


def _reference_masks(there: dict[str, BoolMask], label: str, target: BoolMask) -> tuple[BoolMask, BoolMask]:
    """What the reference says is meant, and what is not. Nothing where it does not show the label."""
    nothing = np.zeros_like(target)
    if label not in there:
        return nothing, nothing
    others = [mask for name, mask in there.items() if name != label]
    return there[label], union(others) & ~there[label] if others else nothing


def _table(
    sessions: list[ClickSession],
    target: BoolMask,
    scale: tuple[float, float],
    size_px: int,
    flipped: bool,
    rng: Generator,
) -> NDArray[np.float32]:
    """The first few clicks of a session as rows (row, column, order); a click on the target where there is none."""
    table = np.full((2 * ROUND_SLOTS, 3), ABSENT, np.float32)
    clicks = list(sessions[rng.integers(len(sessions))]) if sessions else []
    clicks = clicks[: 1 + int(rng.integers(len(clicks)))] if clicks else []
    counts = {True: 0, False: 0}
    for order, (row, col, sign) in enumerate(clicks):
        positive = bool(sign)
        if counts[positive] >= MAX_CLICKS:
            continue
        place_row = min(row * scale[0], size_px - 1)
        place_col = min(col * scale[1], size_px - 1)
        slot = counts[positive] + (0 if positive else ROUND_SLOTS)
        table[slot] = place_row, size_px - 1 - place_col if flipped else place_col, order
        counts[positive] += 1
    if not counts[True]:
        inside = np.argwhere(cv2.erode(target.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0)
        inside = inside if len(inside) else np.argwhere(target)
        table[0] = *inside[rng.integers(len(inside))], 0
    return table
