"""Which photographs are paired, and what a source's groups are asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.random import default_rng

from model.data.pair_sampling import PairSettings
from model.data.pasting import paste_pair
from model.data.target_sampling import TargetKind
from model.network.config import NetworkConfig
from model.training import sampling
from model.training.config import CocoSource, Stage, TrainConfig
from model.training.run import read_source
from model.training.sampling import GroupSampler, SourcedObjects, _PairedObjects, make_sampler
from tests.support.colour_world import make_annotated_object
from tests.support.reader_data import write_part_file
from tests.support.synthetic import TINY_FROZEN, TINY_READING

STAGE = Stage(size_px=56, steps=3, groups=2)
EYES = [(24, 40, 12, 28), (72, 88, 12, 28)]


def test_a_rare_part_finds_its_one_other_photograph(tmp_path: Path) -> None:
    common = [make_annotated_object(tmp_path / f"{n}.png", ("wheel", "door")) for n in range(40)]
    rare = [make_annotated_object(tmp_path / f"rare{n}.png", ("mirror",)) for n in range(2)]
    paired = _PairedObjects(SourcedObjects([*common, *rare], 1.0))
    seen = 0
    for seed in range(400):
        first, second = paired.pair(0.0, default_rng(seed))
        assert first.image_path != second.image_path
        assert set(first.part_rles) & set(second.part_rles)
        seen += "mirror" in first.part_rles
    assert seen > 5


def test_photographs_that_share_two_parts_are_paired_more_often_than_by_chance(tmp_path: Path) -> None:
    first = make_annotated_object(tmp_path / "first.png", ("wheel", "door"))
    alike = [make_annotated_object(tmp_path / f"a{n}.png", ("wheel", "door")) for n in range(5)]
    wheels = [make_annotated_object(tmp_path / f"w{n}.png", ("wheel",)) for n in range(5)]
    paired = _PairedObjects(SourcedObjects([first, *alike, *wheels], 1.0))
    found = [paired.pair(0.0, default_rng(seed)) for seed in range(400)]
    shared = [len(set(two.part_rles) & set(one.part_rles)) for one, two in found if one is first]
    assert len(shared) > 20
    assert np.mean(np.array(shared) == 2) > 0.85, (
        "by chance .75: always by the door, half of the time by a wheel"
    )


def test_what_only_one_photograph_shows_is_its_own_reference(tmp_path: Path) -> None:
    objects = [
        make_annotated_object(tmp_path / f"{n}.png", (part,)) for n, part in enumerate(("wheel", "roof"))
    ]
    for seed in range(10):
        first, second = _PairedObjects(SourcedObjects(objects, 1.0)).pair(0.0, default_rng(seed))
        assert first is second


@pytest.mark.parametrize(
    ("kind", "both"), [("instances", False), ("all_instances", True), ("parts", True), (None, True)]
)
def test_a_source_says_whether_one_or_all_pieces_are_asked_for(
    tmp_path: Path, kind: TargetKind | None, both: bool
) -> None:
    write_part_file(tmp_path, 3, {"eye": EYES})
    source = CocoSource(
        json_path=tmp_path / "parts.json", image_dir=tmp_path / "images", grouping="photo", targets=kind
    )
    read = read_source(source)
    assert read.targets == kind
    sampler = GroupSampler([read], 14, "zoomed", PairSettings(zoom=0.0))
    assert both == any(_is_both(sampler, seed) for seed in range(20))


def _is_both(sampler: GroupSampler, seed: int) -> bool:
    """Whether a target of a group has two separate areas."""
    group = sampler.group(112, default_rng(seed))
    return any((np.diff(np.flatnonzero(target.any(1))) > 1).any() for target in group.targets)


def test_boxes_reach_the_batch(tmp_path: Path) -> None:
    objects = [make_annotated_object(tmp_path / f"{n}.png", ("wheel", "door")) for n in range(3)]
    sampler = GroupSampler(
        [SourcedObjects(objects, 1.0)], 14, "zoomed", PairSettings(box=1.0, box_and_click=0.0)
    )
    (batch,) = sampler.batches(STAGE, 0, 0, [range(2)])
    assert batch.boxes.shape == (12, 4)
    assert batch.boxes.dtype == torch.float32
    assert (batch.boxes >= 0).all()
    assert (batch.clicks == -1).all()


def test_a_configuration_says_how_many_groups_are_close_ups_on_both_sides(tmp_path: Path) -> None:
    objects = [make_annotated_object(tmp_path / f"{n}.png", ("wheel", "door")) for n in range(3)]
    configs = [
        TrainConfig(preset="s14_reader", sources=[], stages=[STAGE], zoom_both=share) for share in (0.0, 1.0)
    ]
    alone, both = (
        make_sampler([SourcedObjects(objects, 1.0)], TINY_READING, config).batches(STAGE, 0, 0, [range(4)])
        for config in configs
    )
    assert not torch.equal(alone[0].images, both[0].images)


def test_a_configuration_says_how_many_targets_have_no_reference(tmp_path: Path) -> None:
    objects = [make_annotated_object(tmp_path / f"{n}.png", ("wheel", "door")) for n in range(3)]
    batches = []
    for share in (0.0, 1.0):
        config = TrainConfig(preset="s14_reader", sources=[], stages=[STAGE], no_reference=share)
        sampler = make_sampler([SourcedObjects(objects, 1.0)], TINY_READING, config)
        batches += sampler.batches(STAGE, 0, 0, [range(6)])
    always, never = ((batch.positive + batch.negative).flatten(1).any(dim=1) for batch in batches)
    assert always.float().mean() > 0.8
    assert not never.any()
    prompted = (batches[1].clicks >= 0).flatten(1).any(dim=1) | (batches[1].boxes >= 0).all(dim=1)
    assert prompted.all()  # nothing else says what is meant


def test_a_configuration_says_which_parts_are_asked_for_more_often(tmp_path: Path) -> None:
    objects = [make_annotated_object(tmp_path / f"{n}.png", ("mirror", "door")) for n in range(3)]
    area_of_mirrors, area_of_doors = (
        make_sampler(
            [SourcedObjects(objects, 1.0, "parts")],
            TINY_READING,
            TrainConfig(preset="s14_reader", sources=[], stages=[STAGE], name_weights={name: 1000.0}),
        )
        .batches(STAGE, 0, 0, [range(8)])[0]
        .targets.float()
        .mean()
        for name in ("mirror", "door")
    )
    assert area_of_mirrors < 0.95 * area_of_doors  # a mirror is half as large as a door


@pytest.mark.parametrize(("network", "expected"), [(TINY_READING, True), (TINY_FROZEN, False)])
def test_a_network_without_an_input_for_boxes_gets_clicks_instead(
    tmp_path: Path, network: NetworkConfig, expected: bool
) -> None:
    sources = [SourcedObjects([make_annotated_object(tmp_path / "0.png", ("wheel", "door"))], 1.0)]
    config = TrainConfig(preset="xtiny", sources=[], stages=[])
    (batch,) = make_sampler(sources, network, config).batches(STAGE, 0, 0, [range(20)])
    assert (batch.boxes >= 0).any() == expected
    named = batch.positive.any(dim=1) | batch.negative.any(dim=1)
    clicked = (batch.clicks[..., 2] >= 0).any(dim=1)
    assert (named | clicked | (batch.boxes[:, 0] >= 0)).all()


@pytest.mark.parametrize(
    ("kind", "shown", "pasted", "expected"),
    [
        ("object", ("wheel", "door"), 0.5, 0.5),
        ("object", ("wheel", "door"), 0.0, 0.0),
        ("parts", ("wheel", "door"), 0.5, 0.0),
        ("instances", ("wheel",), 0.2, 0.6),
    ],
)
def test_groups_of_whole_objects_get_a_pasted_one_as_often_as_asked_and_lone_ones_more_often(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: TargetKind,
    shown: tuple[str, ...],
    pasted: float,
    expected: float,
) -> None:
    hosts = [make_annotated_object(tmp_path / f"{n}.png", shown) for n in range(3)]
    others = [make_annotated_object(tmp_path / f"other{n}.png", ("roof",)) for n in range(3)]
    sources = [SourcedObjects(hosts, 1.0, kind), SourcedObjects(others, 1e-9, "instances", cutouts=True)]
    sampler = GroupSampler(sources, 14, "zoomed", PairSettings(pasted=pasted))
    called = []
    monkeypatch.setattr(sampling, "paste_pair", lambda *args: called.append(paste_pair(*args)) or called[-1])
    for seed in range(60):
        assert sampler.group(56, default_rng(seed)).targets.any(axis=(1, 2)).all()
    assert len(called) / 60 == pytest.approx(expected, abs=0.15)
    assert not called or sum(photos is not None for photos in called) > 0.6 * len(called)
