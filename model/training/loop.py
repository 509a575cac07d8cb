"""The training loop: steps, schedule, averaging of weights, checkpoints."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.random import default_rng
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from model.network.click_maps import disk_maps
from model.network.prompts import ReferenceTokens
from model.network.refcut import RefCut
from model.training.batches import Batch
from model.training.click_rounds import add_next_clicks, click_table
from model.training.config import Stage, TrainConfig
from model.training.losses import LOSSES


def parameter_groups(network: RefCut, config: TrainConfig) -> list[dict[str, Any]]:
    """Every trainable parameter exactly once, with its learning rate."""
    rates: dict[float, list[nn.Parameter]] = {}
    last = network.config.depth - 1
    for name, parameter in network.named_parameters():
        if not parameter.requires_grad:
            continue
        if name.startswith("click_blocks."):
            block = network.config.fusion_block + int(name.split(".")[1])
            rate = config.rate_blocks * config.block_decay ** (last - block)
        elif name.startswith(("rpg.", "patch_embed_coords.")):
            rate = config.rate_prompts
        elif name.startswith("backbone."):
            rate = config.rate_blocks
        else:
            rate = config.rate_head
        rates.setdefault(rate, []).append(parameter)
    return [{"params": parameters, "lr": rate, "base_lr": rate} for rate, parameters in sorted(rates.items())]


def scheduled_share(step: int, total: int, warmup: int) -> float:
    """Share of the base learning rate at a step: linear warm-up, then half a cosine to 1 %."""
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(total - warmup, 1)
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))


class WeightAverage:
    """Exponential average of the trainable weights: what is evaluated and shipped."""

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.steps = 0
        self.values = {n: p.detach().clone() for n, p in network.named_parameters() if p.requires_grad}

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        for name, parameter in network.named_parameters():
            if parameter.requires_grad:
                self.values[name].lerp_(parameter, 1 - decay)


class Trainer:
    """A run that can be killed and goes on where it last saved."""

    def __init__(
        self,
        network: RefCut,
        config: TrainConfig,
        run_dir: Path,
        device: torch.device,
        on_save: Callable[[dict[str, Tensor]], None],
    ) -> None:
        """on_save is given the averaged weights whenever a checkpoint has been written."""
        self._on_save = on_save
        self.network = network.to(device)
        self.config = config
        self.run_dir = run_dir
        self.device = device
        self.optimiser = torch.optim.AdamW(
            parameter_groups(network, config), weight_decay=config.weight_decay, betas=(0.9, 0.99)
        )
        self.average = WeightAverage(network, config.average_decay)
        self.stage = 0
        self.step = 0
        self._saved_at = time.monotonic()
        run_dir.mkdir(parents=True, exist_ok=True)

    @property
    def checkpoint_path(self) -> Path:
        return self.run_dir / "checkpoint.pt"

    def resume(self) -> bool:
        """Goes on from the run's checkpoint, if there is one. The file is our own and read with weights_only."""
        if not self.checkpoint_path.exists():
            return False
        saved = torch.load(self.checkpoint_path, map_location=self.device, weights_only=True)
        self.network.load_state_dict(saved["network"])
        self.optimiser.load_state_dict(saved["optimiser"])
        self.average.values, self.average.steps = saved["average"], saved["average_steps"]
        self.stage, self.step = saved["stage"], saved["step"]
        return True

    def save(self) -> None:
        """Writes the checkpoint; a kill in the middle leaves the one before."""
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
        self._saved_at = time.monotonic()

    def run_stage(self, batches: Iterator[Batch], stage: Stage) -> None:
        """Trains through the rest of a stage."""
        total = sum(s.steps for s in self.config.stages)
        before = sum(s.steps for s in self.config.stages[: self.stage])
        bar = tqdm(total=stage.steps, initial=self.step, desc=f"{stage.size_px} px", mininterval=5)
        for batch in batches:
            share = scheduled_share(before + self.step, total, self.config.warmup_steps)
            for group in self.optimiser.param_groups:
                group["lr"] = group["base_lr"] * share * stage.learning_rate_scale
            loss, iou = self._train_step(batch, stage)
            self.step += 1
            self._log(stage, loss, iou)
            bar.set_postfix(loss=f"{loss:.3f}", iou=f"{iou:.3f}", refresh=False)
            bar.update()
            if time.monotonic() - self._saved_at > 60 * self.config.checkpoint_minutes:
                self.save()
        bar.close()
        self.stage, self.step = self.stage + 1, 0
        self.save()

    def _train_step(self, batch: Batch, stage: Stage) -> tuple[float, float]:
        rng = default_rng([self.config.seed, stage.size_px, self.step, 1])
        torch.manual_seed(int(rng.integers(2**31)))
        targets = batch.targets.to(self.device).float()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            logits = self._logits(
                batch, stage.size_px, int(rng.integers(self.config.max_click_rounds + 1)), rng
            )
        loss = LOSSES[stage.loss](logits, targets)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(
            [p for group in self.optimiser.param_groups for p in group["params"]], self.config.clip_norm
        )
        self.optimiser.step()
        self.average.update(self.network)
        mask = logits.detach() > 0
        wanted = targets > 0.5
        iou = (mask & wanted).sum(dim=(1, 2, 3)) / (mask | wanted).sum(dim=(1, 2, 3)).clamp_min(1)
        return float(loss.detach()), float(iou.mean())

    def _logits(self, batch: Batch, size_px: int, rounds: int, rng: np.random.Generator) -> Tensor:
        """Logits (T, 1, S, S) after `rounds` further clicks on the network's own mistakes."""
        network = self.network
        network.train()
        images = batch.images.to(self.device).float() / 255
        views = network.encode_image(images)
        features = views.repeated(batch.target_view.to(self.device))
        prepared = network.prepare_reference(features, self._references(batch, images, views.comparison))
        table = click_table(batch.clicks_rc)
        previous = torch.zeros(len(table), 1, size_px, size_px, device=self.device)
        wanted = batch.targets[:, 0].numpy()
        for number in range(1, rounds + 1):
            network.eval()
            with torch.no_grad():
                logits = network.segment(features, self._coords(table, previous), prepared)
                previous = torch.sigmoid(_upsample(logits.float(), size_px))
            add_next_clicks(table, wanted, previous[:, 0].cpu().numpy(), number, rng)
        network.train()
        return _upsample(network.segment(features, self._coords(table, previous), prepared), size_px)

    def _references(self, batch: Batch, images: Tensor, comparison: Tensor | None) -> ReferenceTokens:
        view = batch.reference_view.to(self.device)
        if comparison is None:
            encoded = self.network.encode_reference(images, None, None)
            comparison = encoded.tokens
        return ReferenceTokens(
            comparison[view], batch.positive.to(self.device), batch.negative.to(self.device)
        )

    def _coords(self, table: Tensor, previous: Tensor) -> Tensor:
        size_px = previous.shape[-1]
        return torch.cat([previous, disk_maps(table.to(self.device), size_px, size_px)], dim=1)

    def _log(self, stage: Stage, loss: float, iou: float) -> None:
        with (self.run_dir / "steps.jsonl").open("a") as log:
            log.write(json.dumps({"px": stage.size_px, "step": self.step, "loss": loss, "iou": iou}) + "\n")


def _upsample(logits: Tensor, size_px: int) -> Tensor:
    """As at inference: bilinear, corners aligned (facts: section 1.2, step 10)."""
    return F.interpolate(logits, size=(size_px, size_px), mode="bilinear", align_corners=True)
