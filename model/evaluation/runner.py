"""Runs an evaluation: each sample in each mode, in this process or in several.

`run_tasks` is the entry point; `python -m model evaluate` calls it.
"""

from __future__ import annotations

import multiprocessing
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from model.data.annotated_objects import AnnotatedObject
from model.evaluation.first_masks import MATCHED, StartingPredictor, first_mask
from model.evaluation.modes import FirstMask, Mode, as_polygons, shrunk_image, shrunk_mask
from model.evaluation.records import Record
from model.evaluation.references import ReferenceChoice, ReferenceFinder
from model.evaluation.robot_annotator import Clicker, JitteredClicker, RobotAnnotator, Session
from model.evaluation.samples import Sample
from model.masks import count_pieces, encode, union
from model.network.prompts import ReferenceTokens
from model.types import BoolMask

RIGHT = Mode.parse("right")


@dataclass(frozen=True)
class EvaluationSet:
    """A data set to evaluate on.

    Attributes:
        name: Name in records and reports.
        annotated_objects: In the order of their file names.
    """

    name: str
    annotated_objects: list[AnnotatedObject]


@dataclass(frozen=True)
class Task:
    """The unit of work: one sample and its modes that have no result yet.

    Attributes:
        set_number: Index of the sample's set.
        sample: The target.
        modes: Modes to run.
    """

    set_number: int
    sample: Sample
    modes: tuple[Mode, ...]


@dataclass(frozen=True)
class ClickLimits:
    """When a session ends: at `STOP_IOU`, but after at least `min_clicks` and at most `max_clicks` clicks.

    Attributes:
        max_clicks: From 1.
        min_clicks: At most `max_clicks`.
    """

    max_clicks: int = 20
    min_clicks: int = 5


class Evaluator:
    """Runs tasks one after another with one predictor."""

    def __init__(
        self, sets: Sequence[EvaluationSet], predictor: StartingPredictor, limits: ClickLimits
    ) -> None:
        """Set up the evaluation.

        Args:
            sets: The sets that tasks refer to by number.
            predictor: Computes the masks.
            limits: When a session ends.
        """
        self._sets = sets
        self._finders = [ReferenceFinder(one.annotated_objects) for one in sets]
        self._predictor = predictor
        self._annotator = RobotAnnotator(
            predictor, max_clicks=limits.max_clicks, min_clicks=limits.min_clicks
        )

    def run(self, task: Task) -> list[Record]:
        """Run one sample in its modes; returns one record per mode."""
        annotated_object = self._sets[task.set_number].annotated_objects[task.sample.annotated_object]
        masks = annotated_object.masks()
        target_hw = union(masks[name] for name in task.sample.parts)
        return [self._run_mode(task, mode, annotated_object, target_hw) for mode in task.modes]

    def _run_mode(
        self, task: Task, mode: Mode, annotated_object: AnnotatedObject, target_hw: BoolMask
    ) -> Record:
        one, finder = self._sets[task.set_number], self._finders[task.set_number]
        choices = finder.choose(task.sample, mode)
        clicker = Clicker(target_hw)
        if mode.jitter or task.sample.repeat:
            clicker = JitteredClicker(target_hw, np.random.default_rng(zlib.crc32(task.sample.key.encode())))
        reference = self._encode(one.annotated_objects, choices, mode)
        if mode.first_mask is None or reference is None:
            session = self._annotator.annotate(annotated_object, target_hw, reference, clicker)
        else:
            session = self._refine(annotated_object, target_hw, reference, mode.first_mask, clicker)
        referenced = bool(choices or (mode.reference == "none" and finder.choose(task.sample, RIGHT)))
        return _record(one, task.sample, mode, choices, referenced, session, count_pieces(target_hw))

    def _refine(
        self,
        annotated_object: AnnotatedObject,
        target_hw: BoolMask,
        reference: ReferenceTokens,
        kind: FirstMask,
        clicker: Clicker,
    ) -> Session:
        """Annotate with a mask that the reference gives before the first click."""
        self._annotator.show(annotated_object)
        height, width = target_hw.shape
        start = first_mask(self._predictor, reference, kind, (height, width))
        self._predictor.start_from(start)
        try:
            return self._annotator.annotate(
                annotated_object, target_hw, reference if kind == "alone" else None, clicker, start.mask_hw
            )
        finally:
            self._predictor.start_from(None)

    def _encode(
        self, annotated_objects: list[AnnotatedObject], choices: list[ReferenceChoice], mode: Mode
    ) -> ReferenceTokens | None:
        encoded = [
            self._encode_one(annotated_objects[choice.annotated_object], choice, mode) for choice in choices
        ]
        return ReferenceTokens.join(encoded) if encoded else None

    def _encode_one(
        self, annotated_object: AnnotatedObject, choice: ReferenceChoice, mode: Mode
    ) -> ReferenceTokens:
        image, masks = annotated_object.image(), annotated_object.masks()
        positive_hw = _shown_parts(masks, choice.positive, mode)
        negative_hw = _shown_parts(masks, choice.negative, mode)
        if mode.first_mask in MATCHED and positive_hw is not None:
            negative_hw = ~positive_hw
        if mode.scale != 1:
            image = shrunk_image(image, mode.scale)
        return self._predictor.encode_reference(image, positive_hw, negative_hw)


