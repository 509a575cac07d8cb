"""What a step sees depends on seed and step alone: not on the process, the number of processes, or what came before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from model.data.annotated_objects import AnnotatedObject
from model.errors import DataError
from model.training.batches import Batch, Batches, Part, batch_loader
from model.training.config import Stage, TrainConfig
from model.training.distributed import child_signal_restored
from model.training.sampling import SourcedObjects, make_sampler, steps_per_epoch
from tests.support.synthetic import TINY_READING, drawn_objects

STAGE = Stage(size_px=56, steps=5, groups=4, samples=4)
SAMPLINGS: list[dict[str, Any]] = [
    {"sampling": "groups", "augmentation": "zoomed"},
    {"sampling": "groups", "augmentation": "simpleclick"},
    {"sampling": "refcut", "augmentation": "simpleclick"},
    {"sampling": "refcut", "augmentation": "zoomed"},
]
WAYS = pytest.mark.parametrize("options", SAMPLINGS, ids=lambda o: "-".join(o.values()))
ALL = Part()
FIELDS = ("images", "targets", "positive", "negative", "clicks", "boxes")


@pytest.fixture(scope="module")
def annotated_objects(tmp_path_factory: pytest.TempPathFactory) -> list[AnnotatedObject]:
    return drawn_objects(tmp_path_factory.mktemp("annotated objects"), 6)


def batches(
    annotated_objects: list[AnnotatedObject], options: dict[str, Any], first_step: int = 0, part: Part = ALL
) -> Batches:
    config = TrainConfig.model_validate({"preset": "xtiny", "sources": [], "stages": []} | options)
    return Batches(
        make_sampler([SourcedObjects(annotated_objects, 1.0)], TINY_READING, config),
        STAGE,
        3,
        first_step,
        part,
    )


def joined(parts: Sequence[Batch], field: str) -> torch.Tensor:
    """A field of several parts of a step; with the paper's samples, the targets' crops before all references'."""
    values = [getattr(part, field) for part in parts]
    if field == "images":
        of_targets = [part.images[part.target_crop.unique()] for part in parts]
        return torch.cat(of_targets)
    return torch.cat(values)


def same(one: Sequence[Batch], other: Sequence[Batch]) -> bool:
    return all(torch.equal(joined(one, field), joined(other, field)) for field in FIELDS)


@WAYS
def test_a_resumed_run_sees_what_an_uninterrupted_one_sees(
    annotated_objects: list[AnnotatedObject], options: dict[str, Any]
) -> None:
    whole = batches(annotated_objects, options)
    resumed = batches(annotated_objects, options, first_step=3)
    assert len(resumed) == 2
    assert same(resumed[0], whole[3])
    assert not same(resumed[0], whole[0])


@WAYS
def test_processes_see_different_parts_that_make_up_the_step(
    annotated_objects: list[AnnotatedObject], options: dict[str, Any]
) -> None:
    (whole,) = batches(annotated_objects, options)[1]
    of_rank = [batches(annotated_objects, options, part=Part(rank, 2))[1] for rank in range(2)]
    assert not same(*of_rank)
    assert same([whole], of_rank[0] + of_rank[1])
    four = batches(annotated_objects, options, part=Part(accumulate=4))[1]
    assert len(four) == 4
    assert same([whole], four)


def test_a_step_that_cannot_be_split_evenly_is_reported(annotated_objects: list[AnnotatedObject]) -> None:
    with pytest.raises(DataError, match="4 groups or samples cannot be cut into 6"):
        batches(annotated_objects, SAMPLINGS[0], part=Part(0, 3, accumulate=2))


def test_an_epoch_of_the_papers_samples_sees_each_object_once(
    annotated_objects: list[AnnotatedObject],
) -> None:
    stage = Stage(size_px=56, epochs=2, samples=2)
    config = TrainConfig(preset="xtiny", sources=[], stages=[], sampling="refcut")
    sampler = make_sampler([SourcedObjects(annotated_objects, 1.0)], TINY_READING, config)
    drawn: list[str] = []

    class Finder:
        def find(self, annotated_object: AnnotatedObject, names: Sequence[str], rng: Any) -> None:
            drawn.append(annotated_object.image_path.name)

    sampler._finder = Finder()  # type: ignore[attr-defined]
    per_epoch = steps_per_epoch(len(annotated_objects), stage)
    assert per_epoch == 3
    for step in range(2 * per_epoch):
        sampler.batches(stage, 0, step, [range(2)])
    first, second = drawn[:6], drawn[6:]
    assert (
        sorted(first)
        == sorted(second)
        == sorted(annotated_object.image_path.name for annotated_object in annotated_objects)
    )
    assert first != second


@pytest.mark.slow
def test_a_loader_process_makes_the_same_batches(annotated_objects: list[AnnotatedObject]) -> None:
    dataset = batches(annotated_objects, SAMPLINGS[2])
    with child_signal_restored():
        steps = iter(batch_loader(dataset, workers=1))
        (loader,) = steps._workers  # type: ignore[attr-defined]
        for number in range(2):
            assert same(next(steps), dataset[number])
        del steps
        loader.join()
    assert loader.exitcode == 0, "destroying torch's global objects aborts some"


def test_a_source_without_objects_is_reported() -> None:
    with pytest.raises(DataError, match="no object"):
        batches([], SAMPLINGS[0])
