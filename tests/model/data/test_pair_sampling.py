"""Groups of two crops: each shows what the other's targets mean, and only the reference may tell targets apart."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.random import Generator, default_rng

from model.data.augment import Crop
from model.data.pair_sampling import Group, PairSettings, sample_group
from model.types import BoolMask, RgbImage
from tests.support.colour_world import COLOURS, SIDE_PX, make_annotated_object

PARTS = ("wheel", "door", "roof")
ALWAYS_ALL = PairSettings(
    no_reference=0, only_positive=0, only_negative=0, some_negatives=0, no_click=0, shared_click=0
)


def as_it_is(
    image: RgbImage, masks: dict[str, BoolMask], _size: int, _rng: Generator, _part: str | None
) -> Crop:
    return Crop(image, masks)


def groups(folder: Path, count: int, **changes: float) -> list[Group]:
    """Groups of two photographs of the same parts, with patches of one pixel."""
    first, second = (make_annotated_object(folder / f"{number}.png", PARTS) for number in range(2))
    settings = replace(ALWAYS_ALL, **changes)
    return [
        sample_group(first, second, SIDE_PX, SIDE_PX, settings, default_rng(seed), as_it_is)
        for seed in range(count)
    ]


def named(image: RgbImage, mask: np.ndarray) -> set[str]:
    greys = set(np.unique(image[..., 0][mask.reshape(SIDE_PX, SIDE_PX) > 0]).tolist())
    return {name for name, grey in COLOURS.items() if grey in greys}


def test_the_other_view_names_a_targets_parts_and_rules_the_rest_out(tmp_path: Path) -> None:
    for group in groups(tmp_path, 30):
        for target, crop, positive, negative in zip(
            group.targets, group.target_crop, group.positive, group.negative, strict=True
        ):
            meant = named(group.images[crop], target)
            assert meant
            assert named(group.images[1 - crop], positive) == meant
            assert named(group.images[1 - crop], negative) == set(PARTS) - meant


def test_a_first_click_lies_inside_its_target(tmp_path: Path) -> None:
    for group in groups(tmp_path, 30, shared_click=0.5):
        rows, cols = group.clicks_rc.astype(int).T
        assert group.targets[np.arange(len(rows)), rows, cols].all()


def test_nested_targets_share_one_click_so_that_only_the_reference_tells_them_apart(tmp_path: Path) -> None:
    for group in groups(tmp_path, 20, shared_click=1):
        for crop in (0, 1):
            of_crop = group.target_crop == crop
            assert len(np.unique(group.clicks_rc[of_crop], axis=0)) == 1
            small, larger, largest = group.targets[of_crop]
            assert (small <= larger).all()
            assert (small < larger).any()
            assert (small <= largest).all()


@pytest.mark.parametrize(
    ("share", "empty"),
    [
        ("no_reference", {"positive", "negative"}),
        ("only_positive", {"negative"}),
        ("only_negative", {"positive"}),
    ],
)
def test_a_reference_is_left_out_or_one_sided_as_often_as_asked(
    tmp_path: Path, share: str, empty: set[str]
) -> None:
    for group in groups(tmp_path, 10, **{share: 1.0}):
        for name in ("positive", "negative"):
            is_empty = ~getattr(group, name).any(axis=1)
            whole = group.targets.sum(axis=(1, 2)) == group.targets.sum(axis=(1, 2)).max()
            assert is_empty[~whole].all() if name in empty else not is_empty[~whole].any()


def test_without_a_reference_there_is_always_a_click(tmp_path: Path) -> None:
    for group in groups(tmp_path, 20, no_reference=0.5, no_click=1):
        named_by_reference = group.positive.any(axis=1) | group.negative.any(axis=1)
        assert ((group.clicks_rc[:, 0] < 0) == named_by_reference).all()


def test_one_of_two_views_is_close_up_as_often_as_asked_and_never_both(tmp_path: Path) -> None:
    first, second = (make_annotated_object(tmp_path / f"{number}.png", PARTS) for number in range(2))
    close: list[str | None] = []

    def augmentation(
        image: RgbImage, masks: dict[str, BoolMask], size: int, rng: Generator, part: str | None
    ) -> Crop:
        close.append(part)
        return Crop(image, masks)

    settings = replace(ALWAYS_ALL, zoom=0.4)
    for seed in range(300):
        sample_group(first, second, SIDE_PX, SIDE_PX, settings, default_rng(seed), augmentation)
    pairs = np.array([part is not None for part in close]).reshape(-1, 2)
    assert not pairs.all(axis=1).any()
    assert pairs.mean() == pytest.approx(0.4, abs=0.06)
    assert set(filter(None, close)) == set(PARTS)


def test_the_same_seed_draws_the_same_group(tmp_path: Path) -> None:
    first, second = (groups(tmp_path, 3, shared_click=0.5, no_click=0.3) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        for name in ("images", "targets", "positive", "negative", "clicks_rc"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
