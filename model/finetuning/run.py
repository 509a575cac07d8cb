"""One fine-tuning from its first step to its weights."""

from __future__ import annotations

import dataclasses
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from model.checkpoints.anchor import anchor_weights
from model.checkpoints.weights import BASE_FILE, VERSION_FILE, load_network, save_version
from model.data.scenes import read_scenes
from model.data.snapshot import Snapshot, read_snapshot
from model.errors import DataError, TrainingError
from model.finetuning.config import FineTuneSettings, Progress, StopTraining
from model.finetuning.early_stopping import BestWeights, masks_to_check, score, split_validation
from model.finetuning.sampling import FineTuneSampler, Shares, logged_scenes, reference_scenes
from model.finetuning.time_budget import make_plan, read_plan, write_plan
from model.network.encoder import use_plain_attention
from model.training.batches import Batch, Batches, Part, batch_loader
from model.training.config import Stage, TrainConfig
from model.training.distributed import SINGLE_PROCESS, Processes, child_signal_kept
from model.training.optim import check_finite
from model.training.run_log import StepRecord
from model.training.sampling import SourcedScenes
from model.training.trainer import Trainer


def fine_tune(
    snapshot: Snapshot,
    parent_dir: Path,
    run_dir: Path,
    settings: FineTuneSettings | None = None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    processes: Processes = SINGLE_PROCESS,
    anchor_dir: Path | None = None,
) -> Path:
    """Trains a child of the version in `parent_dir`, or goes on where a run in `run_dir` was killed.

    anchor_dir: the weights with which the outcome is averaged, the parent's by default. They are to be those that the
    parent comes from: with a share of a half no descendant gets further away from them than one training goes.
    on_progress is called often, and may raise StopTraining: the run is saved, and that error goes on to the caller.
    Returns the folder with base.safetensors and version.safetensors. Raises DataError when there is nothing to learn
    from, TrainingError when memory does not do or numbers are none, WeightsError for weights that cannot be used.
    """
    settings = settings or FineTuneSettings()
    run_dir.mkdir(parents=True, exist_ok=True)

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


