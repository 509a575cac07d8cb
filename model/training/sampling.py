"""The two samplers of base training: groups of two crops, and the RefCut paper's samples.

A sampler makes a step's targets out of annotated images. Step n gives the same targets on every run with the same seed.
Fine-tuning has a third sampler in `model.finetuning.sampling`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.random import Generator, default_rng
from numpy.typing import NDArray

from model.data.annotated_objects import AnnotatedObject
from model.data.augment import Augmentation, augment_zoomed
from model.data.augment_simpleclick import augment_simpleclick
from model.data.click_sampling import NO_BOX, click_table
from model.data.pair_sampling import CROPS_PER_GROUP, Group, PairSettings, group_of, kind_of, sample_group
from model.data.pasting import WITH_OBJECTS, Pair, paste_pair
from model.data.refcut_sampling import ReferenceFinder, Sample, sample_pair
from model.data.target_sampling import TargetKind
from model.errors import DataError
from model.network.config import NetworkConfig
from model.training.batches import Batch, Sampler
from model.training.config import Stage, TrainConfig

AUGMENTATIONS: dict[str, Augmentation] = {"zoomed": augment_zoomed, "simpleclick": augment_simpleclick}
"""By the name that a configuration gives (`TrainConfig.augmentation`)."""
CANDIDATES = 3
"""Of so many objects with a part, one that shares a second part becomes the reference, if there is one."""
SINGLE_ANNOTATION_FACTOR = 3.0
"""Objects are pasted this much more often where a photograph shows one labelled thing: all targets would be the same."""


@dataclass(frozen=True)
class SourcedObjects:
    """Training annotated objects of one source.

    Attributes:
        annotated_objects: At least one.
        share: How often a step draws from this source, relative to the other sources.
        targets: What can be asked for. None takes it from each object (`model.data.pair_sampling.kind_of`).
        cutouts: Whether its objects are complete enough to be cut out and pasted beside others.
    """

    annotated_objects: list[AnnotatedObject]
    share: float
    targets: TargetKind | None = None
    cutouts: bool = False


class GroupSampler:
    """Makes groups of two crops with three targets each (`model.data.pair_sampling`).

    The source of each group is drawn at random, weighted by `SourcedObjects.share`.
    """

    def __init__(
        self, sources: Sequence[SourcedObjects], patch_px: int, augmentation: str, settings: PairSettings
    ) -> None:
        """Set up the sampler.

        Args:
            sources: At least one source.
            patch_px: Side of the network's patches in pixels.
            augmentation: Name in `AUGMENTATIONS`.
            settings: Probabilities of the kinds of targets and references.
        """
        self._sources = [_PairedObjects(source) for source in sources]
        self._patch_px = patch_px
        self._augment = AUGMENTATIONS[augmentation]
        self._settings = settings
        self._shares = _normalised(sources)
        cutouts = [number for number, source in enumerate(sources) if source.cutouts]
        self._cutouts = [self._sources[number] for number in cutouts]
        self._cutout_shares = _normalised([sources[number] for number in cutouts])

    def units(self, stage: Stage) -> int:
        """Return the number of groups per step."""
        return stage.groups

    def batches(self, stage: Stage, seed: int, step: int, parts: Sequence[range]) -> list[Batch]:
        """Make some groups of a step; see `Sampler.batches`."""
        return [batch_groups([self._unit(stage, seed, step, unit) for unit in part]) for part in parts]

    def _unit(self, stage: Stage, seed: int, step: int, unit: int) -> Group:
        return self.group(stage.size_px, default_rng([seed, stage.size_px, step, 3, unit]))

    def group(self, size_px: int, rng: Generator) -> Group:
        """Make a group of a random source.

        Args:
            size_px: Side of the crops.
            rng: Draws everything random.
        """
        source = self._sources[rng.choice(len(self._sources), p=self._shares)]
        first, second = source.pair(self._settings.same_photo, rng)
        grid = size_px // self._patch_px
        kind = source.targets or kind_of(first)
        share = self._settings.pasted
        if first.has_single_annotation or second.has_single_annotation:
            share *= SINGLE_ANNOTATION_FACTOR
        if self._cutouts and kind in WITH_OBJECTS and rng.random() < share:
            other = self._cutouts[rng.choice(len(self._cutouts), p=self._cutout_shares)]
            cutouts = other.pair(0.0, rng)
            pasted = Pair(cutouts, other.targets or kind_of(cutouts[0]))
            photos = paste_pair(Pair((first, second), kind), pasted, rng)
            if photos is not None:
                return group_of(photos, size_px, grid, self._settings, rng, self._augment, kind)
        return sample_group(first, second, size_px, grid, self._settings, rng, self._augment, kind)


def _normalised(sources: Sequence[SourcedObjects]) -> NDArray[np.float64]:
    shares = np.array([source.share for source in sources], np.float64)
    return np.asarray(shares / shares.sum())


class _PairedObjects:
    """The annotated objects of a source, and which of them can be references of which."""

    def __init__(self, source: SourcedObjects) -> None:
        self._objects = source.annotated_objects
        self.targets = source.targets
        photos = {one.image_path: number for number, one in enumerate(self._objects)}
        self._photo = np.array([photos[one.image_path] for one in self._objects])
        with_part: dict[tuple[str, str], list[int]] = defaultdict(list)
        for number, one in enumerate(self._objects):
            for name in one.part_rles if one.names_carry else ():
                with_part[one.object_class, name].append(number)
        self._with_part = {key: np.array(numbers) for key, numbers in with_part.items()}

    def pair(self, same_photo: float, rng: Generator) -> tuple[AnnotatedObject, AnnotatedObject]:
        """Draw two objects of a class that share a part, on two photographs.

        The second one is the first one again if no other photograph has its parts, or as often as asked.
        """
        number = int(rng.integers(len(self._objects)))
        first = self._objects[number]
        if not first.names_carry or rng.random() < same_photo:
            return first, first
        for name in rng.permutation(sorted(first.part_rles)):
            numbers = self._with_part[first.object_class, str(name)]
            elsewhere = numbers[self._photo[numbers] != self._photo[number]]
            if len(elsewhere):
                drawn = [self._objects[n] for n in rng.choice(elsewhere, CANDIDATES)]
                rich = [one for one in drawn if len(one.part_rles.keys() & first.part_rles.keys()) > 1]
                return first, (rich or drawn)[0]
        return first, first


class RefCutSampler:
    """Makes the paper's samples (`model.data.refcut_sampling`): each epoch has every object once, in a new order."""

    def __init__(
        self, sources: Sequence[SourcedObjects], patch_px: int, augmentation: str, no_reference: float
    ) -> None:
        """Set up the sampler.

        Args:
            sources: At least one source; their shares are not used.
            patch_px: Side of the network's patches in pixels.
            augmentation: Name in `AUGMENTATIONS`.
            no_reference: Share of samples without a reference, 0 to 1.
        """
        self._annotated_objects = [
            annotated_object for source in sources for annotated_object in source.annotated_objects
        ]
        self._finder = ReferenceFinder(self._annotated_objects)
        self._patch_px = patch_px
        self._augment = AUGMENTATIONS[augmentation]
        self._no_reference = no_reference
        self._order: tuple[tuple[int, int], NDArray[np.int64]] | None = None

    def units(self, stage: Stage) -> int:
        """Return the number of samples per step."""
        return stage.samples

    def batches(self, stage: Stage, seed: int, step: int, parts: Sequence[range]) -> list[Batch]:
        """Make some samples of a step; see `Sampler.batches`."""
        return [batch_samples([self._sample(stage, seed, step, unit) for unit in part]) for part in parts]

    def _sample(self, stage: Stage, seed: int, step: int, unit: int) -> Sample:
        epoch, step_of_epoch = divmod(step, steps_per_epoch(len(self._annotated_objects), stage))
        order = self._order_of(seed, epoch)
        return sample_pair(
            self._annotated_objects[order[(step_of_epoch * stage.samples + unit) % len(order)]],
            self._finder,
            stage.size_px,
            stage.size_px // self._patch_px,
            self._augment,
            self._no_reference,
            default_rng([seed, stage.size_px, step, 0, unit]),
        )

    def _order_of(self, seed: int, epoch: int) -> NDArray[np.int64]:
        if self._order is None or self._order[0] != (seed, epoch):
            self._order = (seed, epoch), default_rng([seed, epoch]).permutation(len(self._annotated_objects))
        return self._order[1]


