"""The training loop, shared by base training (`model.training.run`) and fine-tuning (`model.finetuning.run`).

A step draws a batch, simulates clicks on it (SimpleClick's iterative click simulation), and moves the weights. `Trainer`
saves a checkpoint every few minutes. A killed run resumes from it and takes the same steps as an uninterrupted run.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from numpy.random import Generator, default_rng
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from model.data.click_sampling import add_next_clicks
from model.errors import TrainingError
from model.network.candidates import Segmentation
from model.network.click_maps import box_maps, disk_maps
from model.network.encoder import use_plain_attention
from model.network.features import ImageFeatures
from model.network.prompts import ReferenceTokens
from model.network.refcut import RefCut
from model.training.batches import Batch, Batches, Part, Sampler, batch_loader
from model.training.config import Stage, TrainConfig
from model.training.distributed import SINGLE_PROCESS, Processes, child_signal_restored
from model.training.losses import LOSSES, mask_ious, pointed_loss, segmentation_loss
from model.training.optim import (
    WeightAverage,
    check_finite,
    computes_bfloat16,
    make_optimiser,
    scheduled_share,
)
from model.training.run_log import RunLog, StepRecord
from model.training.training_state import (
    CHECKPOINT_FILE,
    TrainingState,
    has_checkpoint,
    load_state,
    save_state,
)


@dataclass(frozen=True)
class ClickedAnswer:
    """An answer to simulated clicks.

    Attributes:
        segmentation: Logits (T, 1 or 3, S, S) with gradient, and their quality.
        pieces: What `add_next_clicks` returned for the last click, as a tensor; None without such clicks.
    """

    segmentation: Segmentation
    pieces: Tensor | None


def forward_with_clicks(
    network: RefCut, batch: Batch, rounds: int, rng: Generator, device: torch.device
) -> ClickedAnswer:
    """Simulate clicks on a batch and segment it.

    Each round adds one click per target, in the largest error of the network's current mask. The network is in
    evaluation mode and computes no gradient while clicks are simulated, as in SimpleClick.

    Args:
        network: In training mode afterwards.
        batch: Images, targets, references and first clicks.
        rounds: Number of clicks to add to the first ones.
        rng: Draws where a click falls within an error.
        device: Device of the network.

    Returns:
        The answer to all clicks.
    """
    size_px = batch.images.shape[-1]
    network.train()
    images = batch.images.to(device).float() / 255
    crops = network.encode_image(images)
    features = crops.repeated(batch.target_crop.to(device))
    prepared = network.prepare_reference(features, batch_references(network, batch, images, crops))
    table = batch.clicks.clone()
    previous = torch.zeros(len(table), 1, size_px, size_px, device=device)
    wanted = batch.targets[:, 0].numpy()
    boxes = _boxes(network, batch, size_px, device)
    pieces = None
    for number in range(1, rounds + 1):
        network.eval()
        with torch.no_grad():
            answer = network.segment(features, _coords(table, previous, boxes), prepared)
            previous = torch.sigmoid(_upsample(answer.best().float(), size_px))
        pieces = torch.from_numpy(add_next_clicks(table, wanted, previous[:, 0].cpu().numpy(), number, rng))
    network.train()
    answer = network.segment(features, _coords(table, previous, boxes), prepared)
    return ClickedAnswer(Segmentation(_upsample(answer.logits, size_px), answer.quality), pieces)


def batch_references(network: RefCut, batch: Batch, images: Tensor, crops: ImageFeatures) -> ReferenceTokens:
    """Collect the tokens of each target's reference. Only crops that serve as a reference are encoded.

    Args:
        network: Encodes the crops where they have no comparison features.
        batch: Names the reference crop and patch shares of each target.
        images: Crops (V, 3, S, S), float, 0 to 1, on the network's device.
        crops: All crops, encoded.

    Returns:
        Tokens of T references.
    """
    crop = batch.reference_crop.to(images.device)
    comparison = crops.comparison
    if comparison is None:
        used, crop = torch.unique(crop, return_inverse=True)
        comparison = network.encode_reference(images[used], None, None).tokens
    return ReferenceTokens(
        comparison[crop],
        batch.positive.to(images.device),
        batch.negative.to(images.device),
        None if crops.reader is None else crops.reader[crop],
    )


def _boxes(network: RefCut, batch: Batch, size_px: int, device: torch.device) -> list[Tensor]:
    """The channel of the box prompts (T, 1, S, S), for a network that has an input for them."""
    return [box_maps(batch.boxes.to(device), size_px, size_px)] if network.config.box_input else []


def _coords(table: Tensor, previous: Tensor, boxes: list[Tensor]) -> Tensor:
    size_px = previous.shape[-1]
    return torch.cat([previous, disk_maps(table.to(previous.device), size_px, size_px), *boxes], dim=1)


def _upsample(logits: Tensor, size_px: int) -> Tensor:
    """Resize bilinearly with aligned corners, as at inference."""
    return F.interpolate(logits, size=(size_px, size_px), mode="bilinear", align_corners=True)


Steps = Iterator[list[Batch]]
"""The batches of each step, for one process."""


class Trainer:
    """A training run that can be killed and resumed from its last checkpoint.

    Attributes:
        network: The network, on the run's device.
        config: The run; its stages have their lengths in steps.
        run_dir: Folder of checkpoint, log and weights.
        device: Where the network is computed.
        processes: The processes that share the run.
        optimiser: Adam or AdamW over the trainable parameters.
        average: Moving average of the trainable weights; the weights that are shipped.
        stage: Number of the current stage, from 0. Equal to the number of stages when the run is complete.
        step: Steps taken in the current stage.
        log: One line per step.
    """

    def __init__(
        self,
        network: RefCut,
        config: TrainConfig,
        run_dir: Path,
        device: torch.device,
        on_save: Callable[[dict[str, Tensor]], None],
        processes: Processes = SINGLE_PROCESS,
        milestone_steps: tuple[int, ...] = (),
        on_step: Callable[[StepRecord], None] = lambda record: None,
        schedule_step: Callable[[int], float] = float,
        must_stop: Callable[[], bool] = lambda: False,
    ) -> None:
        """Set up a run; call `resume` to load its checkpoint.

        Args:
            network: Moved to `device`. On a CPU its attention is computed without a fused kernel.
            config: Its stages must have their lengths in steps, not epochs.
            run_dir: Folder of the run; it is created.
            device: Where to compute.
            on_save: Called with the averaged weights after each checkpoint, in the process that writes.
            processes: The processes that share the run.
            milestone_steps: Steps at which the learning rate drops.
            on_step: Called after each step, in every process.
            schedule_step: Maps a step of the run to the step whose learning rate it uses, for a run that turns out
                longer or shorter than its stages.
            must_stop: Asked in each step; true in one of the processes ends the run after the step, in all of them.
        """
        if device.type == "cpu":
            use_plain_attention(network)
        self._on_save = on_save
        self._on_step = on_step
        self._schedule_step = schedule_step
        self._must_stop = must_stop
        self._stopped = False
        self.network = network.to(device)
        self.config = config
        self.run_dir = run_dir
        self.device = device
        self.processes = processes
        if network.config.reader is not None:
            network.reader.requires_grad_(config.rate_reader > 0)
        if config.judge_only:
            network.requires_grad_(False)
            network.candidates.requires_grad_quality()
        self.optimiser = make_optimiser(network, config)
        self.average = WeightAverage(network, config.average_decay)
        self.stage = 0
        self.step = 0
        self.log = RunLog(run_dir, config.stages)
        self._milestone_steps = milestone_steps
        self._saved_at = time.monotonic()
        self._bfloat16 = computes_bfloat16(device) if config.bfloat16 is None else config.bfloat16
        if processes.writes:
            run_dir.mkdir(parents=True, exist_ok=True)

    @property
    def checkpoint_path(self) -> Path:
        """File that the run resumes from."""
        return self.run_dir / CHECKPOINT_FILE

    def resume(self) -> bool:
        """Load the checkpoint of the run, and drop log lines of later steps.

        Every process must see the folder of the run.

        Returns:
            Whether there was a checkpoint.

        Raises:
            TrainingError: If the checkpoint is damaged, or an earlier version of this program wrote it.
        """
        found = has_checkpoint(self.run_dir)
        if found:
            saved = load_state(self.run_dir, self.device)
            self.network.load_state_dict(saved.network)
            self.optimiser.load_state_dict(dict(saved.optimiser))
            self.average.values = dict(saved.average)
            self.average.steps = int(saved.counters["average_steps"])
            self.stage, self.step = int(saved.counters["stage"]), int(saved.counters["step"])
        if self.processes.writes:
            self.log.rewind(self.stage, self.step)
        return found

    def save(self) -> None:
        """Write the checkpoint atomically, then the averaged weights (`on_save`) and the log.

        Only the process that writes does anything.

        Raises:
            TrainingError: If a weight is not finite. The previous checkpoint stays.
        """
        if not self.processes.writes:
            return
        check_finite(self.average.values)
        counters = {"average_steps": self.average.steps, "stage": self.stage, "step": self.step}
        state = TrainingState(
            self.network.state_dict(), self.average.values, self.optimiser.state_dict(), counters
        )
        save_state(state, self.run_dir)
        self._on_save(self.average.values)
        self.log.flush()
        self._saved_at = time.monotonic()

    def fit(self, sampler: Sampler, select_steps: Callable[[Steps], Steps] = lambda steps: steps) -> None:
        """Train through all remaining stages, or until the run must stop, and save. Call `resume` first.

        Args:
            sampler: Makes the targets; its random numbers depend on `config.seed` and the number of the stage.
            select_steps: Passes on the steps to be taken. It may end a stage early, and may look at the trainer
                between two steps.

        Raises:
            DataError: If a step cannot be split evenly among processes and batches.
            TrainingError: If the loss or a weight is not finite.
        """
        self.processes.share_weights(self.network)
        part = Part(self.processes.rank, self.processes.count, self.config.accumulate)
        with self.log, child_signal_restored():
            for number in range(self.stage, len(self.config.stages)):
                stage = self.config.stages[number]
                batches = Batches(sampler, stage, self.config.seed + number, self.step, part)
                loader = batch_loader(batches, self.config.loader_workers)
                self.run_stage(select_steps(iter(loader)), stage)
                if self._stopped:
                    break
        self.processes.wait()

    def run_stage(self, steps: Steps, stage: Stage) -> None:
        """Train through the rest of one stage, or until the run must stop, and save a checkpoint then.

        Args:
            steps: The batches of each step for this process.
            stage: The current stage.

        Raises:
            TrainingError: If the loss or a weight is not finite.
        """
        total = sum(s.steps for s in self.config.stages)
        before = sum(s.steps for s in self.config.stages[: self.stage])
        bar = tqdm(
            total=stage.steps,
            initial=self.step,
            desc=f"{stage.size_px} px",
            mininterval=5,
            disable=not self.processes.writes,
        )
        for batches in steps:
            share = stage.learning_rate_scale * scheduled_share(
                self._schedule_step(before + self.step),
                total,
                self.config.warmup_steps,
                self.config.schedule,
                self._milestone_steps,
            )
            for group in self.optimiser.param_groups:
                group["lr"] = group["base_lr"] * share
            loss, iou = self._train_step(batches, stage)
            self.step += 1
            record = StepRecord(self.stage, stage.size_px, self.step, loss, iou, share)
            if self.processes.writes:
                self.log.append(record)
            bar.set_postfix(loss=f"{loss:.3f}", iou=f"{iou:.3f}", refresh=False)
            bar.update()
            if time.monotonic() - self._saved_at > 60 * self.config.checkpoint_minutes:
                self.save()
            self._on_step(record)
            if self._stopped:
                break
        bar.close()
        if not self._stopped:
            self.stage, self.step = self.stage + 1, 0
        self.save()

    def _train_step(self, batches: list[Batch], stage: Stage) -> tuple[float, float]:
        """Take one step. Returns loss and IoU over all batches of all processes.

        Raises TrainingError for a loss that is not finite; the weights are then unchanged.
        """
        self.optimiser.zero_grad(set_to_none=True)
        figures = torch.zeros(3, device=self.device)
        for number, batch in enumerate(batches):
            figures[:2] += self._add_gradient(batch, stage, number, len(batches))
        figures[2] = float(self._must_stop())
        parameters = [p for group in self.optimiser.param_groups for p in group["params"]]
        self.processes.mean([figures, *(p.grad for p in parameters if p.grad is not None)])
        loss, iou, stops = figures.tolist()
        if not math.isfinite(loss):
            raise TrainingError(
                "the loss is not a number", hint="lower the learning rates, or leave bfloat16 off"
            )
        if self.config.clip_norm is not None:
            nn.utils.clip_grad_norm_(parameters, self.config.clip_norm)
        self.optimiser.step()
        self.average.update(self.network)
        self._stopped = stops > 0
        return loss, iou

    def _add_gradient(self, batch: Batch, stage: Stage, number: int, count: int) -> Tensor:
        """Add the gradient of batch `number` of `count`. Returns (loss, IoU), both divided by `count`.

        The number of click rounds is the same in all batches of a step.
        """
        of_step = default_rng([self.config.seed, stage.size_px, self.step, 1])
        torch_seed = int(of_step.integers(2**31))
        rounds = int(of_step.integers(self.config.max_click_rounds + 1))
        part = self.processes.rank * count + number
        rng = default_rng([self.config.seed, stage.size_px, self.step, 1, part]) if part else of_step
        torch.manual_seed(torch_seed + part)
        targets = batch.targets.to(self.device).float()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self._bfloat16):
            clicked = forward_with_clicks(self.network, batch, rounds, rng, self.device)
        answer = clicked.segmentation
        loss = segmentation_loss(answer, targets, LOSSES[stage.loss])
        if clicked.pieces is not None and self.config.pointed_share:
            loss = loss + self.config.pointed_share * pointed_loss(answer.meant, targets, clicked.pieces)
        loss = loss / count
        loss.backward()  # type: ignore[no-untyped-call]
        iou = mask_ious(answer.meant, targets).mean()
        return torch.stack([loss.detach(), iou / count])