class FineTuning:
    """A run in its folder. accumulate: parts that a step is computed in. clock: seconds, of this process."""

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
        """Raises DataError when there is nothing to learn from, WeightsError for weights that cannot be used."""
        self._parent_dir, self._run_dir = parent_dir, run_dir
        self._settings = settings
        self._on_progress = on_progress
        self._processes = processes
        self._accumulate = accumulate
        self._metrics: dict[str, float] = {}
        scenes = [dataclasses.replace(scene, has_whole=False) for scene in snapshot.train_scenes()]
        if not scenes:
            raise DataError("the snapshot has nothing to train on", hint="annotate and submit some tasks")
        self._images = len({scene.image_path for scene in scenes})
        self._checked, learned = split_validation(scenes, snapshot, settings)
        aside = {scene.image_path for scene in self._checked}
        references = [one for one in reference_scenes(snapshot, learned) if one.image_path not in aside]
        self._masks = masks_to_check(self._checked, references, settings.checked_masks)
        device = (
            torch.device("cuda", processes.local_rank) if torch.cuda.is_available() else torch.device("cpu")
        )
        torch.manual_seed(settings.seed)
        self._network = load_network(parent_dir)
        self._origin = anchor_weights(self._network, parent_dir, anchor_dir)
        self._device = device
        self._draw = FineTuneSampler(
            learned,
            references,
            logged_scenes(snapshot.train, learned),
            replayed(settings),
            Shares(settings.reference_share, settings.session_share, settings.replay_share),
            self._network.config.patch_px,
        )
        self._best = BestWeights(run_dir)
        self._plan = read_plan(run_dir) or make_plan(self._images, settings)
        self._clock = clock
        self._started = clock()
        self._spent_before_s = 0.0
        self._looked: tuple[int, float] | None = None
        self._taken = 0

    def run(self) -> Path:
        """Trains all that is left. Returns the run's folder."""
        self._say("preparing")
        if self._device.type == "cpu":
            use_plain_attention(self._network)
        self._copy_base()
        if self._processes.writes:
            write_plan(self._plan, self._run_dir)
        trainer = self._trainer()
        trainer.resume()
        self._processes.share_weights(self._network)
        if trainer.stage == 0:
            self._spent_before_s = self._plan.spent_s(trainer.step)
            stage = trainer.config.stages[0]
            part = Part(self._processes.rank, self._processes.count, self._accumulate)
            batches = Batches(self._draw, stage, self._settings.seed, trainer.step, part)
            with trainer.log, child_signal_kept():
                steps = iter(batch_loader(batches, self._settings.loader_workers))
                try:
                    trainer.run_stage(self._until_done(steps, trainer), stage)
                except StopTraining:
                    trainer.save()
                    raise
        if self._processes.writes:
            self._check(trainer, trainer.log.read()[-1].step)
            self._export(self._best.load() or trainer.average.values)
        self._processes.wait()
        self._say("done", self._plan.steps)
        return self._run_dir

    def _trainer(self) -> Trainer:
        settings = self._settings
        config = TrainConfig(
            preset="finetune",
            sources=[],
            stages=[Stage(size_px=settings.size_px, steps=self._plan.wanted, groups=settings.groups)],
            seed=settings.seed,
            rate_head=settings.rate_head,
            rate_prompts=settings.rate_prompts,
            rate_blocks=settings.rate_blocks,
            warmup_steps=settings.warmup_steps,
            max_click_rounds=settings.max_click_rounds,
            average_decay=settings.average_decay,
            accumulate=self._accumulate,
            bfloat16=settings.bfloat16,
            checkpoint_minutes=settings.checkpoint_minutes,
        )

        def on_step(record: StepRecord) -> None:
            self._metrics |= {"loss": round(record.loss, 4), "iou": round(record.iou, 4)}
            self._taken += 1
            left_s = (self._plan.steps - record.step) * (self._clock() - self._started) / self._taken
            self._say("training", record.step, left_s)

        return Trainer(
            self._network,
            config,
            self._run_dir,
            self._device,
            lambda averaged: self._export(averaged),
            self._processes,
            on_step=on_step,
            place_in_schedule=lambda step: self._plan.progress(step) * self._plan.wanted,
        )

    def _until_done(self, steps: Iterator[list[Batch]], trainer: Trainer) -> Iterator[list[Batch]]:
        """The steps until the plan or the time is over, or until checks have found nothing better for a while."""
        alone = self._processes.count == 1
        for batches in steps:
            taken = trainer.step
            self._review(taken)
            if self._plan.is_over(taken):
                return
            if alone and self._is_check_due(taken):
                self._check(trainer, taken)
                if self._best.since_best() >= self._settings.patience:
                    return
            if alone and taken and self._spent_s() > self._settings.time_limit_s:
                return
            yield batches

    def _spent_s(self) -> float:
        """Seconds of the whole run, those before it was resumed included."""
        return self._spent_before_s + self._clock() - self._started

    def _review(self, taken: int) -> None:
        """Looks whether the plan fits into the time, where that is due; all processes come to the same."""
        now = self._clock()
        if self._taken <= 1 or self._looked is None:
            # The first step also waits for the first batch: it says nothing of the others.
            self._looked = taken, now
        elif self._plan.is_due(taken):
            since, at = self._looked
            figures = torch.tensor(
                [(now - at) / (taken - since), self._spent_s()], dtype=torch.float64, device=self._device
            )
            self._processes.mean([figures])
            step_s, spent_s = figures.tolist()
            self._plan = self._plan.reviewed(taken, step_s, spent_s, self._settings.time_limit_s)
            self._looked = (taken, now)
            if self._processes.writes:
                write_plan(self._plan, self._run_dir)

    def _is_check_due(self, taken: int) -> bool:
        def passed(step: int) -> int:
            return int(self._plan.progress(step) * self._settings.checks + 1e-9)

        return taken == 0 or passed(taken) > passed(taken - 1)

    def _check(self, trainer: Trainer, taken: int) -> None:
        """Scores the averaged weights, where images were kept aside for that, once after the same step."""
        if not self._masks or self._best.knows(taken):
            return
        self._say("checking", taken)
        averaged = self._blended(trainer.average.values)
        own = {name: value.detach().clone() for name, value in self._network.state_dict().items()}
        self._network.load_state_dict(averaged, strict=False)
        found = score(self._network, self._masks)
        self._network.load_state_dict(own)
        self._network.train()
        self._metrics["checked_iou"] = round(found, 4)
        self._best.add(taken, found, trainer.average.values)

    def _blended(self, averaged: dict[str, Tensor]) -> dict[str, Tensor]:
        share = self._settings.origin_share
        return {
            name: value.lerp(self._origin[name].to(value.device), share) for name, value in averaged.items()
        }

    def _export(self, averaged: dict[str, Tensor]) -> None:
        tensors = self._blended(averaged)
        check_finite(tensors)
        base = self._run_dir / BASE_FILE
        save_version(
            self._network.state_dict() | tensors, self._network.config, base, self._run_dir / VERSION_FILE
        )

    def _copy_base(self) -> None:
        """A child's base is its parent's very file, as a version names its base by hash."""
        if self._processes.writes and not (self._run_dir / BASE_FILE).exists():
            temporary = self._run_dir / f"{BASE_FILE}.partial"
            shutil.copyfile(self._parent_dir / BASE_FILE, temporary)
            temporary.replace(self._run_dir / BASE_FILE)

    def _say(self, stage: str, step: int = 0, eta_s: float | None = None) -> None:
        if self._processes.writes:
            eta = None if eta_s is None else round(eta_s, 1)
            steps = self._plan.steps if step else 0
            self._on_progress(Progress(stage, step, steps, eta, dict(self._metrics)))


def replayed(settings: FineTuneSettings) -> list[SourcedScenes]:
    """What is drawn beside the project's own, so that it is not forgotten. Raises DataError."""
    scenes = [read_snapshot(folder).train_scenes() for folder in settings.replay_snapshots]
    sources = [SourcedScenes(own, 1.0) for own in scenes if own]
    for source in settings.replay_sources:
        read = read_scenes(source.json_path, source.image_dir, grouping=source.grouping)
        sources.append(SourcedScenes(read, source.share))
    return sources
