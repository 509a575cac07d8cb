"""Groups of two crops: each shows what the other's targets mean, and only the reference may tell targets apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.random import Generator, default_rng

from model.data.annotated_objects import AnnotatedObject
from model.data.augment import Crop, augment_zoomed
from model.data.pair_sampling import Group, PairSettings, sample_group
from model.data.target_sampling import TargetKind
from model.masks import encode
from model.types import BoolMask, RgbImage
from tests.support.colour_world import COLOURS, SIDE_PX, make_annotated_object

PARTS = ("wheel", "door", "roof")
ALWAYS_ALL = PairSettings(
    no_reference=0,
    only_positive=0,
    only_negative=0,
    some_negatives=0,
    no_click=0,
    shared_click=0,
    nested_things=0,
    box=0,
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


@pytest.mark.parametrize("both", [0.0, 0.5, 1.0])
def test_views_are_close_ups_as_often_as_asked_and_both_of_one_part(tmp_path: Path, both: float) -> None:
    first, second = (make_annotated_object(tmp_path / f"{number}.png", PARTS) for number in range(2))
    close: list[str | None] = []

    def augmentation(
        image: RgbImage, masks: dict[str, BoolMask], size: int, rng: Generator, part: str | None
    ) -> Crop:
        close.append(part)
        return Crop(image, masks)

    settings = replace(ALWAYS_ALL, zoom=0.4, zoom_both=both)
    for seed in range(300):
        sample_group(first, second, SIDE_PX, SIDE_PX, settings, default_rng(seed), augmentation)
    pairs = np.array([part is not None for part in close]).reshape(-1, 2)
    assert pairs.any(axis=1).mean() == pytest.approx(0.8, abs=0.06)
    assert pairs.all(axis=1).mean() == pytest.approx(0.8 * both, abs=0.06)
    assert set(filter(None, close)) == set(PARTS)
    parts = zip(close[::2], close[1::2], strict=True)
    assert all(one == other for one, other in parts if one is not None and other is not None)


def test_the_same_seed_draws_the_same_group(tmp_path: Path) -> None:
    first, second = (groups(tmp_path, 3, shared_click=0.5, no_click=0.3) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        for name in ("images", "targets", "positive", "negative", "clicks_rc"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def with_pieces(
    path: Path, boxes: dict[str, Sequence[tuple[int, int, int, int]]], **options: bool
) -> AnnotatedObject:
    """A photograph of 40 px on which each box (top, bottom, left, right) is a separately labelled piece."""
    cv2.imwrite(str(path), np.full((SIDE_PX, SIDE_PX, 3), 90, np.uint8))
    rles = {}
    for name, places in boxes.items():
        masks = [np.zeros((SIDE_PX, SIDE_PX), bool) for _ in places]
        for mask, (top, bottom, left, right) in zip(masks, places, strict=True):
            mask[top:bottom, left:right] = True
        rles[name] = [encode(mask) for mask in masks]
    return AnnotatedObject(
        path,
        "car",
        rles,
        has_whole=options.get("has_whole", True),
        names_carry=options.get("names_carry", True),
    )


LIGHTS = [(5, 9, 5, 10), (5, 9, 30, 34)]
"""20 and 16 px."""
LIGHTS_AND_HOOD = {"light": LIGHTS, "hood": [(5, 15, 10, 30)]}


def groups_of(one: AnnotatedObject, count: int, kind: TargetKind | None, **changes: float) -> list[Group]:
    settings = replace(ALWAYS_ALL, **changes)
    return [
        sample_group(one, replace(one), SIDE_PX, SIDE_PX, settings, default_rng(seed), as_it_is, kind)
        for seed in range(count)
    ]


def rows(found: Sequence[Group]) -> list[tuple[BoolMask, BoolMask, BoolMask, np.ndarray]]:
    """Target, positive, negative (all (S, S)) and first click of every target."""
    shape = (SIDE_PX, SIDE_PX)
    return [
        (target, positive.reshape(shape) > 0, negative.reshape(shape) > 0, click)
        for group in found
        for target, positive, negative, click in zip(
            group.targets, group.positive, group.negative, group.clicks_rc, strict=True
        )
    ]


def test_a_reference_of_one_piece_means_the_clicked_piece_not_both(tmp_path: Path) -> None:
    one = with_pieces(tmp_path / "car.png", LIGHTS_AND_HOOD)
    asked = rows(groups_of(one, 60, "object", single=1, one_piece=1, no_click=1))
    lights = [row for row in asked if row[0].sum() < 30]
    others_negative = []
    for target, positive, negative, click in lights:
        assert target.sum() in (16, 20)
        assert positive.sum() in (16, 20)
        assert click.min() >= 0, "two lights: only the click says which"
        assert target[tuple(click.astype(int))]
        assert negative[5:15, 10:30].all(), "the hood"
        others_negative.append(negative.sum() > 200)
    assert len(lights) > 100
    assert np.mean(others_negative) == pytest.approx(0.5, abs=0.12)
    assert all(target.sum() != 36 for target, *_ in asked)


def test_all_pieces_of_a_name_are_the_target_where_all_are_labelled(tmp_path: Path) -> None:
    one = with_pieces(tmp_path / "car.png", {"light": LIGHTS})
    sizes = {
        kind: np.array([int(row[0].sum()) for row in rows(groups_of(one, 30, kind))])
        for kind in ("instances", "all_instances")
    }
    assert set(sizes["instances"]) == {16, 20}
    assert (sizes["all_instances"] == 36).mean() == pytest.approx(0.5, abs=0.12)


def test_two_things_that_touch_are_shown_by_both_and_clicked_on_one(tmp_path: Path) -> None:
    one = with_pieces(
        tmp_path / "car.png", {"light": LIGHTS[:1], "hood": [(5, 15, 10, 28)], "bird": [(30, 36, 2, 8)]}
    )
    asked = rows(groups_of(one, 30, "instances", two_things=1))
    light, hood, bird = 20, 180, 36
    assert {int(row[0].sum()) for row in asked} == {light + hood, bird}
    for target, positive, _, click in asked:
        np.testing.assert_array_equal(positive, target)
        assert target[tuple(click.astype(int))]


def test_one_piece_its_part_and_the_whole_share_a_click(tmp_path: Path) -> None:
    one = with_pieces(tmp_path / "car.png", LIGHTS_AND_HOOD)
    found = groups_of(one, 40, "object", shared_click=1, one_piece=1)
    triples = [group.targets[group.target_crop == crop] for group in found for crop in (0, 1)]
    clicks = [group.clicks_rc[group.target_crop == crop] for group in found for crop in (0, 1)]
    sizes = [tuple(triple.sum(axis=(1, 2))) for triple in triples]
    assert {(16, 36, 236), (20, 36, 236)} <= set(sizes)
    for triple, click in zip(triples, clicks, strict=True):
        assert len(np.unique(click, axis=0)) == 1
        assert triple[:, int(click[0, 0]), int(click[0, 1])].all()


def test_a_thing_and_the_one_it_touches_share_a_click(tmp_path: Path) -> None:
    one = with_pieces(tmp_path / "car.png", {"light": LIGHTS[:1], "hood": [(5, 15, 10, 28)]})
    for group in groups_of(one, 20, "instances", nested_things=1):
        for crop in (0, 1):
            small, both, _ = group.targets[group.target_crop == crop]
            first, second, _ = group.clicks_rc[group.target_crop == crop]
            assert both.sum() == 200
            assert (small < both).any()
            np.testing.assert_array_equal(first, second)


REGIONS = {"region 1": [(4, 12, 4, 12)], "region 2": [(4, 24, 4, 24)], "region 3": [(2, 38, 2, 38)]}


def test_nested_regions_of_several_annotators_share_a_click(tmp_path: Path) -> None:
    one = with_pieces(tmp_path / "sea.png", REGIONS, has_whole=False, names_carry=False)
    found = groups_of(one, 30, None, shared_click=1)
    triples = 0
    for group in found:
        for crop in (0, 1):
            own = group.target_crop == crop
            click = np.unique(group.clicks_rc[own], axis=0)
            if sorted(group.targets[own].sum(axis=(1, 2))) == [64, 400, 1296] and len(click) == 1:
                assert group.targets[own][:, int(click[0, 0]), int(click[0, 1])].all()
                triples += 1
    assert triples > 15


def test_a_region_is_shown_by_another_view_of_its_own_photograph(tmp_path: Path) -> None:
    one = with_pieces(tmp_path / "sea.png", REGIONS, has_whole=False, names_carry=False)
    settings = replace(ALWAYS_ALL, single=1)
    differs = []
    for seed in range(20):
        group = sample_group(one, one, 56, 56, settings, default_rng(seed), augment_zoomed)
        differs.append(not np.array_equal(group.images[0], group.images[1]))
        assert group.positive.any(axis=1).all()
    assert np.mean(differs) > 0.8


def test_where_not_all_parts_are_labelled_there_is_no_whole_target(tmp_path: Path) -> None:
    one = with_pieces(tmp_path / "car.png", LIGHTS_AND_HOOD | {"bird": [(30, 36, 2, 8)]}, has_whole=False)
    for kind in (None, "parts"):
        for _, positive, negative, _ in rows(groups_of(one, 20, kind, single=0, connected_pair=0, whole=1)):
            assert positive.any()
            assert negative.any() or positive.sum() == 272, "all parts may be drawn as parts, by chance"
        asked = rows(groups_of(one, 20, kind, single=0, connected_pair=1, whole=0))
        assert all(negative.any() for _, _, negative, _ in asked)


def test_few_negatives_mostly_hold_a_part_that_touches(tmp_path: Path) -> None:
    boxes = {"light": LIGHTS[:1], "hood": [(5, 15, 10, 30)]}
    far = {f"bird {n}": [(32, 36, 1 + 6 * n, 5 + 6 * n)] for n in range(6)}
    one = with_pieces(tmp_path / "car.png", boxes | far)
    often = {}
    for share in (0.0, 1.0):
        asked = rows(groups_of(one, 60, "object", single=1, some_negatives=1, neighbour_negative=share))
        touching = [
            bool(negative[5:15, 10:30].any()) for target, _, negative, _ in asked if target.sum() == 20
        ]
        assert len(touching) > 20
        often[share] = np.mean(touching)
    assert often[0.0] < 0.8
    assert often[1.0] == 1


def test_a_target_has_a_box_as_often_as_asked_and_mostly_no_click_then(tmp_path: Path) -> None:
    one = with_pieces(tmp_path / "car.png", LIGHTS_AND_HOOD)
    found = groups_of(one, 120, "object", box=0.3, box_and_click=0.25)
    boxes = np.concatenate([group.boxes for group in found])
    clicks = np.concatenate([group.clicks_rc for group in found])
    targets = np.concatenate([group.targets for group in found])
    has_box = boxes[:, 0] >= 0
    assert has_box.mean() == pytest.approx(0.3, abs=0.06)
    assert (boxes[~has_box] == -1).all()
    assert (clicks[~has_box] >= 0).all()
    assert (clicks[has_box, 0] >= 0).mean() == pytest.approx(0.25, abs=0.1)
    for box, target in zip(boxes[has_box], targets[has_box], strict=True):
        row_min, col_min, row_max, col_max = box.astype(int)
        inside = target[row_min : row_max + 1, col_min : col_max + 1].sum()
        assert inside > 0.6 * target.sum()


def test_a_cut_off_piece_still_belongs_to_its_part(tmp_path: Path) -> None:
    one = with_pieces(tmp_path / "car.png", LIGHTS_AND_HOOD)

    def augmentation(
        image: RgbImage, masks: dict[str, BoolMask], _size: int, _rng: Generator, _part: str | None
    ) -> Crop:
        *visible, cut_off = [key for key in masks if key.startswith("light")]
        rest = np.zeros_like(masks[cut_off])
        rest[5:6, 30:31] = True
        return Crop(image, {key: masks[key] for key in (*visible, "hood")}, {cut_off: rest})

    settings = replace(ALWAYS_ALL, single=1, box=1)
    sizes: set[int] = set()
    for seed in range(20):
        group = sample_group(one, one, SIDE_PX, SIDE_PX, settings, default_rng(seed), augmentation, "object")
        sizes |= {int(size) for size in group.targets.sum(axis=(1, 2))}
        of_light = group.boxes[group.targets.sum(axis=(1, 2)) == 21]
        assert (of_light[:, 3] < 20).all(), "its box does not reach to the rest at column 30"
    assert sizes == {21, 200}


def test_crops_that_show_two_parts_are_drawn_where_the_photographs_do(tmp_path: Path) -> None:
    one = with_pieces(tmp_path / "car.png", LIGHTS_AND_HOOD)

    def augmentation(
        image: RgbImage, masks: dict[str, BoolMask], _size: int, rng: Generator, _part: str | None
    ) -> Crop:
        return Crop(image, {key: masks[key] for key in ("hood", *(["light"] if rng.random() < 0.7 else []))})

    def share_of_two(settings: PairSettings) -> float:
        drawn = [
            sample_group(one, one, SIDE_PX, SIDE_PX, settings, default_rng(seed), augmentation, "object")
            for seed in range(60)
        ]
        return float(np.mean([len(np.unique(group.targets.sum(axis=(1, 2)))) > 1 for group in drawn]))

    assert share_of_two(replace(ALWAYS_ALL, single=0, connected_pair=0.5, shared_click=1)) > 0.65
