"""`python -m model.train CONFIG --data FOLDER --out RUN`: trains a network; run again to go on after a kill."""

from __future__ import annotations

import argparse
import os
import shutil
from pathlib import Path

import torch

from model.config import PRESETS
from model.data.pairs import PairSettings
from model.data.scenes import is_development, read_scenes
from model.network.encoder import use_plain_attention
from model.network.refcut import RefCut
from model.training.batches import Batches, SourcedScenes, batch_loader
from model.training.comparison_statistics import measure_comparison_statistics
from model.training.config import TrainConfig, read_config
from model.training.loop import Trainer
from model.weights import (
    BASE_FILE,
    VERSION_FILE,
    initial_network,
    load_network,
    save_base,
    save_network,
    save_version,
)

NETWORK_FILE = "network.safetensors"


def read_sources(config: TrainConfig) -> list[SourcedScenes]:
    """The run's training scenes; the development share is left out."""
    sources = []
    for source in config.sources:
        scenes = read_scenes(source.json_path, source.image_dir, grouping=source.grouping)
        kept = [scene for scene in scenes if not is_development(scene, config.development_share)]
        sources.append(SourcedScenes(kept, source.share))
    return sources


def starting_network(config: TrainConfig) -> RefCut:
    """The network before the first step: the parent version, a frozen encoder with fresh parts, or a whole converted
    SimpleClick."""
    if config.parent is not None:
        return load_network(config.parent)
    if PRESETS[config.preset].reference_features == "frozen":
        return initial_network(config.preset, config.base_weights)
    return load_network(config.base_weights)


def train(config: TrainConfig, run_dir: Path, device: torch.device) -> None:
    """Runs all stages. Leaves base.safetensors and version.safetensors in `run_dir` when the encoder is frozen, else
    network.safetensors."""
    torch.manual_seed(config.seed)
    sources = read_sources(config)
    network = starting_network(config)
    frozen = network.config.reference_features == "frozen"
    if device.type == "cpu":
        use_plain_attention(network)
    base_path = run_dir / BASE_FILE
    if config.parent is not None and frozen:
        # a version names its base by hash: parent and child must share the very file
        run_dir.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(config.parent / BASE_FILE, base_path)
    elif frozen:
        measure_comparison_statistics(network, [s for source in sources for s in source.scenes], config.seed)
        if not base_path.exists():
            save_base(network, base_path)

    def export(averaged: dict[str, torch.Tensor]) -> None:
        if frozen:
            save_version(averaged, network.config, base_path, run_dir / VERSION_FILE)
        else:
            save_network(network.state_dict() | averaged, network.config, run_dir / NETWORK_FILE)

    trainer = Trainer(network, config, run_dir, device, export)
    if trainer.resume():
        print(f"going on at stage {trainer.stage}, step {trainer.step}")
    for number in range(trainer.stage, len(config.stages)):
        stage = config.stages[number]
        batches = Batches(
            sources, stage, network.config.patch_px, config.seed + number, trainer.step, PairSettings()
        )
        trainer.run_stage(iter(batch_loader(batches, config.loader_workers)), stage)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", type=Path)
    parser.add_argument(
        "--data", type=Path, required=True, help="folder that the config's paths are relative to"
    )
    parser.add_argument(
        "--out", type=Path, required=True, help="folder of the run: checkpoints, log, weights"
    )
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    train(read_config(arguments.config, arguments.data), arguments.out, device)


if __name__ == "__main__":
    main()