def make_sampler(sources: Sequence[SourcedObjects], network: NetworkConfig, config: TrainConfig) -> Sampler:
    """Make the sampler that a configuration asks for.

    Args:
        sources: At least one source.
        network: Gives the side of the patches, and whether there is an input for boxes.
        config: Gives `sampling`, `augmentation`, `no_reference`, `pasted`, `zoom_both` and `name_weights`.

    Raises:
        DataError: If a source has no annotated object.
    """
    if not all(source.annotated_objects for source in sources):
        raise DataError("a source has no object to train on", hint="check the paths in the configuration")
    if config.sampling == "refcut":
        return RefCutSampler(sources, network.patch_px, config.augmentation, config.no_reference or 0.0)
    drawn = PairSettings(pasted=config.pasted, zoom_both=config.zoom_both, name_weights=config.name_weights)
    if config.no_reference is not None:
        drawn = replace(drawn, no_reference=config.no_reference)
    settings = with_boxes_if_seen(drawn, network)
    return GroupSampler(sources, network.patch_px, config.augmentation, settings)


def with_boxes_if_seen(settings: PairSettings, network: NetworkConfig) -> PairSettings:
    """Settings without boxes for a network that has no input for them: a box takes the place of a click."""
    return settings if network.box_input else replace(settings, box=0.0)


