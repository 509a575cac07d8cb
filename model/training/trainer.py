"""The training loop: steps, and checkpoints from which a killed run goes on."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from numpy.random import Generator, default_rng
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from model.data.click_sampling import add_next_clicks
from model.errors import TrainingError
from model.network.click_maps import disk_maps
from model.network.prompts import ReferenceTokens
from model.network.refcut import RefCut
from model.training.batches import Batch
from model.training.config import Stage, TrainConfig
from model.training.distributed import ALONE, Processes
from model.training.losses import LOSSES
from model.training.optim import (
    WeightAverage,
    check_finite,
    computes_bfloat16,
    make_optimiser,
    scheduled_share,
)
from model.training.run_log import RunLog, StepRecord


def click_through(network: RefCut, batch: Batch, rounds: int, rng: Generator, device: torch.device) -> Tensor:
    """Logits (T, 1, S, S) after `rounds` further clicks. The network is in evaluation mode while it is clicked on."""
    size_px = batch.images.shape[-1]
    network.train()
    images = batch.images.to(device).float() / 255
    views = network.encode_image(images)
    features = views.repeated(batch.target_view.to(device))
    prepared = network.prepare_reference(features, references(network, batch, images, views.comparison))
    table = batch.clicks.clone()
    previous = torch.zeros(len(table), 1, size_px, size_px, device=device)
    wanted = batch.targets[:, 0].numpy()
    for number in range(1, rounds + 1):
        network.eval()
        with torch.no_grad():
            logits = network.segment(features, _coords(table, previous), prepared)
            previous = torch.sigmoid(_upsample(logits.float(), size_px))
        add_next_clicks(table, wanted, previous[:, 0].cpu().numpy(), number, rng)
    network.train()
    return _upsample(network.segment(features, _coords(table, previous), prepared), size_px)


def references(network: RefCut, batch: Batch, images: Tensor, comparison: Tensor | None) -> ReferenceTokens:
    """Tokens of each target's reference; views that are nobody's reference are not encoded for it."""
    view = batch.reference_view.to(images.device)
    if comparison is None:
        used, view = torch.unique(view, return_inverse=True)
        comparison = network.encode_reference(images[used], None, None).tokens
    return ReferenceTokens(
        comparison[view], batch.positive.to(images.device), batch.negative.to(images.device)
    )


def _coords(table: Tensor, previous: Tensor) -> Tensor:
    size_px = previous.shape[-1]
    return torch.cat([previous, disk_maps(table.to(previous.device), size_px, size_px)], dim=1)


def _upsample(logits: Tensor, size_px: int) -> Tensor:
    """As at inference: bilinear, corners aligned (facts: section 1.2, step 10)."""
    return F.interpolate(logits, size=(size_px, size_px), mode="bilinear", align_corners=True)


CHECKPOINT_FILE = "checkpoint.pt"


class Trainer:
    """A run that can be killed and goes on where it last saved."""

    def __init__(
        self,
        network: RefCut,
        config: TrainConfig,
        run_dir: Path,
        device: torch.device,
        on_save: Callable[[dict[str, Tensor]], None],
        processes: Processes = ALONE,
        milestone_steps: tuple[int, ...] = (),
        on_step: Callable[[StepRecord], None] = lambda record: None,
        place_in_schedule: Callable[[int], float] = float,
    ) -> None:
        """config: its stages are measured in steps. on_save is given the averaged weights whenever a checkpoint has
        been written. milestone_steps: where the learning rate drops. on_step is told of each step. place_in_schedule:
        the step whose learning rate a step is taken at, for a run that turns out longer or shorter than its stages."""
        self._on_save = on_save
        self._on_step = on_step
        self._place_in_schedule = place_in_schedule
        self.network = network.to(device)
        self.config = config
        self.run_dir = run_dir
        self.device = device
        self.processes = processes
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
        return self.run_dir / CHECKPOINT_FILE

    def resume(self) -> bool:
        """Goes on from the run's checkpoint, if there is one. The file is our own and read with weights_only.

        Every process must see the run's folder.
        """
        found = self.checkpoint_path.exists()
        if found:
            saved = torch.load(self.checkpoint_path, map_location=self.device, weights_only=True)
            self.network.load_state_dict(saved["network"])
            self.optimiser.load_state_dict(saved["optimiser"])
            self.average.values, self.average.steps = saved["average"], saved["average_steps"]
            self.stage, self.step = saved["stage"], saved["step"]
        if self.processes.writes:
            self.log.rewind(self.stage, self.step)
        return found

    def save(self) -> None:
        """Writes the checkpoint; a kill in the middle leaves the one before. Raises TrainingError for weights that are no
        numbers, and leaves the one before, too."""
        if not self.processes.writes:
            return
        check_finite(self.average.values)
        temporary = self.checkpoint_path.with_suffix(".partial")
        torch.save(
            {
                "network": self.network.state_dict(),
                "optimiser": self.optimiser.state_dict(),
                "average": self.average.values,
                "average_steps": self.average.steps,
                "stage": self.stage,
                "step": self.step,
            },
            temporary,
        )
        os.replace(temporary, self.checkpoint_path)
        self._on_save(self.average.values)
        self.log.flush()
        self._saved_at = time.monotonic()

    def run_stage(self, steps: Iterator[list[Batch]], stage: Stage) -> None:
        """Trains through the rest of a stage. steps: this process's batches of each step."""
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
                self._place_in_schedule(before + self.step),
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
        bar.close()
        self.stage, self.step = self.stage + 1, 0
        self.save()

    def _train_step(self, batches: list[Batch], stage: Stage) -> tuple[float, float]:
        """Loss and IoU of the whole step, over all batches of all processes. Raises TrainingError for a loss that is no
        number; the weights are as they were then."""
        self.optimiser.zero_grad(set_to_none=True)
        figures = torch.zeros(2, device=self.device)
        for number, batch in enumerate(batches):
            figures += self._add_gradient(batch, stage, number, len(batches))
        parameters = [p for group in self.optimiser.param_groups for p in group["params"]]
        self.processes.mean([figures, *(p.grad for p in parameters if p.grad is not None)])
        loss, iou = figures.tolist()
        if not math.isfinite(loss):
            raise TrainingError(
                "the loss is not a number", hint="lower the learning rates, or leave bfloat16 off"
            )
        if self.config.clip_norm is not None:
            nn.utils.clip_grad_norm_(parameters, self.config.clip_norm)
        self.optimiser.step()
        self.average.update(self.network)
        return loss, iou

    def add_gradient(self, batch: Batch, stage: Stage) -> None:
        """Computes what a step costs most time with, and takes none."""
        self._add_gradient(batch, stage, 0, 1)

    def _add_gradient(self, batch: Batch, stage: Stage, number: int, count: int) -> Tensor:
        """Adds the gradient of one of `count` batches; returns (loss, IoU), both as shares of the step's.

        How many rounds of clicks there are is the same in all batches of a step.
        """
        of_step = default_rng([self.config.seed, stage.size_px, self.step, 1])
        torch_seed = int(of_step.integers(2**31))
        rounds = int(of_step.integers(self.config.max_click_rounds + 1))
        part = self.processes.rank * count + number
        rng = default_rng([self.config.seed, stage.size_px, self.step, 1, part]) if part else of_step
        torch.manual_seed(torch_seed + part)
        targets = batch.targets.to(self.device).float()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self._bfloat16):
            logits = click_through(self.network, batch, rounds, rng, self.device)
        loss = LOSSES[stage.loss](logits, targets) / count
        loss.backward()  # type: ignore[no-untyped-call]
        mask = logits.detach() > 0
        wanted = targets > 0.5
        iou = (mask & wanted).sum(dim=(1, 2, 3)) / (mask | wanted).sum(dim=(1, 2, 3)).clamp_min(1)
        return torch.stack([loss.detach(), iou.mean() / count])
