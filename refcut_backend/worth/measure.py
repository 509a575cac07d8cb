"""Leads a measurement: reads annotated tasks, has workers click on them, and stores what each reference was worth.

    web process or `refcut references worth`              worker, when nothing else waits
      targets.py    annotated masks, up to 20 per label
      sets.py       which references are tried on each
      MeasureQueue  one mask after another       ------>  inference/measurer.py: one click per set
      figures.py    with it, without, with others  <----  IoUs

A reference is never tried on its own task or its own photograph. The figures belong to one version of the model: if
another one serves meanwhile, everything is measured anew.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence, Sized
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from refcut_backend.database.projects import Projects
from refcut_backend.errors import ConfigError, NoReferenceError, RefCutError
from refcut_backend.images.address import TaskImage
from refcut_backend.images.hidden_urls import Addresses
from refcut_backend.label_studio.connection import Connection
from refcut_backend.label_studio.label_config import read_label_config
from refcut_backend.label_studio.tasks import AnnotationSource, open_source
from refcut_backend.queue.measure_queue import MeasureAnswer, MeasuredSet, MeasureJob
from refcut_backend.references.registry import ListedReference, References
from refcut_backend.references.selection import State
from refcut_backend.training.holdout import Split, SplitStore
from refcut_backend.training.stored_images import ProjectImages
from refcut_backend.worth.figures import ReferenceFigures
from refcut_backend.worth.sets import Measured, Set, sets_of, usable_on
from refcut_backend.worth.store import Outcome, WorthRun, WorthStore
from refcut_backend.worth.targets import Target, TargetReader, Targets, annotated_tasks

log = logging.getLogger("refcut.references")

REFERENCES_PER_LABEL = 8
"""As many as the page shows of a label."""
RUN_LIMIT_S = 3600.0
"""After this time a run ends with what it has."""
FREE_WORKER_LIMIT_S = 600.0
"""A run fails if no worker was free for one mask within this time."""
BEAT_S = 2.0
MODEL_CHANGES = 3
"""A run fails if the model changed so often during it."""
TURN_S = 1.0
SHARED_IMAGES_DIR = "images"
"""Name of a project's folder of images in its training folder, as in `training.snapshot`."""


class MeasureSender(Protocol):
    """Sends a mask to a worker and waits for the figures: `queue.measure_queue.MeasureQueue`."""

    def workers(self) -> Sized:
        """List the workers that would take a mask now."""

    def ask(
        self, job: MeasureJob, deadline: float, is_cancelled: Callable[[], bool], *, is_continuation: bool
    ) -> MeasureAnswer:
        """Return what a worker measured. Raise RefCutError if no worker answers."""


class StoppedError(Exception):
    """Somebody stopped the run, or its process was taken for dead."""


class ModelChangedError(Exception):
    """Another version of the model answers by now."""


@dataclass(frozen=True)
class WorthRules:
    """Limits of measurements, and what says which photographs a model was trained on.

    Attributes:
        max_references: Maximum number of references in use per label.
        training_dir: Folder of the trainings, which need not exist on this machine.
        shared_version: The shared model, which was trained on no photograph of a project.
        limit_s: Longest time of a run in seconds.
    """

    max_references: int
    training_dir: Path
    shared_version: str
    limit_s: float = RUN_LIMIT_S


