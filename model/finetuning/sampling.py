"""The sampler of fine-tuning: groups of project images, sessions of logged clicks, and replayed data.

`FineTuneSampler` draws each group of a step from one of three sources:

- a session: an image with the clicks that annotators really made on it (`session_batch`), seen whole as at a first click;
- a project pair: two crops of project images (`model.data.pair_sampling`), one the reference of the other;
- replay: the same from other data sets or earlier snapshots, against forgetting.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.random import Generator, default_rng
from numpy.typing import NDArray

from model.data.annotated_objects import AnnotatedObject
from model.data.pair_sampling import PairSettings, patch_shares, sample_group, whole_crop
from model.data.snapshot import ClickSession, Snapshot, SnapshotObject
from model.masks import union
from model.network.click_maps import ABSENT
from model.network.config import NetworkConfig
from model.training.batches import Batch
from model.training.config import Stage
from model.training.sampling import GroupSampler, SourcedObjects, batch_groups, with_boxes_if_seen
from model.types import ROUND_SLOTS, BoolMask

TARGETS = 3
"""Targets of a session."""
MAX_CLICKS = 5
"""Most logged clicks of each sign; simulated clicks on the network's own errors follow them."""
FLIPPED_SHARE = 0.5


@dataclass(frozen=True)
class LoggedObject:
    """An annotated object with logged clicks.

    Attributes:
        annotated_object: Image and masks.
        sessions: Sessions of clicks by label.
    """

    annotated_object: AnnotatedObject
    sessions: dict[str, list[ClickSession]]


def logged_objects(
    annotations: list[SnapshotObject], annotated_objects: list[AnnotatedObject]
) -> list[LoggedObject]:
    """Find the annotated objects that annotators clicked on.

    Args:
        annotations: Training annotations of the snapshot, with their sessions.
        annotated_objects: Training annotated objects.

    Returns:
        Annotated objects with at least one session that begins with a positive click.
    """
    found = []
    for annotated_object in annotated_objects:
        sessions: dict[str, list[ClickSession]] = {}
        for annotation in annotations:
            if annotation.file_name != annotated_object.image_path.name:
                continue
            for mask in annotation.masks:
                useful = [session for session in mask.sessions if session and session[0][2]]
                if useful and mask.label in annotated_object.part_rles:
                    sessions.setdefault(mask.label, []).extend(useful)
        if sessions:
            found.append(LoggedObject(annotated_object, sessions))
    return found


def session_batch(
    logged: LoggedObject, reference: AnnotatedObject | None, size_px: int, grid: int, rng: Generator
) -> Batch:
    """Make the targets of one image with the clicks of their sessions.

    Args:
        logged: The image; it is crop 0, seen whole.
        reference: AnnotatedObject that shares a label; it is crop 1. None trains without a reference.
        size_px: Side of the crops.
        grid: Patches per side of a crop.
        rng: Draws everything random.
    """
    image, masks = logged.annotated_object.image(), logged.annotated_object.masks()
    here = whole_crop(image, masks, size_px)
    scale = size_px / image.shape[0], size_px / image.shape[1]
    labels = sorted(set(logged.sessions) & set(here.masks)) or sorted(here.masks)[:1]
    there_image, there_masks = here.image, {name: np.zeros_like(mask) for name, mask in here.masks.items()}
    if reference is not None:
        there = whole_crop(reference.image(), reference.masks(), size_px)
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
    crop = np.ascontiguousarray(here.image[:, ::-1]) if flipped else here.image
    return Batch(
        images=torch.from_numpy(np.stack([crop, there_image])).permute(0, 3, 1, 2),
        targets=torch.from_numpy(np.stack(targets))[:, None],
        target_crop=torch.zeros(TARGETS, dtype=torch.long),
        reference_crop=torch.ones(TARGETS, dtype=torch.long),
        positive=torch.from_numpy(np.stack(positives)),
        negative=torch.from_numpy(np.stack(negatives)),
        clicks=torch.from_numpy(np.stack(tables)),
        boxes=torch.full((TARGETS, 4), ABSENT),
    )


def _reference_masks(there: dict[str, BoolMask], label: str, target: BoolMask) -> tuple[BoolMask, BoolMask]:
    """Positive and negative mask of the reference for a label; both empty if it does not show the label."""
    empty = np.zeros_like(target)
    if label not in there:
        return empty, empty
    others = [mask for name, mask in there.items() if name != label]
    return there[label], union(others) & ~there[label] if others else empty


