"""Images of a project that a fine-tuning does not learn from but is tried on meanwhile, to stop early."""

from __future__ import annotations

import zlib

from model.data.scenes import Scene
from model.data.snapshot import Snapshot
from model.finetuning.checks import CheckedMask
from model.finetuning.settings import FineTuneSettings


def keep_aside(
    scenes: list[Scene], snapshot: Snapshot, settings: FineTuneSettings
) -> tuple[list[Scene], list[Scene]]:
    """(to check on, to learn from): a stable choice by image; references are learned from."""
    shown = {reference.file_name for reference in snapshot.references}
    if len({scene.image_path for scene in scenes}) < settings.min_checked_images:
        return [], scenes

    def is_checked(scene: Scene) -> bool:
        name = scene.image_path.name
        return name not in shown and zlib.crc32(name.encode()) % 1000 < 1000 * settings.checked_share

    checked = [scene for scene in scenes if is_checked(scene)]
    learned = [scene for scene in scenes if not is_checked(scene)]
    return (checked, learned) if learned else ([], scenes)


def checked_masks(checked: list[Scene], references: list[Scene], limit: int) -> list[CheckedMask]:
    """What is tried: labels of the images kept aside, evenly spread, each with a reference that shows it."""
    pairs = [(scene, label) for scene in checked for label in scene.part_rles]
    count = min(limit, len(pairs))
    chosen = [pairs[int((place + 0.5) * len(pairs) / count)] for place in range(count)]
    return [
        CheckedMask(scene, label, next((one for one in references if label in one.part_rles), None))
        for scene, label in chosen
    ]
