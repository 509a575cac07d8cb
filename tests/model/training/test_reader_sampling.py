"""What the reader is asked: targets that the references name, whatever kind of set they come from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from model.errors import DataError
from model.training.reader_sampling import ReaderBatch, ReaderSampler
from tests.support.reader_data import make_config, write_cache, write_part_file

HEAD, TAIL, EYES = (20, 76, 8, 50), (20, 76, 50, 120), [(24, 40, 12, 28), (64, 80, 12, 28)]
PIECES = {"head": [HEAD], "tail": [TAIL]}
PATCHES = 64


def sampler(
    folder: Path, pieces: dict[str, list[tuple[int, int, int, int]]] = PIECES, **options: object
) -> ReaderSampler:
    write_part_file(folder, 4, pieces)
    config = make_config(folder, **options)
    write_cache(config, folder / "cache")
    return ReaderSampler(config, folder / "cache")


def batches(one: ReaderSampler, count: int = 30) -> list[ReaderBatch]:
    return [one.batch(step) for step in range(count)]


def rows(found: list[ReaderBatch], name: str) -> NDArray[np.float32]:
    """All targets (T, N), or the labels (T, R * N) or clicks (T, 2, N) that belong to them, of steps of one shape."""
    values = [getattr(batch, name) for batch in found]
    if name in ("positive", "negative"):
        values = [value.transpose(0, 2, 1) for value in values]
    return np.concatenate([value.reshape(-1, *value.shape[2:]) for value in values])


def test_a_step_is_the_same_on_every_run(tmp_path: Path) -> None:
    one = sampler(tmp_path, crops=2)
    again = ReaderSampler(make_config(tmp_path, crops=2), tmp_path / "cache")
    for first, second in zip(batches(one, 4), batches(again, 4), strict=True):
        for name in vars(first):
            assert np.array_equal(getattr(first, name), getattr(second, name))
    assert not np.array_equal(one.batch(0).targets, one.batch(1).targets)


def test_every_target_has_a_place_and_a_reference_that_shows_it(tmp_path: Path) -> None:
    for batch in batches(sampler(tmp_path, crops=3)):
        assert (batch.targets.sum(axis=-1) > 0.2).all()
        shown = batch.positive.sum(axis=1) + batch.negative.sum(axis=1)
        assert (shown > 0).all()
        assert ((batch.positive + batch.negative) <= 1 + 1e-6).all()


def test_a_configuration_says_which_parts_are_asked_for_more_often(tmp_path: Path) -> None:
    sampler(tmp_path)
    heads, tails = (
        ReaderSampler(
            make_config(tmp_path).model_copy(update={"name_weights": {name: 1000.0}}), tmp_path / "cache"
        )
        for name in ("head", "tail")
    )
    area_of_heads, area_of_tails = (
        rows(batches(one), "targets").sum(axis=1).mean() for one in (heads, tails)
    )
    assert area_of_heads < 0.9 * area_of_tails


def test_a_crop_is_never_its_own_reference(tmp_path: Path) -> None:
    for batch in batches(sampler(tmp_path)):
        own = np.arange(len(batch.features))[:, None]
        assert (batch.references != own).all()
        assert (batch.references < len(batch.features)).all()


def test_steps_of_triples_have_two_references(tmp_path: Path) -> None:
    batch = sampler(tmp_path, triples=1.0, groups=2).batch(0)
    assert batch.references.tolist() == [[1, 2], [0, 2], [0, 1], [4, 5], [3, 5], [3, 4]]
    assert batch.positive.shape == (6, 2 * PATCHES, 6)


def test_the_parts_of_a_step_are_the_step(tmp_path: Path) -> None:
    one = sampler(tmp_path, groups=2)
    for step in range(4):
        whole = one.batch(step)
        parts = [one.batch(step, range(number, number + 1)) for number in range(2)]
        for name in ("features", "positive", "negative", "clicks", "targets"):
            joined = np.concatenate([getattr(part, name) for part in parts])
            assert np.array_equal(getattr(whole, name), joined)


def test_positive_clicks_fall_on_the_target_and_negative_ones_beside_it(tmp_path: Path) -> None:
    found = batches(sampler(tmp_path, triples=0.0), 60)
    targets, clicks = rows(found, "targets"), rows(found, "clicks")
    best = clicks.argmax(axis=-1)
    for sign, inside in ((0, True), (1, False)):
        clicked = clicks[:, sign].max(axis=-1) > 0.3
        assert clicked.sum() > 20
        share = np.take_along_axis(targets, best[:, sign, None], axis=1)[clicked, 0]
        assert ((share > 0.1) == inside).mean() > 0.97


def test_nested_targets_are_clicked_on_inside_the_smallest(tmp_path: Path) -> None:
    inside = []
    for batch in batches(sampler(tmp_path, triples=0.0), 40):
        for targets, clicks in zip(batch.targets, batch.clicks, strict=True):
            nested = (targets[0] <= targets[1] + 1e-6).all() and (targets[1] <= targets[2] + 1e-6).all()
            if nested and targets[0].sum() < targets[1].sum():
                inside += [bool((targets[0] * click[0]).any()) for click in clicks[:3] if click[0].any()]
    assert len(inside) > 40
    assert sum(inside) > 0.9 * len(inside)


def test_a_whole_is_asked_for_only_where_all_is_labelled(tmp_path: Path) -> None:
    pieces = {"head": [HEAD], "tail": [TAIL], "eye": EYES[:1]}
    whole = sampler(tmp_path / "object", pieces, triples=0.0)
    reference_says_nothing_else = [
        (batch.negative.sum(axis=1) == 0) & (batch.positive.sum(axis=1) > 0) for batch in batches(whole)
    ]
    assert np.concatenate(reference_says_nothing_else).mean() > 0.2


def test_a_reference_of_one_of_several_pieces_means_the_clicked_piece(tmp_path: Path) -> None:
    found = batches(sampler(tmp_path, {"eye": EYES}, grouping="photo", targets="instances", triples=0.0))
    targets, clicks = rows(found, "targets"), rows(found, "clicks")
    positive = rows(found, "positive")
    one_eye = 16 * 16 / (96 * 128) * PATCHES
    assert targets.sum(axis=-1) == pytest.approx(one_eye, rel=0.05)
    assert positive.sum(axis=-1).max() == pytest.approx(one_eye, rel=0.05)
    assert (clicks[:, 0].max(axis=-1) > 0).all()


def test_all_pieces_are_asked_for_where_all_are_labelled(tmp_path: Path) -> None:
    found = batches(sampler(tmp_path, {"eye": EYES}, grouping="photo", targets="all_instances", triples=0.0))
    targets, positive = rows(found, "targets"), rows(found, "positive")
    one_eye = 16 * 16 / (96 * 128) * PATCHES
    both = targets.sum(axis=-1) > 1.5 * one_eye
    assert 0.3 < both.mean() < 0.7
    meant_both = positive.sum(axis=-1) > 1.5 * one_eye
    named = positive.sum(axis=-1) > 0
    assert np.array_equal(both[named], meant_both[named])


def test_regions_are_asked_for_on_another_crop_of_their_photograph(tmp_path: Path) -> None:
    one = sampler(tmp_path, grouping="regions", targets="regions", crops=3, triples=0.0)
    for batch in batches(one, 10):
        assert (batch.targets.sum(axis=-1) > 0).all()


def test_references_of_regions_are_never_the_same_crop(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="needs at least 2 crops"):
        sampler(tmp_path / "one", grouping="regions", targets="regions")
    one = sampler(tmp_path / "two", grouping="regions", targets="regions", crops=2, triples=0.0)
    for batch in batches(one, 20):
        for own, (reference,) in enumerate(batch.references):
            assert not np.array_equal(batch.features[own], batch.features[reference])


def test_a_cache_without_all_crops_is_refused(tmp_path: Path) -> None:
    sampler(tmp_path, crops=1)
    with pytest.raises(DataError, match="not a complete feature cache"):
        ReaderSampler(make_config(tmp_path, crops=2), tmp_path / "cache")