def _table(
    sessions: list[ClickSession],
    target: BoolMask,
    scale: tuple[float, float],
    size_px: int,
    flipped: bool,
    rng: Generator,
) -> NDArray[np.float32]:
    """Click table (2 * ROUND_SLOTS, 3) of the first clicks of a session; one click on the target if it has none."""
    table = np.full((2 * ROUND_SLOTS, 3), ABSENT, np.float32)
    clicks = list(sessions[rng.integers(len(sessions))]) if sessions else []
    clicks = clicks[: 1 + int(rng.integers(len(clicks)))] if clicks else []
    counts = {True: 0, False: 0}
    for order, (row, col, sign) in enumerate(clicks):
        positive = bool(sign)
        if counts[positive] >= MAX_CLICKS:
            continue
        crop_row = min(row * scale[0], size_px - 1)
        crop_col = min(col * scale[1], size_px - 1)
        slot = counts[positive] + (0 if positive else ROUND_SLOTS)
        table[slot] = crop_row, size_px - 1 - crop_col if flipped else crop_col, order
        counts[positive] += 1
    if not counts[True]:
        inside = np.argwhere(cv2.erode(target.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0)
        inside = inside if len(inside) else np.argwhere(target)
        table[0] = *inside[rng.integers(len(inside))], 0
    return table


PROJECT_PAIRS = PairSettings(
    single=0.7,
    one_piece=0.1,
    connected_pair=0.1,
    whole=0.05,
    shared_click=0.35,
    no_reference=0.12,
    box=0.06,
)
"""Annotators of a project click on single labels, nearly always with a reference. A mask holds all regions of a label."""
TRIES = 30


@dataclass(frozen=True)
class Shares:
    """How often each kind of group is drawn; see `FineTuneSettings`.

    Attributes:
        reference: `reference_share`.
        session: `session_share`.
        replay: `replay_share`.
    """

    reference: float
    session: float
    replay: float


class FineTuneSampler:
    """Makes project pairs (six targets), sessions (three targets) and replayed pairs; see the module.

    Step n gives the same targets on every run with the same seed.
    """

    def __init__(
        self,
        annotated_objects: Sequence[AnnotatedObject],
        references: Sequence[AnnotatedObject],
        logged: Sequence[LoggedObject],
        replay: Sequence[SourcedObjects],
        shares: Shares,
        network: NetworkConfig,
    ) -> None:
        """Set up the sampler.

        Args:
            annotated_objects: Project images to learn from, at least one.
            references: The project's references, as annotated objects.
            logged: Project images with logged clicks.
            replay: Other data; may be empty.
            shares: How often each kind is drawn.
            network: Gives the side of the patches, and whether there is an input for boxes.
        """
        self._annotated_objects = annotated_objects
        self._references = references
        self._logged = logged
        self._pairs = with_boxes_if_seen(PROJECT_PAIRS, network)
        replayed = with_boxes_if_seen(PairSettings(), network)
        self._replay = GroupSampler(replay, network.patch_px, "zoomed", replayed) if replay else None
        self._shares = shares
        self._patch_px = network.patch_px

    def units(self, stage: Stage) -> int:
        """Return the number of groups per step."""
        return stage.groups

    def batches(self, stage: Stage, seed: int, step: int, parts: Sequence[range]) -> list[Batch]:
        """Make some groups of a step; see `model.training.batches.Sampler.batches`."""
        return [
            concatenate_batches([self._unit(stage.size_px, seed, step, unit) for unit in part])
            for part in parts
        ]

    def _unit(self, size_px: int, seed: int, step: int, unit: int) -> Batch:
        rng = default_rng([seed, size_px, step, 2, unit])
        grid = size_px // self._patch_px
        if self._replay is not None and rng.random() < self._shares.replay:
            return batch_groups([self._replay.group(size_px, rng)])
        if self._logged and rng.random() < self._shares.session:
            logged = self._logged[int(rng.integers(len(self._logged)))]
            return session_batch(logged, self._reference_of(logged.annotated_object, rng), size_px, grid, rng)
        first = self._annotated_objects[int(rng.integers(len(self._annotated_objects)))]
        second = self._reference_of(first, rng) or first
        return batch_groups([sample_group(first, second, size_px, grid, self._pairs, rng)])

    def _reference_of(self, annotated_object: AnnotatedObject, rng: Generator) -> AnnotatedObject | None:
        """Draw another image with one of the object's labels: a reference of the project, or any project image."""
        preferred = rng.random() < self._shares.reference
        for pool in (self._references, self._annotated_objects) if preferred else (self._annotated_objects,):
            for _ in range(TRIES if pool else 0):
                other = pool[int(rng.integers(len(pool)))]
                if other.image_path != annotated_object.image_path and set(other.part_rles) & set(
                    annotated_object.part_rles
                ):
                    return other
        return None


def reference_objects(
    snapshot: Snapshot, annotated_objects: Sequence[AnnotatedObject]
) -> list[AnnotatedObject]:
    """Convert the references of a snapshot to annotated objects.

    Other masks annotated on the same image become parts of the annotated object, so that they can serve as negatives.

    Args:
        snapshot: Its references are read.
        annotated_objects: Annotated objects that may be learned from.

    Returns:
        One annotated object per reference image, in the order of file names.
    """
    annotated = {annotated_object.image_path.name: annotated_object for annotated_object in annotated_objects}
    found: dict[str, AnnotatedObject] = {}
    for reference in snapshot.references:
        known = found.get(reference.file_name) or annotated.get(reference.file_name)
        parts = dict(known.part_rles) if known else {}
        parts[reference.label] = [reference.positive]
        if reference.negative is not None and known is None:
            parts[f"not {reference.label}"] = [reference.negative]
        path = snapshot.image_dir / reference.file_name
        found[reference.file_name] = AnnotatedObject(
            path, "project", parts, has_whole=False, names_carry=True
        )
    return [found[name] for name in sorted(found)]


def concatenate_batches(batches: Sequence[Batch]) -> Batch:
    """Concatenate batches of one crop size."""
    starts = [0]
    for batch in batches:
        starts.append(starts[-1] + len(batch.images))
    pairs = list(zip(batches, starts, strict=False))
    return Batch(
        images=torch.cat([batch.images for batch in batches]),
        targets=torch.cat([batch.targets for batch in batches]),
        target_crop=torch.cat([batch.target_crop + start for batch, start in pairs]),
        reference_crop=torch.cat([batch.reference_crop + start for batch, start in pairs]),
        positive=torch.cat([batch.positive for batch in batches]),
        negative=torch.cat([batch.negative for batch in batches]),
        clicks=torch.cat([batch.clicks for batch in batches]),
        boxes=torch.cat([batch.boxes for batch in batches]),
    )
