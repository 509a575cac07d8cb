"""Early stopping: a few masks of held-out training images are annotated now and then with the weights so far.

A run ends when the score has not improved for some checks, and ships the weights with the best score. Images of the
project's holdout are never used here; they are for `model.evaluation.compare`.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import zlib
from dataclasses import dataclass, field
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

from model.data.annotated_objects import AnnotatedObject
from model.data.snapshot import Snapshot
from model.evaluation.robot_annotator import RobotAnnotator
from model.files import atomic_write
from model.finetuning.config import FineTuneSettings
from model.masks import evenly_spaced, union
from model.network.prompts import ReferenceTokens
from model.network.refcut import RefCut
from model.predictor import RefCutPredictor
from model.predictor_config import serving_settings
from model.types import BoolMask

BEST_FILE, BEST_SCORE_FILE = "best.safetensors", "best.json"
CLICKS = 3
"""Clicks on each mask of a check."""


@dataclass(frozen=True)
class CheckedMask:
    """A mask that early stopping annotates.

    Attributes:
        annotated_object: Image with its masks.
        label: Name of the mask in the annotated object.
        reference: AnnotatedObject that shows the label; None if no reference does.
    """

    annotated_object: AnnotatedObject
    label: str
    reference: AnnotatedObject | None


def split_validation(
    annotated_objects: list[AnnotatedObject], snapshot: Snapshot, settings: FineTuneSettings
) -> tuple[list[AnnotatedObject], list[AnnotatedObject]]:
    """Split the training annotated objects into those for early stopping and those to learn from.

    The split depends only on the names of the images, so a resumed run has the same one. Images of references are always
    learned from.

    Args:
        annotated_objects: Training annotated objects.
        snapshot: Names the images of the references.
        settings: Gives the share, and the number of images below which nothing is held out.

    Returns:
        (annotated objects for early stopping, annotated objects to learn from). The first list may be empty.
    """
    reference_names = {reference.file_name for reference in snapshot.references}
    if (
        len({annotated_object.image_path for annotated_object in annotated_objects})
        < settings.min_checked_images
    ):
        return [], annotated_objects

    def is_held_out(annotated_object: AnnotatedObject) -> bool:
        name = annotated_object.image_path.name
        return (
            name not in reference_names and zlib.crc32(name.encode()) % 1000 < 1000 * settings.checked_share
        )

    held_out = [annotated_object for annotated_object in annotated_objects if is_held_out(annotated_object)]
    learned = [
        annotated_object for annotated_object in annotated_objects if not is_held_out(annotated_object)
    ]
    return (held_out, learned) if learned else ([], annotated_objects)


def masks_to_check(
    held_out: list[AnnotatedObject], references: list[AnnotatedObject], limit: int
) -> list[CheckedMask]:
    """Choose the masks that early stopping annotates: at most `limit`, evenly spaced, each with its reference."""
    pairs = [
        (annotated_object, label) for annotated_object in held_out for label in annotated_object.part_rles
    ]
    return [
        CheckedMask(
            annotated_object, label, next((one for one in references if label in one.part_rles), None)
        )
        for annotated_object, label in evenly_spaced(pairs, limit)
    ]


@dataclass(frozen=True)
class Check:
    """What a check found.

    Attributes:
        score: Mean IoU over the masks and the first three clicks, 0 to 1.
        expected: IoU that the network expected each of these masks to have; empty if it expects none.
        measured: IoU that each of them has; as many as `expected`.
    """

    score: float
    expected: list[float] = field(default_factory=list)
    measured: list[float] = field(default_factory=list)


def check_masks(network: RefCut, masks: list[CheckedMask]) -> Check:
    """Annotate masks with the network as it is served.

    Args:
        network: Set to evaluation mode.
        masks: At least one.
    """
    predictor = RefCutPredictor(network.eval(), serving_settings(network.config))
    annotator = RobotAnnotator(predictor, max_clicks=CLICKS, min_clicks=CLICKS)
    encoded: dict[tuple[Path | None, str], ReferenceTokens | None] = {}
    scores = []
    found = Check(0.0)
    for mask in masks:
        key = (mask.reference.image_path if mask.reference else None, mask.label)
        if key not in encoded:
            encoded[key] = _encode_reference(predictor, mask)
        session = annotator.annotate(
            mask.annotated_object, mask.annotated_object.masks()[mask.label], encoded[key]
        )
        scores.append(statistics.mean(session.ious))
        found.expected.extend(session.expected_ious)
        found.measured.extend(session.ious[: len(session.expected_ious)])
    return Check(statistics.mean(scores), found.expected, found.measured)


def _encode_reference(predictor: RefCutPredictor, mask: CheckedMask) -> ReferenceTokens | None:
    if mask.reference is None:
        return None
    masks = mask.reference.masks()
    others: list[BoolMask] = [own for name, own in masks.items() if name != mask.label]
    negative_hw = union(others) & ~masks[mask.label] if others else None
    return predictor.encode_reference(mask.reference.image(), masks[mask.label], negative_hw)


class BestWeights:
    """The scores of a run's checks and the weights of the best one, kept in the run's folder so that it can resume.

    Attributes:
        best: The check with the best score.
    """

    def __init__(self, run_dir: Path) -> None:
        """Read what earlier parts of the run have written to `run_dir`."""
        self._run_dir = run_dir
        self._scores: dict[int, float] = {}
        self.best = Check(0.0)
        if (run_dir / BEST_SCORE_FILE).is_file():
            stored = json.loads((run_dir / BEST_SCORE_FILE).read_text())
            self._scores = dict(stored["scores"])
            self.best = Check(**stored.get("best", {"score": max(self._scores.values(), default=0.0)}))

    def knows(self, step: int) -> bool:
        """Tell whether the weights after `step` steps have a score; a resumed run comes to the same step again."""
        return step in self._scores

    def add(self, step: int, check: Check, tensors: dict[str, Tensor]) -> None:
        """Record a check, and keep the weights if no earlier score is as good.

        Args:
            step: Steps taken.
            check: What was found with the weights after them.
            tensors: The weights by name.
        """
        if not self._scores or check.score > max(self._scores.values()):
            self.best = check
            values = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
            with atomic_write(self._run_dir / BEST_FILE) as temporary:
                save_file(values, temporary)
        self._scores[step] = check.score
        with atomic_write(self._run_dir / BEST_SCORE_FILE) as temporary:
            state = {"scores": sorted(self._scores.items()), "best": dataclasses.asdict(self.best)}
            temporary.write_text(json.dumps(state))

    def since_best(self) -> int:
        """Return the number of checks after the one with the best score."""
        scores = [score for _, score in sorted(self._scores.items())]
        return len(scores) - 1 - scores.index(max(scores)) if scores else 0

    def load(self) -> dict[str, Tensor] | None:
        """Read the weights with the best score; None if no check was made."""
        return load_file(self._run_dir / BEST_FILE) if self._scores else None


class EarlyStopping:
    """Decides when the weights are checked, checks them, and decides when to stop.

    Attributes:
        best: Scores and best weights of the run.
        masks: Masks that a check annotates. Without any, nothing is ever checked.
    """

    def __init__(self, masks: list[CheckedMask], best: BestWeights, checks: int, patience: int) -> None:
        """Set up the checks.

        Args:
            masks: Masks to annotate.
            best: Earlier scores of the run.
            checks: Number of checks in a run.
            patience: Checks without a better score after which the run ends.
        """
        self.masks = masks
        self.best = best
        self._checks = checks
        self._patience = patience

    def is_due(self, progress: float, progress_before: float) -> bool:
        """Tell whether a check is due.

        Args:
            progress: Share of the run that is complete, 0 to 1.
            progress_before: The same before the last step.
        """

        def passed(share: float) -> int:
            return int(share * self._checks + 1e-9)

        return progress == 0 or passed(progress) > passed(progress_before)

    def needs(self, step: int) -> bool:
        """Tell whether the weights after `step` steps can be checked and have no score yet."""
        return bool(self.masks) and not self.best.knows(step)

    def check(
        self, step: int, network: RefCut, average: dict[str, Tensor], shipped: dict[str, Tensor]
    ) -> float:
        """Score weights and record the result.

        Args:
            step: Steps taken.
            network: Computes the masks; its own weights are the same afterwards.
            average: Averaged weights of the run, which are kept if they are the best.
            shipped: The weights that would ship, made of `average`; these are scored.

        Returns:
            The score, 0 to 1.
        """
        own = {name: value.detach().clone() for name, value in network.state_dict().items()}
        network.load_state_dict(shipped, strict=False)
        found = check_masks(network, self.masks)
        network.load_state_dict(own)
        network.train()
        self.best.add(step, found, average)
        return found.score

    def should_stop(self) -> bool:
        """Tell whether the score has not improved for `patience` checks."""
        return self.best.since_best() >= self._patience
