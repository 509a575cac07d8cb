"""Looks at a few masks that are not trained on, to stop early and to keep the best weights."""

from __future__ import annotations

import json
import os
import statistics
import zlib
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

from model.data.scenes import Scene
from model.data.snapshot import Snapshot
from model.evaluation.robot_annotator import Clicker, annotate
from model.finetuning.config import FineTuneSettings
from model.masks import union
from model.network.prompts import ReferenceTokens
from model.network.refcut import RefCut
from model.predictor import RefCutPredictor
from model.predictor_config import serving_settings
from model.types import BoolMask

BEST_FILE, BEST_SCORE_FILE = "best.safetensors", "best.json"
CLICKS = 3


@dataclass(frozen=True)
class CheckedMask:
    """A label of a scene, and the scene that says what it means (None: none does)."""

    scene: Scene
    label: str
    reference: Scene | None


def score(network: RefCut, masks: list[CheckedMask]) -> float:
    """Mean IoU over the first three clicks of the robot, each counted once. At least one mask."""
    predictor = RefCutPredictor(network.eval(), serving_settings(network.config))
    found = []
    shown: Scene | None = None
    encoded: dict[tuple[Path | None, str], ReferenceTokens | None] = {}
    for mask in masks:
        target_hw = mask.scene.masks()[mask.label]
        if mask.scene is not shown:
            predictor.set_image(mask.scene.image())
            shown = mask.scene
        of = (mask.reference.image_path if mask.reference else None, mask.label)
        if of not in encoded:
            encoded[of] = _encoded(predictor, mask)
        predictor.set_reference(encoded[of])
        session = annotate(predictor, target_hw, Clicker(target_hw), max_clicks=CLICKS, min_clicks=CLICKS)
        found.append(statistics.mean(session.ious))
    return statistics.mean(found)


def _encoded(predictor: RefCutPredictor, mask: CheckedMask) -> ReferenceTokens | None:
    if mask.reference is None:
        return None
    masks = mask.reference.masks()
    others: list[BoolMask] = [own for name, own in masks.items() if name != mask.label]
    negative_hw = union(others) & ~masks[mask.label] if others else None
    return predictor.encode_reference(mask.reference.image(), masks[mask.label], negative_hw)


class BestWeights:
    """The best checked weights of a run, in its folder, so that a resumed run knows them."""

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        self._scores: dict[int, float] = {}
        if (run_dir / BEST_SCORE_FILE).is_file():
            self._scores = dict(json.loads((run_dir / BEST_SCORE_FILE).read_text())["scores"])

    def knows(self, step: int) -> bool:
        """Whether the weights after that step were checked: a resumed run comes by them again."""
        return step in self._scores

    def add(self, step: int, score: float, tensors: dict[str, Tensor]) -> None:
        """Keeps the weights when none were better."""
        if not self._scores or score > max(self._scores.values()):
            temporary = self._run_dir / f"{BEST_FILE}.partial"
            save_file(
                {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, temporary
            )
            os.replace(temporary, self._run_dir / BEST_FILE)
        self._scores[step] = score
        temporary = self._run_dir / f"{BEST_SCORE_FILE}.partial"
        temporary.write_text(json.dumps({"scores": sorted(self._scores.items())}))
        os.replace(temporary, self._run_dir / BEST_SCORE_FILE)

    def since_best(self) -> int:
        """Checks since the best one."""
        scores = [score for _, score in sorted(self._scores.items())]
        return len(scores) - 1 - scores.index(max(scores)) if scores else 0

    def load(self) -> dict[str, Tensor] | None:
        """None where nothing was checked."""
        return load_file(self._run_dir / BEST_FILE) if self._scores else None


def split_validation(
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


def masks_to_check(checked: list[Scene], references: list[Scene], limit: int) -> list[CheckedMask]:
    """What is tried: labels of the images kept aside, evenly spread, each with a reference that shows it."""
    pairs = [(scene, label) for scene in checked for label in scene.part_rles]
    count = min(limit, len(pairs))
    chosen = [pairs[int((place + 0.5) * len(pairs) / count)] for place in range(count)]
    return [
        CheckedMask(scene, label, next((one for one in references if label in one.part_rles), None))
        for scene, label in chosen
    ]
