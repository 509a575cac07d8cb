"""Fine-tuning: a version learns from a snapshot of a project's annotations. `fine_tune` is the entry point.

    snapshot -> prepare_data    -> sampler, masks for early stopping
    parent   -> Candidate       -> the weights that ship: averaged over steps, then with the anchor
                TimeBudget      -> how many steps fit into the time
                EarlyStopping   -> which weights are best, and when to stop
    FineTuning ties them to the training loop of `model.training.trainer`.

Whether the result serves is decided later, by `model.evaluation.compare` and `model.evaluation.promotion`.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from model.checkpoints.anchor import anchor_weights
from model.checkpoints.version_folder import BASE_FILE, VERSION_FILE, copy_base, whole_network_file
from model.checkpoints.weights import load_network, save_base, save_version
from model.data.snapshot import Snapshot, read_snapshot
from model.errors import DataError, TrainingError
from model.evaluation.calibration import Correction, fit_correction
from model.finetuning.config import FineTuneSettings, Progress, StopTraining
from model.finetuning.early_stopping import (
    BestWeights,
    Check,
    CheckedMask,
    EarlyStopping,
    masks_to_check,
    split_validation,
)
from model.finetuning.run_settings import begin_or_resume
from model.finetuning.sampling import FineTuneSampler, Shares, logged_objects, reference_objects
from model.finetuning.time_budget import TimeBudget, make_plan, read_plan
from model.network.config import NetworkConfig
from model.training.batches import Batch
from model.training.config import Stage, TrainConfig
from model.training.distributed import SINGLE_PROCESS, Processes
from model.training.optim import check_finite
from model.training.run import read_source
from model.training.run_log import StepRecord
from model.training.sampling import SourcedObjects
from model.training.trainer import Steps, Trainer


def fine_tune(
    snapshot: Snapshot,
    parent_dir: Path,
    run_dir: Path,
    settings: FineTuneSettings | None = None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    processes: Processes = SINGLE_PROCESS,
    anchor_dir: Path | None = None,
) -> Path:
    """Train a child of a version, or resume a run that was killed. A run with other settings starts again.

    If a GPU has not enough memory for a step, the step is computed one group at a time.

    Args:
        snapshot: What to learn from.
        parent_dir: Folder of the version to begin with, or a whole network: its file, or the folder of the training that
            wrote it. The encoder of a whole network is not trained: it becomes the base of the version.
        run_dir: Folder of the run.
        settings: How to train; None takes the defaults.
        on_progress: Called often, in the process that writes. It may raise `StopTraining`: the run then saves a
            checkpoint and raises that error to the caller. Any other error ends the run without a checkpoint.
        processes: The processes that share the run.
        anchor_dir: Folder of the weights that the result is averaged with; None takes the parent. Name the weights that
            the parent itself comes from: with a share of one half, no descendant then moves further away from them
            than one training does.

    Returns:
        `run_dir`, with `base.safetensors` and `version.safetensors`.

    Raises:
        DataError: If there is nothing to learn from.
        TrainingError: If memory does not suffice, or a loss or weight is not finite.
        WeightsError: If the weights of parent or anchor cannot be used.
        StopTraining: If `on_progress` raises it.
    """
    settings = settings or FineTuneSettings()
    run_dir.mkdir(parents=True, exist_ok=True)
    if processes.writes:
        begin_or_resume(run_dir, settings)
    processes.wait()

    def run(accumulate: int) -> Path:
        return FineTuning(
            snapshot,
            parent_dir,
            run_dir,
            settings,
            on_progress,
            processes,
            accumulate=accumulate,
            anchor_dir=anchor_dir,
        ).run()

    try:
        return run(accumulate=1)
    except torch.OutOfMemoryError:
        torch.cuda.empty_cache()
    try:
        return run(accumulate=settings.groups)
    except torch.OutOfMemoryError as error:
        raise TrainingError(
            "the GPU has no memory for one group at a time either",
            hint="end what else uses it, or train at a smaller size_px",
        ) from error


@dataclass(frozen=True)
class FineTuneData:
    """What a run is made of.

    Attributes:
        images: Number of training images, those for early stopping included.
        masks: Masks for early stopping; may be empty.
        sampler: Makes the training targets.
    """

    images: int
    masks: list[CheckedMask]
    sampler: FineTuneSampler


def prepare_data(snapshot: Snapshot, settings: FineTuneSettings, network: NetworkConfig) -> FineTuneData:
    """Split the training images of a snapshot and set up the sampler.

    Args:
        snapshot: What to learn from.
        settings: Shares of the kinds of targets, and what is replayed.
        network: Shapes of the network that learns.

    Raises:
        DataError: If the snapshot has no training image, or replayed data cannot be read.
    """
    annotated_objects = [
        dataclasses.replace(annotated_object, has_whole=False)
        for annotated_object in snapshot.train_objects()
    ]
    if not annotated_objects:
        raise DataError("the snapshot has nothing to train on", hint="annotate and submit some tasks")
    held_out, learned = split_validation(annotated_objects, snapshot, settings)
    held_out_paths = {annotated_object.image_path for annotated_object in held_out}
    references = [one for one in reference_objects(snapshot, learned) if one.image_path not in held_out_paths]
    return FineTuneData(
        images=len({annotated_object.image_path for annotated_object in annotated_objects}),
        masks=masks_to_check(held_out, references, settings.checked_masks),
        sampler=FineTuneSampler(
            learned,
            references,
            logged_objects(snapshot.train, learned),
            replay_sources(settings),
            Shares(settings.reference_share, settings.session_share, settings.replay_share),
            network,
        ),
    )


def replay_sources(settings: FineTuneSettings) -> list[SourcedObjects]:
    """Read the data that is replayed against forgetting.

    Raises:
        DataError: If a snapshot or data set cannot be read.
    """
    annotated_objects = [read_snapshot(folder).train_objects() for folder in settings.replay_snapshots]
    sources = [SourcedObjects(own, 1.0, "parts") for own in annotated_objects if own]
    return sources + [read_source(source) for source in settings.replay_sources]


class Candidate:
    """The version that a run produces: trained weights, averaged with those of an anchor (as in WiSE-FT).

    Attributes:
        network: The network that is trained; it begins as the parent.
        run_dir: Folder that the version is written to.
    """

    def __init__(self, parent_dir: Path, run_dir: Path, anchor_dir: Path | None, anchor_share: float) -> None:
        """Load parent and anchor.

        Args:
            parent_dir: Folder of the version to begin with, or a whole network, whose encoder is then frozen.
            run_dir: Folder of the run.
            anchor_dir: Folder of the anchor; None takes the parent.
            anchor_share: Share of the anchor in the weights that ship, 0 to 1.

        Raises:
            WeightsError: If weights cannot be read, or those of the anchor have another base or shape.
        """
        self.network = load_network(parent_dir)
        self.network.backbone.requires_grad_(False)
        self.run_dir = run_dir
        self._parent_dir = parent_dir
        self._anchor = anchor_weights(self.network, parent_dir, anchor_dir)
        self._anchor_share = anchor_share

    def write_base(self) -> None:
        """Give the run's folder the base of the parent, or of its encoder if the parent is a whole network."""
        whole = whole_network_file(self._parent_dir)
        if whole is None:
            copy_base(self._parent_dir, self.run_dir)
        else:
            save_base(self.network, self.run_dir / BASE_FILE, whole)

    def shipped(self, average: dict[str, Tensor]) -> dict[str, Tensor]:
        """Average trained weights with those of the anchor."""
        return {
            name: value.lerp(self._anchor[name].to(value.device), self._anchor_share)
            for name, value in average.items()
        }

    def calibrate(self, check: Check) -> None:
        """Correct the expected IoU of the candidate's masks by the IoU that a check has measured.

        Args:
            check: Of the weights that will ship. One without expected IoUs changes nothing.
        """
        if self.network.config.candidates == 1 or not check.expected:
            return
        before = Correction(*self.network.candidates.calibration.tolist())
        after = fit_correction(check.expected, check.measured).after(before)
        self.network.candidates.calibration.copy_(torch.tensor([after.scale, after.shift]))

    def write(self, average: dict[str, Tensor]) -> None:
        """Write the version file.

        Args:
            average: Averaged trained weights by name.

        Raises:
            TrainingError: If a weight is not finite. An earlier file stays.
        """
        tensors = self.shipped(average)
        check_finite(tensors)
        save_version(
            self.network.state_dict() | tensors,
            self.network.config,
            self.run_dir / BASE_FILE,
            self.run_dir / VERSION_FILE,
        )


