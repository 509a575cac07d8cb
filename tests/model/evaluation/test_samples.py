from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from model.evaluation.samples import (
    Sample,
    connected_pairs,
    enumerate_samples,
    limit_samples,
    with_repeats,
)
from model.masks import connected
from tests.support.colour_world import make_annotated_object


def test_every_part_connected_pair_and_whole_object_is_a_sample(tmp_path: Path) -> None:
    annotated_object = make_annotated_object(tmp_path / "a.png", ["wheel", "door", "roof", "mirror"])
    samples, counts = enumerate_samples([annotated_object])
    assert {sample.parts for sample in samples if sample.kind == "single"} == {
        ("door",),
        ("mirror",),
        ("roof",),
        ("wheel",),
    }
    assert {sample.parts for sample in samples if sample.kind == "pair"} == {
        ("door", "wheel"),
        ("door", "roof"),
        ("roof", "wheel"),
    }
    assert [sample.parts for sample in samples if sample.kind == "whole"] == [
        ("door", "mirror", "roof", "wheel")
    ]
    assert counts.by_kind == {"single": 4, "pair": 3, "whole": 1}
    assert counts.distinct == counts.with_repeats == 8


def test_a_pair_that_is_the_whole_counts_once_as_whole(tmp_path: Path) -> None:
    samples, counts = enumerate_samples([make_annotated_object(tmp_path / "a.png", ["wheel", "door"])])
    assert [sample.kind for sample in samples] == ["single", "single", "whole"]
    assert (counts.distinct, counts.with_repeats) == (3, 4)


def test_two_parts_apart_are_a_whole_but_no_pair_even_when_counted_twice(tmp_path: Path) -> None:
    _, counts = enumerate_samples([make_annotated_object(tmp_path / "a.png", ["wheel", "mirror"])])
    assert (counts.distinct, counts.with_repeats) == (3, 3)


def test_an_object_of_one_part_counts_as_a_part(tmp_path: Path) -> None:
    samples, counts = enumerate_samples([make_annotated_object(tmp_path / "a.png", ["wheel"])])
    assert [sample.kind for sample in samples] == ["single"]
    assert (counts.distinct, counts.with_repeats) == (1, 2)


def test_both_totals_are_printed(tmp_path: Path) -> None:
    _, counts = enumerate_samples([make_annotated_object(tmp_path / "a.png", ["wheel", "door"])])
    assert str(counts).startswith("3 samples (2 single, 0 pair, 1 whole); 4 when")


def test_connected_pairs_are_those_of_whole_masks() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        masks = {}
        for name in "abcde":
            masks[name] = np.zeros((30, 30), bool)
            top, left = rng.integers(0, 26, 2)
            masks[name][top : top + rng.integers(1, 9), left : left + rng.integers(1, 9)] = True
        expected = [pair for pair in combinations("abcde", 2) if connected(masks[pair[0]], masks[pair[1]])]
        assert connected_pairs(masks) == expected


def test_a_limit_takes_each_kind_at_equal_steps() -> None:
    samples = [Sample(number, "single", ("wheel",)) for number in range(10)]
    samples += [Sample(number, "whole", ("door", "wheel")) for number in range(2)]
    chosen = limit_samples(samples, 5)
    assert [sample.annotated_object for sample in chosen if sample.kind == "single"] == [1, 3, 5, 7, 9]
    assert [sample.annotated_object for sample in chosen if sample.kind == "whole"] == [0, 1]
    assert limit_samples(samples, None) == samples


@pytest.mark.parametrize(
    "sample",
    [
        Sample(3, "single", ("t-shirt",)),
        Sample(0, "pair", ("side mirror", "x/y")),
        Sample(1, "whole", ("a", "b"), 3),
    ],
)
def test_a_sample_is_found_again_by_its_key(sample: Sample) -> None:
    assert Sample.from_key(sample.key) == sample


def test_each_kind_with_too_few_samples_is_repeated_until_it_has_enough() -> None:
    samples = [Sample(number, "single", ("wheel",)) for number in range(7)]
    samples += [Sample(number, "whole", ("door", "wheel")) for number in range(2)]
    chosen = with_repeats(samples, 5)
    assert len({sample.key for sample in chosen}) == len(chosen)
    assert [s.repeat for s in chosen if s.kind == "single"] == [0] * 7
    assert [(s.annotated_object, s.repeat) for s in chosen if s.kind == "whole"] == [
        (0, 0), (0, 1), (1, 0), (1, 1), (1, 2)
    ]  # fmt: skip
    assert not [sample for sample in chosen if sample.kind == "pair"]


def test_samples_of_a_photograph_follow_each_other_so_that_it_is_encoded_once() -> None:
    samples = [Sample(number, "single", (part,)) for number in range(3) for part in ("door", "wheel")]
    numbers = [sample.annotated_object for sample in with_repeats(samples, 20)]
    assert numbers == sorted(numbers)
