"""Base training from a configuration to weights: `train`, which `python -m model train` calls.

    data sets        -> read_sources      -> sampler
    configuration    -> starting_network  -> network (from scratch, from SimpleClick, or from a parent version)
    sampler, network -> Trainer.fit       -> base.safetensors + version.safetensors, or network.safetensors

Fine-tuning on a project's annotations is in `model.finetuning.run`; it uses the same `Trainer`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from model.checkpoints.version_folder import BASE_FILE, NETWORK_FILE, VERSION_FILE, copy_base
from model.checkpoints.weights import initial_network, load_network, save_base, save_network, save_version
from model.data.annotated_objects import is_development, read_annotated_objects
from model.data.near_copies import read_excluded
from model.data.readers import read_part_imagenet
from model.errors import DataError
from model.network.config import PRESETS
from model.network.refcut import RefCut
from model.training.batches import Batches, Part, Sampler, batch_loader
from model.training.config import CocoSource, PartImageNetSource, Stage, TrainConfig
from model.training.distributed import SINGLE_PROCESS, Processes
from model.training.feature_space import (
    fit_learned_similarity,
    measure_comparison_statistics,
    with_learned_similarity,
)
from model.training.growth import with_candidates, with_reader
from model.training.reader_training import load_reader
from model.training.sampling import SourcedObjects, make_sampler, steps_per_epoch
from model.training.trainer import Trainer
from model.training.training_state import has_checkpoint


def train(
    config: TrainConfig,
    run_dir: Path,
    device: torch.device,
    processes: Processes = SINGLE_PROCESS,
    must_stop: Callable[[], bool] = lambda: False,
) -> RefCut:
    """Run all stages of a configuration, or resume a killed run.

    A network with a frozen encoder leaves `base.safetensors` and `version.safetensors` in `run_dir`, another network
    leaves `network.safetensors`.

    Args:
        config: The run. A stage may have its length in epochs.
        run_dir: Folder of the run.
        device: Where to compute.
        processes: The processes that share the run.
        must_stop: Asked in each step; true saves and ends the run after the step.

    Returns:
        The network with the weights of the last step. The files hold the averaged weights.

    Raises:
        DataError: If data cannot be read, or the configuration does not fit the network.
        WeightsError: If the weights to begin with cannot be used.
        TrainingError: If the loss or a weight is not finite.
    """
    torch.manual_seed(config.seed)
    sources = read_sources(config)
    annotated_objects = [
        annotated_object for source in sources for annotated_object in source.annotated_objects
    ]
    network = starting_network(config)
    sampler = make_sampler(sources, network.config, config)
    config, milestone_steps = in_steps(config, len(annotated_objects))
    has_base = network.config.reference_features == "frozen"
    if has_base and config.parent is None:
        measure_comparison_statistics(network, annotated_objects, config.seed)
    if has_base and processes.writes:
        _write_base(network, config.parent, run_dir)
    if config.similarity_stage is not None:
        _train_similarity_stage(network, config, config.similarity_stage, sampler, run_dir, device)

    def export(averaged: dict[str, Tensor]) -> None:
        if has_base:
            tensors = network.state_dict() | averaged
            save_version(tensors, network.config, run_dir / BASE_FILE, run_dir / VERSION_FILE)
        else:
            save_network(network.state_dict() | averaged, network.config, run_dir / NETWORK_FILE)

    trainer = Trainer(
        network, config, run_dir, device, export, processes, milestone_steps, must_stop=must_stop
    )
    if trainer.resume() and processes.writes:
        print(f"resuming at stage {trainer.stage}, step {trainer.step}")
    trainer.fit(sampler)
    return network


def read_sources(config: TrainConfig) -> list[SourcedObjects]:
    """Read the training objects of each source, without the development share and near copies.

    Raises:
        DataError: If a data set cannot be read.
    """
    excluded = read_excluded(config.exclude)
    sources = []
    for source in config.sources:
        copies = excluded.get(source.json_path.parent.name, []) if isinstance(source, CocoSource) else []
        read = read_source(source)
        kept = [
            annotated_object
            for annotated_object in read.annotated_objects
            if not is_development(annotated_object, config.development_share)
            and annotated_object.image_path.name not in copies
        ]
        sources.append(dataclasses.replace(read, annotated_objects=kept))
    return sources


def read_source(source: CocoSource | PartImageNetSource) -> SourcedObjects:
    """Read all objects of one source, and what can be asked for on them.

    Raises:
        DataError: If the data set cannot be read.
    """
    if isinstance(source, PartImageNetSource):
        return SourcedObjects(read_part_imagenet(source.root, source.split), source.share)
    annotated_objects = read_annotated_objects(source.json_path, source.image_dir, grouping=source.grouping)
    if not source.all_labelled:
        annotated_objects = [dataclasses.replace(one, has_whole=False) for one in annotated_objects]
    return SourcedObjects(annotated_objects, source.share, source.targets, source.cutouts)


def in_steps(config: TrainConfig, annotated_objects: int) -> tuple[TrainConfig, tuple[int, ...]]:
    """Convert lengths in epochs to steps.

    Args:
        config: The run.
        annotated_objects: Number of training annotated objects, which make up an epoch.

    Returns:
        The configuration with the length of each stage in steps, and the steps at which the learning rate drops.
    """
    per_epoch = [steps_per_epoch(annotated_objects, stage) for stage in config.stages]
    stages: list[Stage] = [
        stage.model_copy(update={"steps": stage.steps or stage.epochs * steps})
        for stage, steps in zip(config.stages, per_epoch, strict=True)
    ]
    unit = per_epoch[0] if config.schedule.unit == "epochs" else 1
    milestones = tuple(unit * milestone for milestone in config.schedule.milestones)
    return config.model_copy(update={"stages": stages}), milestones


def starting_network(config: TrainConfig) -> RefCut:
    """Make the network as it is before the first step.

    In this order: the parent version (with the reader that the configuration names, or with a fresh learned similarity
    where the preset has one and the parent has neither that nor a reader), a frozen encoder with fresh parts, a whole
    converted SimpleClick, or random weights.

    Raises:
        DataError: If the preset has a frozen encoder and no weights are given for it.
        WeightsError: If the given weights cannot be used.
    """
    preset = PRESETS[config.preset]
    if config.parent is not None:
        parent = load_network(config.parent)
        if config.reader is not None:
            parent = with_reader(parent, load_reader(config.reader), replaces_similarity=True)
        if preset.candidates > 1:
            parent = with_candidates(parent)
        dim = preset.learned_similarity_dim
        learns = parent.config.learned_similarity_dim or parent.config.reader is not None
        if dim and parent.config.similarity and not learns:
            return with_learned_similarity(parent, dim)
        return parent
    if preset.reference_features == "frozen":
        if config.base_weights is None:
            raise DataError(f"{config.preset} needs base_weights", hint="name the file of its frozen encoder")
        return initial_network(config.preset, config.base_weights)
    return RefCut(preset) if config.base_weights is None else load_network(config.base_weights)


def _write_base(network: RefCut, parent_dir: Path | None, run_dir: Path) -> None:
    """Write the file of the frozen encoder: the parent's file, or a new one where the run has no parent."""
    run_dir.mkdir(parents=True, exist_ok=True)
    if parent_dir is not None:
        copy_base(parent_dir, run_dir)
    elif not (run_dir / BASE_FILE).exists():
        save_base(network, run_dir / BASE_FILE)


def _train_similarity_stage(
    network: RefCut, config: TrainConfig, stage: Stage, sampler: Sampler, run_dir: Path, device: torch.device
) -> None:
    """Train the learned similarity alone, unless the run has a checkpoint and so has done this before."""
    if not network.config.learned_similarity_dim:
        raise DataError(
            f"{config.preset} has no learned similarity", hint="leave `similarity_stage` out, or take s14"
        )
    if not has_checkpoint(run_dir):
        batches = Batches(sampler, stage, config.seed, 0, Part())
        loader = batch_loader(batches, config.loader_workers)
        fit_learned_similarity(network, iter(loader), len(batches), device)