def steps_per_epoch(annotated_objects: int, stage: Stage) -> int:
    """Return the number of whole steps in which no object comes twice, at least 1."""
    return max(annotated_objects // stage.samples, 1)


def batch_groups(groups: Sequence[Group]) -> Batch:
    """Stack at least one group into tensors. Each crop of a group is the reference of the other."""
    target_crop = np.concatenate([g.target_crop + CROPS_PER_GROUP * n for n, g in enumerate(groups)])
    return Batch(
        images=torch.from_numpy(np.concatenate([g.images for g in groups])).permute(0, 3, 1, 2),
        targets=torch.from_numpy(np.concatenate([g.targets for g in groups]))[:, None],
        target_crop=torch.from_numpy(target_crop),
        reference_crop=torch.from_numpy(target_crop ^ 1),
        positive=torch.from_numpy(np.concatenate([g.positive for g in groups])),
        negative=torch.from_numpy(np.concatenate([g.negative for g in groups])),
        clicks=click_table(torch.from_numpy(np.concatenate([g.clicks_rc for g in groups]))),
        boxes=torch.from_numpy(np.concatenate([g.boxes for g in groups])),
    )


def batch_samples(samples: Sequence[Sample]) -> Batch:
    """Stack at least one sample into tensors. The crops of the references follow those of the targets."""
    images = [s.image for s in samples] + [s.reference_image for s in samples]
    return Batch(
        images=torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2),
        targets=torch.from_numpy(np.stack([s.target for s in samples]))[:, None],
        target_crop=torch.arange(len(samples)),
        reference_crop=torch.arange(len(samples), 2 * len(samples)),
        positive=torch.from_numpy(np.stack([s.positive for s in samples])),
        negative=torch.from_numpy(np.stack([s.negative for s in samples])),
        clicks=torch.from_numpy(np.stack([s.clicks for s in samples])),
        boxes=torch.from_numpy(np.tile(NO_BOX, (len(samples), 1))),
    )
