"""Comparison of two networks, the serving one and a candidate, on images that neither has learned from.

The robot annotates every label of a snapshot's holdout with the snapshot's references, once with each network. `compare`
returns the metrics of both and the standard errors of their difference. `model.evaluation.promotion` decides on them
whether the candidate may serve.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from model.checkpoints.weights import load_network
from model.data.annotated_objects import AnnotatedObject
from model.data.snapshot import Snapshot, SnapshotReference
from model.evaluation.comparison import AnnotatedMask, Comparison, Spread, network_metrics, paired_spread
from model.evaluation.robot_annotator import Predictor, RobotAnnotator
from model.images import read_image
from model.masks import decode, distance_inside, evenly_spaced
from model.network.prompts import ReferenceTokens
from model.predictor import RefCutPredictor
from model.predictor_config import serving_settings
from model.runtime.select import RuntimeName, with_runtime
from model.types import BoolMask, Click

NOC_IOU = 0.85
FIRST_CLICKS = 5
"""Number of clicks that every session has."""
MIN_ROOM_PX = 2
"""A tried negative click is at least this deep inside the mask, and twice as far from the positive click."""


@dataclass(frozen=True)
class CompareSettings:
    """How two networks are compared.

    Attributes:
        max_masks: About the largest number of masks; of a larger holdout, each label gives as many masks as the others,
            at equal distances.
        max_clicks: Clicks after which a session ends.
        max_references: Most references of a label that are pooled; the same number as when serving.
        runtime: What computes the networks; see `model.runtime.select`.
        runtime_cache_dir: Folder of converted networks; see `model.runtime.select`.
        limit_s: Longest time in seconds, about. After half of it the serving network ends with the current image, and the
            candidate annotates the same masks.
        min_images: Images that are annotated however long it takes.
    """

    max_masks: int = 80
    max_clicks: int = 20
    max_references: int = 4
    runtime: RuntimeName = "auto"
    runtime_cache_dir: Path | None = None
    limit_s: float = math.inf
    min_images: int = 5


def compare(
    snapshot: Snapshot,
    network_dirs: tuple[Path, Path],
    settings: CompareSettings | None = None,
    on_progress: Callable[[int, int], None] = lambda done, of: None,
    clock: Callable[[], float] = time.monotonic,
) -> Comparison:
    """Compare two networks on the holdout of a snapshot.

    Args:
        snapshot: Holdout and references.
        network_dirs: Folders of the serving network and of the candidate.
        settings: None takes the defaults.
        on_progress: Called after each mask with the number of masks done and the number of all masks, of both networks
            together.
        clock: Returns seconds.

    Raises:
        ModelError: If weights or snapshot cannot be used.
    """
    settings = settings or CompareSettings()
    every = chosen = holdout_masks(snapshot, settings.max_masks)
    started_s = clock()

    def is_over(done: int) -> bool:
        """Whether the serving network ends here: in time for the candidate, after whole images, and enough of them."""
        images = [annotated_object.image_path for annotated_object, _ in every[: done + 1]]
        is_between_images = len(images) > done and images[done] != images[done - 1]
        is_enough = len(set(images[:done])) >= settings.min_images
        return is_between_images and is_enough and clock() - started_s > settings.limit_s / 2

    annotated: list[list[AnnotatedMask]] = []
    for number, folder in enumerate(network_dirs):
        predictor = make_predictor(folder, settings)
        references = encode_references(predictor, snapshot, settings.max_references)
        own = []
        for mask in annotate_masks(predictor, chosen, references, settings.max_clicks):
            own.append(mask)
            on_progress(number * len(chosen) + len(own), 2 * len(chosen))
            if number == 0 and is_over(len(own)):
                # The files are named by their content, so the first images are a random choice.
                chosen = every[: len(own)]
                break
        annotated.append(own)
    labels = sorted({label for _, label in chosen})

    def spread(*labels: str) -> Spread:
        own = [[mask for mask in masks if mask.label in labels] for masks in annotated]
        return paired_spread(own[0], own[1], settings.max_clicks, NOC_IOU)

    return Comparison(
        snapshot=snapshot.digest,
        images=len({annotated_object.image_path for annotated_object, _ in chosen}),
        masks_left_out=len(every) - len(chosen),
        serving=network_metrics(annotated[0], settings.max_clicks, NOC_IOU),
        candidate=network_metrics(annotated[1], settings.max_clicks, NOC_IOU),
        spread=spread(*labels),
        spread_by_label={label: spread(label) for label in labels},
        masks=(tuple(annotated[0]), tuple(annotated[1])),
    )


def holdout_masks(snapshot: Snapshot, max_masks: int) -> list[tuple[AnnotatedObject, str]]:
    """Choose the masks to annotate: every label of every holdout annotation, or evenly spaced ones.

    Args:
        snapshot: Its holdout is read.
        max_masks: Each label gives at most its equal part of this number, and at least one.

    Returns:
        Pairs of annotated object and label, ordered by image and label.
    """
    annotated_objects = snapshot.holdout_objects()
    by_label = {
        label: [
            (annotated_object, label)
            for annotated_object in annotated_objects
            if label in annotated_object.part_rles
        ]
        for label in snapshot.labels
    }
    each = max(1, max_masks // max(len(by_label), 1))
    chosen = [pair for pairs in by_label.values() for pair in evenly_spaced(pairs, each)]
    return sorted(chosen, key=lambda pair: (str(pair[0].image_path), pair[1]))


def make_predictor(folder: Path, settings: CompareSettings) -> RefCutPredictor:
    """Load the network in `folder` and set it up as it is served.

    Raises:
        ModelError: If the weights cannot be used.
    """
    network = load_network(folder)
    if torch.cuda.is_available():
        network = network.cuda()
    served = serving_settings(network.config)
    return RefCutPredictor(
        with_runtime(network, served, settings.runtime, settings.runtime_cache_dir), served
    )


def encode_references(
    predictor: Predictor, snapshot: Snapshot, max_references: int
) -> dict[str, ReferenceTokens]:
    """Encode the references of each label.

    Args:
        predictor: Encodes the images.
        snapshot: Its references are read.
        max_references: Most references per label.

    Returns:
        Pooled references by label; labels without a reference are left out.
    """
    of_label: dict[str, list[SnapshotReference]] = {}
    for reference in snapshot.references:
        of_label.setdefault(reference.label, []).append(reference)
    return {
        label: ReferenceTokens.join([_encode(predictor, snapshot, one) for one in ones[:max_references]])
        for label, ones in of_label.items()
    }


def _encode(predictor: Predictor, snapshot: Snapshot, reference: SnapshotReference) -> ReferenceTokens:
    negative_hw = None if reference.negative is None else decode(reference.negative)
    image = read_image(snapshot.image_dir / reference.file_name)
    return predictor.encode_reference(image, decode(reference.positive), negative_hw)


def annotate_masks(
    predictor: Predictor,
    chosen: Sequence[tuple[AnnotatedObject, str]],
    references: Mapping[str, ReferenceTokens],
    max_clicks: int,
) -> Iterator[AnnotatedMask]:
    """Annotate masks with one network.

    Args:
        predictor: The network.
        chosen: Pairs of annotated object and label. An image whose masks follow each other is encoded once.
        references: References by label.
        max_clicks: Clicks after which a session ends.
    """
    annotator = RobotAnnotator(predictor, max_clicks=max_clicks, min_clicks=FIRST_CLICKS, stop_iou=NOC_IOU)
    for annotated_object, label in chosen:
        target_hw = annotated_object.masks()[label]
        session = annotator.annotate(annotated_object, target_hw, references.get(label))
        yield AnnotatedMask(
            image=annotated_object.image_path.name,
            label=label,
            ious=session.ious,
            negative_click_changes=_negative_click_changes(
                predictor, session.clicks[0], session.first_mask_hw
            ),
            first_click=session.clicks[0],
            first_mask_hw=session.first_mask_hw,
            target_hw=target_hw,
        )


def _negative_click_changes(predictor: Predictor, first: Click, mask_hw: BoolMask) -> bool | None:
    """Try a negative click deep inside the first mask and away from the positive click. None if there is no room."""
    rows, cols = np.indices(mask_hw.shape)
    depth = distance_inside(mask_hw)
    away = np.hypot(rows - first.row, cols - first.col)
    room = np.where(depth > 0, np.minimum(depth, away / 2), 0)
    row, col = np.unravel_index(int(room.argmax()), room.shape)
    if room[row, col] < MIN_ROOM_PX:
        return None
    after_hw = predictor.predict([first, Click(float(row), float(col), False)]).mask_hw
    return bool((after_hw != mask_hw).any())
