"""`python -m model train CONFIG --data FOLDER --out RUN`: trains a network; run again to go on after a kill.

On several GPUs (or processes): `torchrun --nproc-per-node N -m model train CONFIG ...`. What a step sees is
shared out
among them, so that a configuration means the same on any number.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from model.checkpoints.weights import (
    BASE_FILE,
    VERSION_FILE,
    initial_network,
    load_network,
    save_base,
    save_network,
    save_version,
)
from model.cli.common import add_threads, command_parser
from model.data.readers import read_part_imagenet
from model.data.scenes import Scene, is_development, read_scenes
from model.errors import DataError, ModelError
from model.network.config import PRESETS
from model.network.encoder import use_plain_attention
from model.network.refcut import RefCut
from model.training.batches import Batches, Part, batch_loader
from model.training.config import CocoSource, PartImageNetSource, Stage, TrainConfig, read_config
from model.training.distributed import SINGLE_PROCESS, Processes, child_signal_kept
from model.training.feature_space import (
    fit_learned_similarity,
    measure_comparison_statistics,
    with_learned_similarity,
)
from model.training.sampling import SourcedScenes, make_sampler, steps_per_epoch
from model.training.trainer import CHECKPOINT_FILE, Trainer

NETWORK_FILE = "network.safetensors"


def read_sources(config: TrainConfig) -> list[SourcedScenes]:
    """The run's training scenes; the development share is left out."""
    sources = []
    for source in config.sources:
        kept = [scene for scene in _read(source) if not is_development(scene, config.development_share)]
        sources.append(SourcedScenes(kept, source.share))
    return sources


def _read(source: CocoSource | PartImageNetSource) -> list[Scene]:
    if isinstance(source, PartImageNetSource):
        return read_part_imagenet(source.root, source.split)
    return read_scenes(source.json_path, source.image_dir, grouping=source.grouping)


def in_steps(config: TrainConfig, scenes: int) -> tuple[TrainConfig, tuple[int, ...]]:
    """The configuration with epochs turned into steps, and the steps at which the learning rate drops."""
    per_epoch = [steps_per_epoch(scenes, stage) for stage in config.stages]
    stages: list[Stage] = [
        stage.model_copy(update={"steps": stage.steps or stage.epochs * steps})
        for stage, steps in zip(config.stages, per_epoch, strict=True)
    ]
    unit = per_epoch[0] if config.schedule.unit == "epochs" else 1
    milestones = tuple(unit * milestone for milestone in config.schedule.milestones)
    return config.model_copy(update={"stages": stages}), milestones


def starting_network(config: TrainConfig) -> RefCut:
    """The network before the first step: the parent version (with a fresh likeness where the preset has one and the
    parent none), a frozen encoder with fresh parts, a whole converted SimpleClick, or nothing but chance.

    Raises DataError where a frozen encoder has no weights.
    """
    if config.parent is not None:
        parent = load_network(config.parent)
        learned_similarity_dim = PRESETS[config.preset].learned_similarity_dim
        grows = (
            learned_similarity_dim and parent.config.similarity and not parent.config.learned_similarity_dim
        )
        return with_learned_similarity(parent, learned_similarity_dim) if grows else parent
    if PRESETS[config.preset].reference_features == "frozen":
        if config.base_weights is None:
            raise DataError(f"{config.preset} needs base_weights", hint="name the file of its frozen encoder")
        return initial_network(config.preset, config.base_weights)
    return (
        RefCut(PRESETS[config.preset]) if config.base_weights is None else load_network(config.base_weights)
    )


def train(config: TrainConfig, run_dir: Path, device: torch.device, processes: Processes = SINGLE_PROCESS) -> RefCut:
    """Runs all stages. Leaves base.safetensors and version.safetensors in `run_dir` when the encoder is frozen, else
    network.safetensors. Returns the network as the last step left it."""
    torch.manual_seed(config.seed)
    sources = read_sources(config)
    scenes = [scene for source in sources for scene in source.scenes]
    network = starting_network(config)
    if device.type == "cpu":
        use_plain_attention(network)
    draw = make_sampler(sources, network.config.patch_px, config)
    config, milestone_steps = in_steps(config, len(scenes))
    if network.config.reference_features == "frozen" and config.parent is None:
        measure_comparison_statistics(network, scenes, config.seed)
    if processes.writes:
        write_base(network, config, run_dir)
    if config.likeness is not None and not network.config.learned_similarity_dim:
        raise DataError(f"{config.preset} has no learned likeness", hint="leave `likeness` out, or take s14")
    if config.likeness is not None and not (run_dir / CHECKPOINT_FILE).exists():
        alone = Batches(draw, config.likeness, config.seed, 0, Part())
        fit_learned_similarity(network, iter(batch_loader(alone, config.loader_workers)), len(alone), device)

    def export(averaged: dict[str, Tensor]) -> None:
        if network.config.reference_features == "frozen":
            save_version(averaged, network.config, run_dir / BASE_FILE, run_dir / VERSION_FILE)
        else:
            save_network(network.state_dict() | averaged, network.config, run_dir / NETWORK_FILE)

    trainer = Trainer(network, config, run_dir, device, export, processes, milestone_steps)
    if trainer.resume() and processes.writes:
        print(f"going on at stage {trainer.stage}, step {trainer.step}")
    processes.share_weights(network)
    part = Part(processes.rank, processes.count, config.accumulate)
    with trainer.log, child_signal_kept():
        for number in range(trainer.stage, len(config.stages)):
            stage = config.stages[number]
            batches = Batches(draw, stage, config.seed + number, trainer.step, part)
            trainer.run_stage(iter(batch_loader(batches, config.loader_workers)), stage)
    processes.wait()
    return network


def write_base(network: RefCut, config: TrainConfig, run_dir: Path) -> None:
    """The file with the frozen encoder, where the network has one. A child's is its parent's very file, as a version
    names its base by hash."""
    run_dir.mkdir(parents=True, exist_ok=True)
    base_path = run_dir / BASE_FILE
    if network.config.reference_features != "frozen":
        return
    if config.parent is not None:
        shutil.copyfile(config.parent / BASE_FILE, base_path)
    elif not base_path.exists():
        save_base(network, base_path)


def make_parser() -> argparse.ArgumentParser:
    """The command line, as the module's docstring describes it."""
    parser = command_parser("train", __doc__)
    parser.add_argument("config", type=Path)
    parser.add_argument(
        "--data", type=Path, required=True, help="folder that the config's paths are relative to"
    )
    parser.add_argument(
        "--out", type=Path, required=True, help="folder of the run: checkpoints, log, curves, weights"
    )
    add_threads(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Exits with status 2 and one line on stderr when configuration or data cannot be used."""
    parser = make_parser()
    arguments = parser.parse_args(argv)
    torch.set_num_threads(arguments.threads)
    processes = Processes.from_environment()
    device = torch.device("cpu")
    if torch.cuda.is_available():
        device = torch.device("cuda", processes.local_rank)
        torch.cuda.set_device(device)
    try:
        with processes:
            train(read_config(arguments.config, arguments.data), arguments.out, device, processes)
    except ModelError as error:
        parser.error(str(error))
