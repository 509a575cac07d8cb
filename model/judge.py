"""`python -m model.judge SNAPSHOT SERVING CANDIDATE --out FILE`: two networks on images that neither has learned from.

A robot annotates every label of the holdout, with the snapshot's references, once with each network. What comes of it is
for `model.gate` to decide.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from model.checkpoints.weights import load_network
from model.command_line import OneLineParser
from model.data.scenes import Scene
from model.data.snapshot import Snapshot, SnapshotReference, read_snapshot
from model.errors import ModelError
from model.evaluation.session import Predictor, annotate
from model.images import read_image
from model.judgement import JudgedMask, Judgement, Spread, figures_of, spread_of
from model.masks import decode, distance_inside
from model.network.prompts import ReferenceTokens
from model.predictor import RefCutPredictor
from model.predictor_config import serving_settings
from model.robot_clicker import RobotClicker
from model.runtime.select import RuntimeName, with_runtime
from model.types import BoolMask, Click

NOC_IOU = 0.85
FIRST_CLICKS = 5
"""So many clicks are made in any case."""
MIN_ROOM_PX = 2
"""A negative click is tried at least so far inside the mask, and twice as far from the positive one."""


@dataclass(frozen=True)
class JudgeSettings:
    """max_masks: a larger holdout is sampled, the same labels in the same proportion. max_references: of a label, as
    many as serving pools. runtime, runtime_cache_dir: what computes the networks; see `model.runtime.select`."""

    max_masks: int = 80
    max_clicks: int = 20
    max_references: int = 4
    runtime: RuntimeName = "auto"
    runtime_cache_dir: Path | None = None


def judge(
    snapshot: Snapshot,
    network_dirs: tuple[Path, Path],
    settings: JudgeSettings | None = None,
    on_progress: Callable[[int, int], None] = lambda done, of: None,
) -> Judgement:
    """(serving, candidate) on the snapshot's holdout. on_progress: masks done, and how many there are, of both.

    Raises ModelError when weights or snapshot cannot be used.
    """
    settings = settings or JudgeSettings()
    chosen = holdout_masks(snapshot, settings.max_masks)
    judged = []
    for number, folder in enumerate(network_dirs):
        predictor = make_predictor(folder, settings)
        references = encode_references(predictor, snapshot, settings.max_references)
        own = []
        for mask in judge_masks(predictor, chosen, references, settings.max_clicks):
            own.append(mask)
            on_progress(number * len(chosen) + len(own), 2 * len(chosen))
        judged.append(own)
    labels = sorted({label for _, label in chosen})

    def spread(*labels: str) -> Spread:
        own = [[mask for mask in masks if mask.label in labels] for masks in judged]
        return spread_of(own[0], own[1], settings.max_clicks, NOC_IOU)

    return Judgement(
        snapshot=snapshot.digest,
        images=len({scene.image_path for scene, _ in chosen}),
        serving=figures_of(judged[0], settings.max_clicks, NOC_IOU),
        candidate=figures_of(judged[1], settings.max_clicks, NOC_IOU),
        spread=spread(*labels),
        spread_by_label={label: spread(label) for label in labels},
        masks=(tuple(judged[0]), tuple(judged[1])),
    )


def holdout_masks(snapshot: Snapshot, max_masks: int) -> list[tuple[Scene, str]]:
    """What is annotated: every label of every annotation, or as many, evenly spread, as shall be."""
    scenes = snapshot.holdout_scenes()
    by_label = {
        label: [(scene, label) for scene in scenes if label in scene.part_rles] for label in snapshot.labels
    }
    each = max(1, max_masks // max(len(by_label), 1))
    chosen = []
    for pairs in by_label.values():
        count = min(each, len(pairs))
        chosen += [pairs[int((place + 0.5) * len(pairs) / count)] for place in range(count)]
    return sorted(chosen, key=lambda pair: (str(pair[0].image_path), pair[1]))


def make_predictor(folder: Path, settings: JudgeSettings) -> RefCutPredictor:
    """The network of a folder, as it is served."""
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
    """What each label with a reference means."""
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


def judge_masks(
    predictor: Predictor,
    chosen: Sequence[tuple[Scene, str]],
    references: Mapping[str, ReferenceTokens],
    max_clicks: int,
) -> Iterator[JudgedMask]:
    """Each mask annotated by the robot. An image whose masks follow one another is encoded once."""
    shown: Path | None = None
    for scene, label in chosen:
        if scene.image_path != shown:
            predictor.set_image(scene.image())
            shown = scene.image_path
        predictor.set_reference(references.get(label))
        yield _judge_mask(predictor, scene, label, max_clicks)


def _judge_mask(predictor: Predictor, scene: Scene, label: str, max_clicks: int) -> JudgedMask:
    """One mask of the image that is set, and whether a negative click in the first mask changes it."""
    target_hw = scene.masks()[label]
    robot = RobotClicker(target_hw)
    session = annotate(
        predictor, target_hw, robot, max_clicks=max_clicks, min_clicks=FIRST_CLICKS, stop_iou=NOC_IOU
    )
    return JudgedMask(
        image=scene.image_path.name,
        label=label,
        ious=session.ious,
        negative_click_changes=_negative_click_changes(predictor, session.clicks[0], session.first_mask_hw),
        first_click=session.clicks[0],
        first_mask_hw=session.first_mask_hw,
        target_hw=target_hw,
    )


def _negative_click_changes(predictor: Predictor, first: Click, mask_hw: BoolMask) -> bool | None:
    """A negative click deep inside the first mask, away from the positive one. None when there is no room for it."""
    rows, cols = np.indices(mask_hw.shape)
    depth = distance_inside(mask_hw)
    away = np.hypot(rows - first.row, cols - first.col)
    places = np.where(depth > 0, np.minimum(depth, away / 2), 0)
    row, col = np.unravel_index(int(places.argmax()), places.shape)
    if places[row, col] < MIN_ROOM_PX:
        return None
    after_hw = predictor.predict([first, Click(float(row), float(col), False)]).mask_hw
    return bool((after_hw != mask_hw).any())


def main(argv: Sequence[str] | None = None) -> None:
    """Exits with status 2 and one line on stderr when the input cannot be used."""
    parser = OneLineParser(prog="python -m model.judge", description=__doc__)
    parser.add_argument("snapshot", type=Path)
    parser.add_argument("serving", type=Path, help="folder of the weights that serve")
    parser.add_argument("candidate", type=Path, help="folder of the weights that may")
    parser.add_argument("--out", type=Path, help="file for all figures, JSON")
    parser.add_argument("--max-masks", type=int, default=JudgeSettings.max_masks)
    arguments = parser.parse_args(argv)
    try:
        settings = JudgeSettings(max_masks=arguments.max_masks)
        judgement = judge(
            read_snapshot(arguments.snapshot), (arguments.serving, arguments.candidate), settings
        )
    except ModelError as error:
        parser.error(str(error))
    text = json.dumps(judgement.to_json(), indent=2, sort_keys=True)
    print(text)
    if arguments.out is not None:
        arguments.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