class FineTuning:
    """One run in its folder: ties data, candidate, time budget and early stopping to the training loop."""

    def __init__(
        self,
        snapshot: Snapshot,
        parent_dir: Path,
        run_dir: Path,
        settings: FineTuneSettings,
        on_progress: Callable[[Progress], None],
        processes: Processes,
        accumulate: int = 1,
        clock: Callable[[], float] = time.monotonic,
        anchor_dir: Path | None = None,
    ) -> None:
        """Read everything that the run needs; see `fine_tune` for the arguments and errors.

        Args:
            snapshot: What to learn from.
            parent_dir: Folder of the version to begin with.
            run_dir: Existing folder of the run.
            settings: How to train.
            on_progress: Called often, in the process that writes.
            processes: The processes that share the run.
            accumulate: Number of batches that a step is computed in.
            clock: Returns seconds; the time budget is measured with it.
            anchor_dir: Folder of the anchor; None takes the parent.
        """
        self._settings = settings
        self._on_progress = on_progress
        self._processes = processes
        self._metrics: dict[str, float] = {}
        torch.manual_seed(settings.seed)
        self._candidate = Candidate(parent_dir, run_dir, anchor_dir, settings.anchor_share)
        data = prepare_data(snapshot, settings, self._candidate.network.config)
        self._sampler = data.sampler
        self._stopping = EarlyStopping(data.masks, BestWeights(run_dir), settings.checks, settings.patience)
        plan = read_plan(run_dir) or make_plan(data.images, settings)
        self._budget = TimeBudget(plan, run_dir, settings.time_limit_s, processes, clock)
        self._trainer = self._make_trainer(accumulate)

    def run(self) -> Path:
        """Train through the rest of the run.

        Returns:
            The folder of the run.
        """
        self._report("preparing")
        if self._processes.writes:
            self._candidate.write_base()
        self._trainer.resume()
        self._budget.resume_at(self._trainer.step)
        try:
            self._trainer.fit(self._sampler, self._until_done)
        except StopTraining:
            self._trainer.save()
            raise
        if self._processes.writes:
            self._check(self._trainer.log.read()[-1].step)
            self._candidate.calibrate(self._stopping.best.best)
            self._candidate.write(self._stopping.best.load() or self._trainer.average.values)
        self._processes.wait()
        self._report("done", self._budget.plan.steps)
        return self._candidate.run_dir

    def _make_trainer(self, accumulate: int) -> Trainer:
        settings, budget = self._settings, self._budget
        config = TrainConfig(
            preset="finetune",
            sources=[],
            stages=[Stage(size_px=settings.size_px, steps=budget.plan.wanted, groups=settings.groups)],
            seed=settings.seed,
            rate_head=settings.rate_head,
            rate_prompts=settings.rate_prompts,
            rate_blocks=settings.rate_blocks,
            rate_reader=settings.rate_reader,
            warmup_steps=settings.warmup_steps,
            max_click_rounds=settings.max_click_rounds,
            average_decay=settings.average_decay,
            accumulate=accumulate,
            bfloat16=settings.bfloat16,
            checkpoint_minutes=settings.checkpoint_minutes,
            loader_workers=settings.loader_workers,
        )
        return Trainer(
            self._candidate.network,
            config,
            self._candidate.run_dir,
            self._processes.device,
            self._candidate.write,
            self._processes,
            on_step=self._on_step,
            schedule_step=lambda step: budget.plan.progress(step) * budget.plan.wanted,
        )

    def _on_step(self, record: StepRecord) -> None:
        self._metrics |= {"loss": round(record.loss, 4), "iou": round(record.iou, 4)}
        self._report("training", record.step, self._budget.step_taken(record.step))

    def _until_done(self, steps: Steps) -> Iterator[list[Batch]]:
        """Pass on steps until the plan, the time or the patience of early stopping is at its end.

        Early stopping and the time limit need no agreement in a single process; several processes rely on the plan.
        """
        is_single = self._processes.count == 1
        for batches in steps:
            taken = self._trainer.step
            self._budget.review(taken)
            plan = self._budget.plan
            if plan.is_over(taken):
                return
            if is_single and self._stopping.is_due(plan.progress(taken), plan.progress(taken - 1)):
                self._check(taken)
                if self._stopping.should_stop():
                    return
            if is_single and taken and self._budget.is_spent():
                return
            yield batches

    def _check(self, taken: int) -> None:
        """Score the averaged weights, unless they have a score or there is nothing to score them on."""
        if not self._stopping.needs(taken):
            return
        self._report("checking", taken)
        average = self._trainer.average.values
        shipped = self._candidate.shipped(average)
        found = self._stopping.check(taken, self._candidate.network, average, shipped)
        self._metrics["checked_iou"] = round(found, 4)

    def _report(self, stage: str, step: int = 0, eta_s: float | None = None) -> None:
        if self._processes.writes:
            eta = None if eta_s is None else round(eta_s, 1)
            steps = self._budget.plan.steps if step else 0
            self._on_progress(Progress(stage, step, steps, eta, dict(self._metrics)))