class ReferenceWorths:
    """Measures what references are worth, and returns what was measured. Thread-safe."""

    def __init__(
        self,
        engine: Engine,
        projects: Projects,
        references: References,
        addresses: Addresses,
        queue: MeasureSender,
        rules: WorthRules,
        open_source: Callable[[int, Connection], AnnotationSource] = open_source,
    ) -> None:
        """Wires the measurements.

        Args:
            engine: The database.
            projects: Projects that have called /setup.
            references: The references of all projects.
            addresses: Keeps signed URLs out of Redis.
            queue: Sends masks to workers.
            rules: Limits.
            open_source: Connects to a project in Label Studio.
        """
        self.store = WorthStore(engine)
        self._engine = engine
        self._projects = projects
        self._references = references
        self._addresses = addresses
        self._queue = queue
        self._rules = rules
        self._open_source = open_source
        self._splits = SplitStore(engine)
        self._turn = threading.Lock()

    def request(self, project_id: int, label: str | None = None) -> tuple[WorthRun, bool]:
        """Create a run, or return the one that is under way.

        Args:
            project_id: The project.
            label: Measure the references of this label only.

        Returns:
            The run, and whether it is new. `measure` leads a new one.

        Raises:
            NotConnectedError: The project is unknown.
            NoReferenceError: There is nothing to measure.
            ConfigError: No worker is ready.
        """
        self._projects.connection(project_id)
        self._candidates(project_id, label)
        if not len(self._queue.workers()):
            raise ConfigError("no worker is ready", hint="start `refcut run`, or `refcut worker`")
        return self.store.request(project_id, label)

    def start(self, project_id: int, label: str | None = None) -> tuple[WorthRun, bool]:
        """Do `request`, and lead a new run on a thread of its own. Runs of one process go one after another."""
        run, is_new = self.request(project_id, label)
        if is_new:
            self._lead(run)
        return run, is_new

    def resume(self) -> None:
        """Lead the runs whose process has died, from their beginning. Web processes call this once in a while."""
        if not len(self._queue.workers()):
            return
        for run in self.store.take_silent():
            log.warning("a measurement has lost its process, begins anew", extra={"project": run.project_id})
            self._lead(run)

    def _lead(self, run: WorthRun) -> None:
        threading.Thread(target=self.measure, args=(run,), name="reference-worth", daemon=True).start()

    def measure(self, run: WorthRun) -> None:
        """Lead a run to its end. A failure is stored in the run's row, not raised."""
        try:
            with self._one_at_a_time(run):
                outcome, message, problems = Outcome.DONE, *self._measure(run)
        except StoppedError:
            return
        except RefCutError as error:
            outcome, message, problems = Outcome.FAILED, str(error), []
        except Exception as error:
            log.exception("references not measured", extra={"project": run.project_id})
            outcome, problems = Outcome.FAILED, []
            message = f"unexpected ({type(error).__name__}); the log has the traceback"
        log.info("references measured", extra={"project": run.project_id, "outcome": outcome, "why": message})
        try:
            self.store.end(run, outcome, message, problems)
        except SQLAlchemyError as error:
            log.warning("the end of a measurement is not stored", extra={"problem": type(error).__name__})

    @contextmanager
    def _one_at_a_time(self, run: WorthRun) -> Iterator[None]:
        while not self._turn.acquire(timeout=TURN_S):
            self._check(self.store.progress(run))
        try:
            yield
        finally:
            self._turn.release()

    def _measure(self, run: WorthRun) -> tuple[str, list[str]]:
        """Returns what was done, in one sentence, and what could not be."""
        deadline = time.monotonic() + self._rules.limit_s
        candidates = self._candidates(run.project_id, run.label)
        trained = {
            image for image, split in self._splits.known(run.project_id).items() if split is Split.TRAIN
        }
        targets = self._read_targets(run, candidates, trained)
        for _ in range(MODEL_CHANGES):
            try:
                measured = self._on_all(run, targets.found, candidates, trained, deadline)
                break
            except ModelChangedError:
                log.info("another model serves, measuring anew", extra={"project": run.project_id})
        else:
            raise RefCutError(
                "the model changed again and again", hint="measure again when trainings are done"
            )
        figures = self._save(run, candidates, measured)
        problems = [*targets.problems, *measured.failed]
        with_tasks, all_of_them = sum(bool(one.tasks) for one in figures), _count(len(figures), "reference")
        part = "" if with_tasks == len(figures) else f"{with_tasks} of "
        return f"{part}{all_of_them} measured on {_count(measured.masks, 'annotated mask')}", problems

    def _read_targets(
        self, run: WorthRun, candidates: dict[str, list[ListedReference]], trained: set[str]
    ) -> Targets:
        images = ProjectImages(self._rules.training_dir / str(run.project_id) / SHARED_IMAGES_DIR)

        def is_trained(where: TaskImage) -> bool:
            return images.known_content(where) in trained

        tasks_of = {label: {one.candidate.task_id for one in ones} for label, ones in candidates.items()}
        source = self._open_source(run.project_id, self._projects.connection(run.project_id))
        try:
            reader = TargetReader(
                run.project_id, self._projects.label_config(run.project_id) or "", source, is_trained
            )
            ids = annotated_tasks(self._engine, run.project_id)
            return reader.read(ids, tasks_of, lambda: self._check(self.store.progress(run)))
        finally:
            source.close()

    def _on_all(
        self,
        run: WorthRun,
        targets: Sequence[Target],
        candidates: dict[str, list[ListedReference]],
        trained: set[str],
        deadline: float,
    ) -> Measured:
        measured = Measured()
        for number, target in enumerate(targets):
            self._check(self.store.progress(run, number, len(targets)))
            if time.monotonic() > deadline:
                measured.failed.append(f"{len(targets) - number} masks were left out: the time was over")
                break
            of_label = usable_on(target.where.task_id, candidates[target.label])
            if not of_label:
                continue
            try:
                found, answer = self._ask(run, target, sets_of(of_label), measured)
            except TargetRefusedError as error:
                problem = f"task {target.where.task_id}: {error}"
                measured.failed.append(problem)
                for one in of_label:
                    measured.add_problem(one, problem)
                continue
            own_version = answer.model_version != self._rules.shared_version
            measured.add(target.where.task_id, of_label, found, own_version and answer.image in trained)
        self._check(self.store.progress(run, len(targets), len(targets)))
        return measured

    def _ask(
        self, run: WorthRun, target: Target, sets: Sequence[Set], measured: Measured
    ) -> tuple[dict[Set, MeasuredSet], MeasureAnswer]:
        """Asks until all sets are measured: a worker gives the job back when something else waits."""
        beat = _Beat(self.store, run)
        deadline = time.monotonic() + FREE_WORKER_LIMIT_S
        address = self._addresses.hide(target.where.address)
        pieces = self._references.rules.pieces(run.project_id, target.label)
        found: dict[Set, MeasuredSet] = {}
        while True:
            left = tuple(one for one in sets if one not in found)
            job = MeasureJob(
                run.project_id,
                target.where.task_id,
                address,
                list(target.rle),
                target.width,
                target.height,
                left,
                pieces,
            )
            try:
                answer = self._queue.ask(job, deadline, beat.is_lost, is_continuation=bool(found))
            finally:
                # A wait that was cancelled ends as one without an answer does.
                self._check(not beat.was_lost)
            if answer.error_code is not None:
                raise TargetRefusedError(answer.error_message)
            if answer.measured:
                if answer.model_version != (measured.model_version or answer.model_version):
                    raise ModelChangedError
                measured.model_version = answer.model_version
                found |= dict(zip(left, answer.measured, strict=False))
            if len(found) == len(sets):
                return found, answer

    def _candidates(self, project_id: int, label: str | None) -> dict[str, list[ListedReference]]:
        """The references to measure by label, those in use first. Raises NoReferenceError if there are none."""
        labels = read_label_config(self._projects.label_config(project_id) or "").all_region_labels
        found: dict[str, list[ListedReference]] = {}
        for one in self._references.overview(project_id, self._rules.max_references, labels):
            if one.state is not State.NO_LABEL and label in (None, one.candidate.label):
                found.setdefault(one.candidate.label, []).append(one)
        if not found:
            raise NoReferenceError(
                "there is no reference to measure" + (f" of '{label}'" if label else ""),
                hint='mark a region "Reference" in Label Studio and submit',
            )
        return {name: ones[:REFERENCES_PER_LABEL] for name, ones in found.items()}

    def _save(
        self, run: WorthRun, candidates: dict[str, list[ListedReference]], measured: Measured
    ) -> list[ReferenceFigures]:
        """Stores the figures of references that are still as they were. Returns all."""
        now = time.time()
        figures = [
            ReferenceFigures(
                label,
                one.candidate.version,
                measured.model_version,
                now,
                tuple(measured.tasks.get(one.candidate.id, ())),
                tuple(dict.fromkeys(measured.problems.get(one.candidate.id, ()))),
            )
            for label, ones in candidates.items()
            for one in ones
        ]
        listed = self._references.overview(run.project_id, self._rules.max_references)
        present = {(one.candidate.label, one.candidate.version) for one in listed}
        self.store.save(run.project_id, figures, present)
        return figures

    def _check(self, is_ours: bool) -> None:
        if not is_ours:
            raise StoppedError


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


class TargetRefusedError(Exception):
    """A worker could not measure on a mask; the message says why."""


class _Beat:
    """Writes signs of life while a worker computes, and notices that the run was stopped."""

    def __init__(self, store: WorthStore, run: WorthRun) -> None:
        self._store = store
        self._run = run
        self._next = time.monotonic() + BEAT_S
        self.was_lost = False

    def is_lost(self) -> bool:
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + BEAT_S
            self.was_lost = self.was_lost or not self._store.progress(self._run)
        return self.was_lost
