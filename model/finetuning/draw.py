"""What a fine-tuning step sees: the project's pairs, people's clicks, and what must not be forgotten."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from numpy.random import Generator, default_rng

from model.data.pair_sampling import PairSettings, sample_group
from model.data.scenes import Scene
from model.data.snapshot import Snapshot
from model.finetuning.sessions import LoggedScene, session_batch
from model.training.batches import Batch
from model.training.config import Stage
from model.training.sampling import GroupDraw, SourcedScenes, joined_groups

PROJECT_PAIRS = PairSettings(single=0.7, connected_pair=0.1, whole=0.05, shared_click=0.35, no_reference=0.12)
"""A project's annotators click on single labels, nearly always with a reference."""
TRIES = 30


@dataclass(frozen=True)
class Shares:
    """How often what is drawn; see `FineTuneSettings`."""

    reference: float
    session: float
    replay: float


class FineTuneDraw:
    """Groups as in `GroupDraw`, three targets or six a group. Step n draws the same on every run with a seed."""

    def __init__(
        self,
        scenes: Sequence[Scene],
        references: Sequence[Scene],
        logged: Sequence[LoggedScene],
        replay: Sequence[SourcedScenes],
        shares: Shares,
        patch_px: int,
    ) -> None:
        """scenes: to learn from (at least one). references: the project's own, by which its labels are shown."""
        self._scenes = scenes
        self._references = references
        self._logged = logged
        self._replay = GroupDraw(replay, patch_px, "zoomed", PairSettings()) if replay else None
        self._shares = shares
        self._patch_px = patch_px

    def units(self, stage: Stage) -> int:
        return stage.groups

    def batches(self, stage: Stage, seed: int, step: int, parts: Sequence[range]) -> list[Batch]:
        return [joined([self._unit(stage.size_px, seed, step, unit) for unit in part]) for part in parts]

    def _unit(self, size_px: int, seed: int, step: int, unit: int) -> Batch:
        rng = default_rng([seed, size_px, step, 2, unit])
        grid = size_px // self._patch_px
        if self._replay is not None and rng.random() < self._shares.replay:
            first, second = self._replay.pair(rng)
            return joined_groups([sample_group(first, second, size_px, grid, PairSettings(), rng)])
        if self._logged and rng.random() < self._shares.session:
            logged = self._logged[int(rng.integers(len(self._logged)))]
            return session_batch(logged, self._reference_of(logged.scene, rng), size_px, grid, rng)
        first = self._scenes[int(rng.integers(len(self._scenes)))]
        second = self._reference_of(first, rng) or first
        return joined_groups([sample_group(first, second, size_px, grid, PROJECT_PAIRS, rng)])

    def _reference_of(self, scene: Scene, rng: Generator) -> Scene | None:
        """Another photograph with one of the scene's labels: one of the project's references, or any."""
        preferred = rng.random() < self._shares.reference
        for pool in (self._references, self._scenes) if preferred else (self._scenes,):
            for _ in range(TRIES if pool else 0):
                other = pool[int(rng.integers(len(pool)))]
                if other.image_path != scene.image_path and set(other.part_rles) & set(scene.part_rles):
                    return other
        return None


def reference_scenes(snapshot: Snapshot, scenes: Sequence[Scene]) -> list[Scene]:
    """The snapshot's references as scenes; what else is annotated on those photographs tells what is not meant.

    scenes: what may be learned from.
    """
    annotated = {scene.image_path.name: scene for scene in scenes}
    found: dict[str, Scene] = {}
    for reference in snapshot.references:
        known = found.get(reference.file_name) or annotated.get(reference.file_name)
        parts = dict(known.part_rles) if known else {}
        parts[reference.label] = [reference.positive]
        if reference.negative is not None and known is None:
            parts[f"not {reference.label}"] = [reference.negative]
        path = snapshot.image_dir / reference.file_name
        found[reference.file_name] = Scene(path, "project", parts, has_whole=False, names_carry=True)
    return [found[name] for name in sorted(found)]


def joined(batches: Sequence[Batch]) -> Batch:
    """Several batches of one size as one."""
    starts = [0]
    for batch in batches:
        starts.append(starts[-1] + len(batch.images))
    pairs = list(zip(batches, starts, strict=False))
    return Batch(
        images=torch.cat([batch.images for batch in batches]),
        targets=torch.cat([batch.targets for batch in batches]),
        target_view=torch.cat([batch.target_view + start for batch, start in pairs]),
        reference_view=torch.cat([batch.reference_view + start for batch, start in pairs]),
        positive=torch.cat([batch.positive for batch in batches]),
        negative=torch.cat([batch.negative for batch in batches]),
        clicks=torch.cat([batch.clicks for batch in batches]),
    )
