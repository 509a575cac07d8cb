"""Trains the reader alone, on cached frozen features, with checkpoints from which a killed run resumes.

checkpoint.safetensors weights, optimiser and average
steps.jsonl            loss, IoU on the grid and learning rate of each step, each step once
evaluations.jsonl      the curve: count, mean and standard error by cell
evaluations/STEP.npz   the IoU of every sample, for paired comparisons
reader.safetensors     the averaged weights
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from model.errors import DataError, TrainingError, WeightsError
from model.network.config import ReaderConfig
from model.network.reader import Reader, label_shares
from model.network.similarity import PatchCosines
from model.training.distributed import SINGLE_PROCESS, Processes
from model.training.optim import WeightAverage, check_finite, computes_bfloat16
from model.training.reader_config import ReaderTraining
from model.training.reader_sampling import ReaderBatch, ReaderSampler
from model.training.training_state import TrainingState, has_checkpoint, load_state, save_state

STEPS_FILE = "steps.jsonl"
EVALUATIONS_FILE = "evaluations.jsonl"
EVALUATIONS_DIR = "evaluations"
WEIGHTS_FILE = "reader.safetensors"
READER_FORMAT = "refcut-reader-1"

CellIous = Mapping[str, Mapping[str, NDArray[np.float64]]]
"""IoU of every sample, by cell ("set/kind") and measure."""


class ReaderTrainer:
    """One run of training the reader."""

    def __init__(
        self,
        reader: Reader,
        config: ReaderTraining,
        sampler: ReaderSampler,
        run_dir: Path,
        device: torch.device,
        evaluation: Callable[[Reader], CellIous] | None = None,
        processes: Processes = SINGLE_PROCESS,
    ) -> None:
        """Prepares a run; `resume` continues an earlier one in `run_dir`.

        Args:
            reader: The reader to train.
            config: What a step is made of.
            sampler: Makes it.
            run_dir: Folder of the run. Only the first process writes there.
            device: Where the reader is trained.
            evaluation: Gives the IoU of every sample; None leaves evaluations out.
            processes: Those that share each step's groups.

        Raises:
            DataError: If the groups of a step cannot be shared evenly.
        """
        if config.groups % processes.count:
            raise DataError(
                f"{config.groups} groups cannot be shared evenly among {processes.count} processes",
                hint="change groups in the configuration",
            )
        self.reader = reader.to(device)
        self.config = config
        self.run_dir = run_dir
        self.step = 0
        self.seconds = 0.0
        """Time spent on steps, over all resumed parts of the run."""
        self._asked_to_stop = self._stopped = False
        self._sampler = sampler
        self._device = device
        self._evaluation = evaluation
        self._processes = processes
        self._average = WeightAverage(reader, config.average_decay)
        self._optimiser = torch.optim.AdamW(
            reader.parameters(),
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
            betas=(0.9, 0.98),
        )
        self._bfloat16 = computes_bfloat16(device)
        run_dir.mkdir(parents=True, exist_ok=True)

    def resume(self) -> bool:
        """Continues from the run's checkpoint, if there is one, to the same losses as without the interruption.

        Raises:
            TrainingError: If the checkpoint is damaged, or an earlier version of this program wrote it.
        """
        if not has_checkpoint(self.run_dir):
            return False
        saved = load_state(self.run_dir, self._device)
        self.reader.load_state_dict(saved.network)
        self._optimiser.load_state_dict(dict(saved.optimiser))
        self._average.values = dict(saved.average)
        self._average.steps = int(saved.counters["average_steps"])
        self.step = int(saved.counters["step"])
        self.seconds = saved.counters["seconds"]
        if self._processes.writes:
            _drop_after(self.run_dir / STEPS_FILE, self.step)
        return True

    def run(self) -> None:
        """Trains until the last step, or until `stop` is called, and saves.

        Raises:
            TrainingError: If the loss or a weight is not a finite number.
        """
        saved_at = evaluated_at = time.monotonic()
        while self.step < self.config.steps and not self._stopped:
            started = time.monotonic()
            record = self._train_step()
            self.seconds += time.monotonic() - started
            if not self._processes.writes:
                continue
            with (self.run_dir / STEPS_FILE).open("a") as log:
                log.write(json.dumps(record | {"seconds": round(self.seconds, 1)}) + "\n")
            if time.monotonic() - saved_at > 60 * self.config.checkpoint_minutes:
                self.save()
                saved_at = time.monotonic()
            if time.monotonic() - evaluated_at > 60 * self.config.evaluation_minutes:
                self.evaluate()
                evaluated_at = time.monotonic()
        if self._processes.writes:
            self.save()
            if not self._stopped:
                self.evaluate()

    def stop(self) -> None:
        """Ends `run` after the current or the next step, in all processes; may be called by a signal handler."""
        self._asked_to_stop = True

    def save(self) -> None:
        """Writes checkpoint and averaged weights."""
        check_finite(self._average.values)
        counters = {"average_steps": self._average.steps, "step": self.step, "seconds": self.seconds}
        state = TrainingState(
            self.reader.state_dict(), self._average.values, self._optimiser.state_dict(), counters
        )
        save_state(state, self.run_dir)
        save_reader(self._average.values, self.reader, self.run_dir / WEIGHTS_FILE)

    def evaluate(self) -> dict[str, dict[str, float]]:
        """Runs the evaluation with the averaged weights and adds it to the curve."""
        if self._evaluation is None:
            return {}
        averaged = Reader(self.reader.embed.in_features, self.reader.config).to(self._device)
        averaged.load_state_dict(self.reader.state_dict() | self._average.values)
        found = self._evaluation(averaged)
        summary = summarise(found)
        (self.run_dir / EVALUATIONS_DIR).mkdir(exist_ok=True)
        values = {f"{cell}:{measure}": ious for cell, of in found.items() for measure, ious in of.items()}
        np.savez(self.run_dir / EVALUATIONS_DIR / f"{self.step}.npz", **values)  # type: ignore[arg-type]
        line = {"step": self.step, "seconds": round(self.seconds, 1), "cells": summary}
        with (self.run_dir / EVALUATIONS_FILE).open("a") as log:
            log.write(json.dumps(line) + "\n")
        for cell, measures in summary.items():
            means = {
                name: value for name, value in measures.items() if name != "n" and not name.endswith("_se")
            }
            shown = " ".join(f"{name}={value:.3f}" for name, value in means.items())
            print(f"step {self.step} {cell} n={measures['n']:.0f} {shown}", flush=True)
        return summary

    def _train_step(self) -> dict[str, float]:
        for group in self._optimiser.param_groups:
            group["lr"] = self.config.learning_rate * rate_share(self.step, self.config)
        own = self.config.groups // self._processes.count
        first = own * self._processes.rank
        batch = self._sampler.batch(self.step, range(first, first + own))
        torch.manual_seed((self.config.seed * 1_000_003 + self.step) * 64 + self._processes.rank)
        self.reader.train()
        logits, targets = self._logits(batch)
        loss = bce_and_dice_on_shares(logits, targets)
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        with torch.no_grad():
            mask = (logits > 0).float()
            overlap = (mask * targets).sum(dim=-1)
            iou = (overlap / (mask.sum(dim=-1) + targets.sum(dim=-1) - overlap).clamp_min(1e-6)).mean()
            stops = loss.new_tensor(float(self._asked_to_stop))
            figures = torch.stack([loss.detach(), iou, stops])
        gradients = [p.grad for p in self.reader.parameters() if p.grad is not None]
        self._processes.mean([figures, *gradients])
        if not bool(torch.isfinite(figures[0])):
            raise TrainingError("the loss is not a number", hint="lower the learning rate")
        nn.utils.clip_grad_norm_(self.reader.parameters(), self.config.clip_norm)
        self._optimiser.step()
        self._average.update(self.reader)
        self.step += 1
        self._stopped = bool(figures[2] > 0)
        return {
            "step": self.step,
            "loss": round(figures[0].item(), 5),
            "iou": round(figures[1].item(), 4),
            "rate": round(rate_share(self.step - 1, self.config), 5),
            "targets": targets.shape[0] * targets.shape[1] * self._processes.count,
        }

    def _logits(self, batch: ReaderBatch) -> tuple[Tensor, Tensor]:
        """Logits and targets, (B, K, N)."""
        comparison = torch.from_numpy(batch.features).to(self._device).float()
        references = torch.from_numpy(batch.references).to(self._device)
        labels = label_shares(
            torch.from_numpy(batch.positive).to(self._device),
            torch.from_numpy(batch.negative).to(self._device),
        )
        clicks = torch.from_numpy(batch.clicks).to(self._device)
        grid = (self._sampler.grid, self._sampler.grid)
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._bfloat16):
            tokens = self.reader.encode(comparison, grid)
            frozen = PatchCosines.of(comparison, comparison[references].flatten(1, 2))
            matched = self.reader.match(tokens, tokens[references].flatten(1, 2), frozen, labels)
            reading = self.reader.read(tokens, comparison, matched, clicks, grid)
        return reading.logits, torch.from_numpy(batch.targets).to(self._device)


def summarise(found: CellIous) -> dict[str, dict[str, float]]:
    """Count, and mean and standard error of each measure, by cell."""
    return {
        cell: {"n": float(len(next(iter(measures.values()))))}
        | {measure: round(float(values.mean()), 4) for measure, values in measures.items()}
        | {
            f"{measure}_se": round(float(values.std(ddof=1) / np.sqrt(len(values))), 4)
            for measure, values in measures.items()
            if len(values) > 1
        }
        for cell, measures in found.items()
    }


def rate_share(step: int, config: ReaderTraining) -> float:
    """Share of the learning rate at a step: linear warm-up, constant, linear to zero over `decay_steps`."""
    warm = min(1.0, (step + 1) / config.warmup_steps)
    left = config.steps - step
    return min(warm, left / (config.decay_steps + 1)) if left <= config.decay_steps else warm


def bce_and_dice_on_shares(logits: Tensor, shares: Tensor) -> Tensor:
    """Binary cross-entropy plus soft dice of logits (B, K, N) against shares 0..1 of the patches, averaged."""
    cross_entropy = F.binary_cross_entropy_with_logits(logits, shares, reduction="none").mean(dim=-1)
    probability = torch.sigmoid(logits)
    overlap = (probability * shares).sum(dim=-1)
    dice = 1 - (2 * overlap + 1) / (probability.sum(dim=-1) + shares.sum(dim=-1) + 1)
    return (cross_entropy + dice).mean()


def save_reader(tensors: dict[str, Tensor], reader: Reader, path: Path) -> None:
    """Writes a reader's weights, with its shape."""
    temporary = path.with_suffix(".partial")
    values = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    shape = json.dumps(
        {"comparison_dim": reader.embed.in_features} | reader.config.to_fields(), sort_keys=True
    )
    save_file(values, temporary, metadata={"format": READER_FORMAT, "config": shape})
    os.replace(temporary, path)


def load_reader(path: Path) -> Reader:
    """A reader in evaluation mode from the file of a run.

    Raises:
        WeightsError: If the file is not such a file.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        if metadata.get("format") != READER_FORMAT:
            raise WeightsError(f"{path} is not a {READER_FORMAT}", hint="name reader.safetensors of a run")
        shape = json.loads(metadata["config"])
        reader = Reader(shape.pop("comparison_dim"), ReaderConfig(**shape))
        reader.load_state_dict(load_file(path))
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise WeightsError(f"{path} cannot be read ({error})", hint="restore the file") from error
    return reader.eval()


def _drop_after(path: Path, step: int) -> None:
    """Drops the log lines of steps after a checkpoint, and a last line that a kill has cut short."""
    if not path.exists():
        return
    lines = [line for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
    temporary = path.with_suffix(".partial")
    temporary.write_text("".join(line for line in lines if json.loads(line)["step"] <= step))
    os.replace(temporary, path)