def _shown_parts(masks: dict[str, BoolMask], names: tuple[str, ...], mode: Mode) -> BoolMask | None:
    """The union of the named parts, coarsened and shrunk as the mode asks; None for no part."""
    if not names:
        return None
    shown_hw = union(masks[name] for name in names)
    if mode.polygon_vertices is not None:
        shown_hw = as_polygons(shown_hw, mode.polygon_vertices)
    return shown_hw if mode.scale == 1 else shrunk_mask(shown_hw, mode.scale)


def _record(
    one: EvaluationSet,
    sample: Sample,
    mode: Mode,
    choices: list[ReferenceChoice],
    referenced: bool,
    session: Session,
    pieces: int,
) -> Record:
    return Record(
        set_name=one.name,
        sample=sample.key,
        kind=sample.kind,
        mode=mode.name,
        image=_short(one.annotated_objects[sample.annotated_object]),
        references=[_short(one.annotated_objects[choice.annotated_object]) for choice in choices],
        referenced=referenced,
        clicks=[[click.row, click.col, float(click.positive)] for click in session.clicks],
        ious=session.ious,
        seconds=[round(value, 4) for value in session.seconds],
        removed=[round(value, 4) for value in session.removed],
        first_mask=encode(session.first_mask_hw),
        pieces=pieces,
        start_iou=session.start_iou,
        expected_ious=[round(value, 4) for value in session.expected_ious],
        candidate_ious=[round(value, 4) for value in session.candidate_ious],
    )


def _short(annotated_object: AnnotatedObject) -> str:
    """Folder and file. In some sets each object has a folder, and all images have the same name."""
    return "/".join(annotated_object.image_path.parts[-2:])


def run_tasks(
    sets: Sequence[EvaluationSet],
    tasks: Sequence[Task],
    make_predictor: Callable[[], StartingPredictor],
    limits: ClickLimits,
    workers: int,
) -> Iterator[list[Record]]:
    """Run tasks and yield the records of each task when it is complete.

    Args:
        sets: The sets that tasks refer to by number.
        tasks: The tasks.
        make_predictor: Called once per process; must be picklable for several workers.
        limits: When a session ends.
        workers: Number of processes. With 1, tasks run in this process; with more, results come in any order.
    """
    if workers == 1:
        yield from map(_Worker(sets, make_predictor, limits).run, tasks)
        return
    context = multiprocessing.get_context("spawn")
    with context.Pool(workers, _start_worker, (sets, make_predictor, limits)) as pool:
        yield from pool.imap_unordered(_run_in_worker, tasks)


@dataclass
class _Worker:
    """State of one process. The first task makes the evaluator, so that its errors reach the caller of that task."""

    sets: Sequence[EvaluationSet]
    make_predictor: Callable[[], StartingPredictor]
    limits: ClickLimits
    evaluator: Evaluator | None = None

    def run(self, task: Task) -> list[Record]:
        if self.evaluator is None:
            self.evaluator = Evaluator(self.sets, self.make_predictor(), self.limits)
        return self.evaluator.run(task)


_workers: list[_Worker] = []


def _start_worker(
    sets: Sequence[EvaluationSet], make_predictor: Callable[[], StartingPredictor], limits: ClickLimits
) -> None:
    _workers[:] = [_Worker(sets, make_predictor, limits)]


def _run_in_worker(task: Task) -> list[Record]:
    return _workers[0].run(task)
