"""The paper's samples: a target of some parts, and a reference that names just those."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.random import default_rng

from model.cli.make_synthetic_data import COLOURS, write_synthetic_data
from model.data.annotated_objects import AnnotatedObject, read_annotated_objects
from model.data.augment import Augmentation, Crop
from model.data.refcut_sampling import ReferenceFinder, Sample, sample_pair
from model.masks import union
from model.types import BoolMask, RgbImage
from tests.support.colour_world import COLOURS as GREYS
from tests.support.colour_world import SIDE_PX, make_annotated_object

PARTS = ("wheel", "door", "roof")


def as_it_is(image: RgbImage, masks: dict[str, BoolMask], _size: int, _rng: object, _part: object) -> Crop:
    return Crop(image, masks)


def cars(folder: Path, parts: Sequence[Sequence[str]]) -> list[AnnotatedObject]:
    return [make_annotated_object(folder / f"{number}.png", names) for number, names in enumerate(parts)]


def samples(
    annotated_objects: list[AnnotatedObject],
    count: int,
    *,
    no_reference: float = 0.0,
    augmentation: Augmentation = as_it_is,
) -> list[Sample]:
    """Samples of the first annotated object, with patches of one pixel."""
    finder = ReferenceFinder(annotated_objects)
    return [
        sample_pair(
            annotated_objects[0], finder, SIDE_PX, SIDE_PX, augmentation, no_reference, default_rng(seed)
        )
        for seed in range(count)
    ]


def named(image: RgbImage, mask: np.ndarray) -> set[str]:
    """The parts that a mask covers, by their colours."""
    greys = set(np.unique(image[..., 0][mask.reshape(SIDE_PX, SIDE_PX) > 0]).tolist())
    return {name for name, grey in GREYS.items() if grey in greys}


def test_a_reference_names_the_targets_parts_and_rules_the_others_out(tmp_path: Path) -> None:
    kinds, counts = {"both": 0, "only positive": 0, "only negative": 0}, {1: 0, 2: 0, 3: 0}
    for sample in samples(cars(tmp_path, [PARTS, [*PARTS, "mirror"]]), 400):
        meant = named(sample.image, sample.target)
        counts[len(meant)] += 1
        positive = named(sample.reference_image, sample.positive)
        negative = named(sample.reference_image, sample.negative)
        assert positive in (meant, set())
        assert negative in ({*PARTS, "mirror"} - meant, set())
        assert positive or negative
        kinds["both" if positive and negative else "only positive" if positive else "only negative"] += 1
    assert kinds["only positive"] / 400 == pytest.approx(0.125, abs=0.05)
    assert kinds["only negative"] / 400 == pytest.approx(0.125, abs=0.05)
    assert all(count / 400 == pytest.approx(1 / 3, abs=0.08) for count in counts.values())


def test_a_whole_object_with_nothing_beside_it_always_keeps_its_positive_mask(tmp_path: Path) -> None:
    for sample in samples(cars(tmp_path, [["door"], ["door"]]), 60):
        assert sample.positive.any()
        assert not sample.negative.any()


def test_only_an_object_with_the_same_parts_is_a_reference(tmp_path: Path) -> None:
    annotated_objects = [
        *cars(tmp_path, [PARTS, ["wheel", "door"]]),
        make_annotated_object(tmp_path / "x.png", PARTS, object_class="x"),
    ]
    referenced = {frozenset[str](): 0}
    for sample in samples(annotated_objects, 60):
        meant = frozenset(named(sample.image, sample.target))
        given = bool(sample.positive.any() or sample.negative.any())
        assert given == (meant <= {"wheel", "door"})
        referenced[meant] = referenced.get(meant, 0) + given
    assert sum(referenced.values()) > 10


def test_names_that_do_not_carry_over_have_no_reference(tmp_path: Path) -> None:
    annotated_objects = [
        make_annotated_object(tmp_path / f"{n}.png", PARTS, names_carry=False) for n in range(2)
    ]
    assert not any(sample.positive.any() for sample in samples(annotated_objects, 10))


def test_references_are_left_out_as_often_as_asked(tmp_path: Path) -> None:
    given = [
        bool(sample.positive.any() or sample.negative.any())
        for sample in samples(cars(tmp_path, [PARTS, PARTS]), 200, no_reference=0.3)
    ]
    assert 1 - np.mean(given) == pytest.approx(0.3, abs=0.1)


def test_a_reference_that_is_cut_off_is_drawn_again_and_in_the_end_taken_whole(tmp_path: Path) -> None:
    annotated_objects = cars(tmp_path, [["door", "roof"], ["door", "roof"]])
    calls: list[str] = []

    def blind(image: RgbImage, masks: dict[str, BoolMask], *_: object) -> Crop:
        """Sees one pixel of the door of a reference, which is not one percent of it."""
        if len(calls) % 11 == 0:
            calls.append("target")
            return Crop(image, masks)
        calls.append("reference")
        pixel = np.zeros_like(masks["door"])
        return Crop(np.zeros_like(image), {"roof": pixel})

    (sample,) = samples(annotated_objects, 1, augmentation=blind)
    assert calls == ["target", *["reference"] * 10]
    assert sample.reference_image.any(), "the whole photograph"
    assert sample.positive.any() or sample.negative.any()


def test_synthetic_pictures_are_a_data_set_of_parts_in_their_colours(tmp_path: Path) -> None:
    annotated_objects = read_annotated_objects(
        write_synthetic_data(tmp_path, pictures=5), tmp_path / "synthetic", grouping="object"
    )
    assert len(annotated_objects) == 5
    for annotated_object in annotated_objects:
        masks = annotated_object.masks()
        assert {"body", "tail"} <= set(masks) <= set(COLOURS)
        assert union(masks.values()).sum() == sum(mask.sum() for mask in masks.values()), "no overlap"
        for name, mask in masks.items():
            assert np.abs(annotated_object.image()[mask].mean(axis=0) - COLOURS[name][::-1]).max() < 6
