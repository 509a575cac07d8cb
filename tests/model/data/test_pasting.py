"""Pasted pairs: two things that touch, with soft edges, of which a click alone does not say which is meant."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from numpy.random import default_rng
from numpy.typing import NDArray

from model.data.annotated_objects import AnnotatedObject
from model.data.pair_sampling import PairSettings, group_of
from model.data.pasting import HOST, PASTED, Pair, paste, paste_pair
from model.data.pieces import Photograph
from model.masks import connected, encode, union
from model.types import BoolMask
from tests.model.data.test_pair_sampling import ALWAYS_ALL, as_it_is

HEIGHT, WIDTH = 96, 128
Boxes = dict[str, tuple[int, int, int, int]]
CAR: Boxes = {"door": (40, 70, 30, 60), "wheel": (55, 70, 60, 80)}
DOG: Boxes = {"head": (20, 40, 50, 70), "body": (40, 80, 40, 90)}


def photograph(boxes: Boxes, grey: int) -> Photograph:
    """A black image on which each box (top, bottom, left, right) is a piece of that grey."""
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    masks: dict[str, BoolMask] = {}
    for name, (top, bottom, left, right) in boxes.items():
        masks[name] = np.zeros((HEIGHT, WIDTH), bool)
        masks[name][top:bottom, left:right] = True
        image[masks[name]] = grey
    return Photograph(image, masks, {name: name for name in boxes})


def pasted(seed: int, boxes: Boxes = DOG) -> Photograph:
    car, other = photograph(CAR, 200), photograph(boxes, 100)
    found = paste(car, list(CAR), other, list(boxes), default_rng(seed))
    assert found is not None
    return found


def of_object(found: Photograph, name: str) -> BoolMask:
    return union(found.masks[key] for key, own in found.objects.items() if own == name and key in found.masks)


def test_the_pasted_object_touches_the_other_and_both_stay_visible() -> None:
    areas = []
    for seed in range(30):
        found = pasted(seed)
        host, other = of_object(found, HOST), of_object(found, PASTED)
        assert connected(host, other)
        assert not (host & other).any()
        assert host.sum() >= 0.6 * photograph(CAR, 0).union(CAR).sum()
        areas.append(np.sqrt(other.sum() / photograph(CAR, 0).union(CAR).sum()))
    assert max(areas) > 1.3 * min(areas)


def test_an_object_that_is_moved_onto_the_photograph_still_touches() -> None:
    host = photograph({"sign": (0, 14, 50, 70)}, 200)
    hook = photograph({"arm": (70, 80, 10, 60), "bar": (10, 80, 60, 70)}, 100)
    found = [paste(host, ["sign"], hook, ["arm", "bar"], default_rng(seed)) for seed in range(60)]
    placed = [one for one in found if one is not None]
    assert len(placed) > 20
    for one in placed:
        assert connected(of_object(one, HOST), of_object(one, PASTED))


def test_masks_hold_what_is_seen_whichever_of_the_two_is_in_front() -> None:
    host_whole = photograph(CAR, 0).union(CAR)
    behind = []
    for seed in range(30):
        found = pasted(seed)
        host, other = of_object(found, HOST), of_object(found, PASTED)
        behind.append(np.array_equal(host, host_whole))
        inner = [cv2.erode(mask.astype(np.uint8), np.ones((9, 9), np.uint8)) > 0 for mask in (host, other)]
        np.testing.assert_allclose(found.image[inner[0]], 200, atol=4)
        assert (found.image[inner[1]] < 150).all()
    assert any(behind)
    assert not all(behind)


def test_the_edge_of_the_pasted_object_is_soft() -> None:
    for seed in range(10):
        found = pasted(seed)
        placed = of_object(found, PASTED)
        before = photograph(CAR, 200)
        far = cv2.dilate(placed.astype(np.uint8), np.ones((15, 15), np.uint8)) == 0
        np.testing.assert_allclose(found.image[far], before.image[far], atol=4)
        ring = placed & (cv2.erode(placed.astype(np.uint8), np.ones((3, 3), np.uint8)) == 0)
        background = ring & ~before.union(CAR)
        assert found.image[background].max() > 0
        assert found.image[background].mean() < 0.8 * found.image[placed & ~ring].mean()


def test_an_object_that_is_tiny_or_would_have_to_be_enlarged_is_not_pasted(tmp_path: Path) -> None:
    car, speck = photograph(CAR, 200), photograph({"fly": (40, 44, 40, 44)}, 90)
    assert paste(car, list(CAR), speck, ["fly"], default_rng(0)) is None
    path = tmp_path / "speck.png"
    cv2.imwrite(str(path), speck.image)
    one = AnnotatedObject(path, "", {"fly": [encode(speck.masks["fly"])]}, has_whole=False, names_carry=True)
    flies = Pair((one, one), "instances")
    assert paste_pair(flies, flies, default_rng(0)) is None


Row = tuple[BoolMask, BoolMask, BoolMask, NDArray[np.float32], int]
"""Target, positive and negative mask (S, S), click and number of the crop."""


def square(found: Photograph) -> Photograph:
    """The left part of a photograph, as wide as high."""
    masks = {key: mask[:, :HEIGHT] for key, mask in found.masks.items()}
    return replace(found, image=found.image[:, :HEIGHT], masks={k: m for k, m in masks.items() if m.any()})


def rows(photos: list[Photograph], seed: int, settings: PairSettings = ALWAYS_ALL) -> list[Row]:
    """The targets of a group. Its patches are pixels."""
    group = group_of(photos, HEIGHT, HEIGHT, settings, default_rng(seed), as_it_is, "object")
    shape = (HEIGHT, HEIGHT)
    return [
        (target, positive.reshape(shape) > 0, negative.reshape(shape) > 0, click, int(crop))
        for target, positive, negative, click, crop in zip(
            group.targets, group.positive, group.negative, group.clicks_rc, group.target_crop, strict=True
        )
    ]


def pairs(count: int) -> list[list[Photograph]]:
    return [[square(pasted(2 * seed)), square(pasted(2 * seed + 1))] for seed in range(count)]


def test_a_part_an_object_or_both_are_meant_and_the_reference_rules_the_rest_out() -> None:
    seen = set()
    for seed, photos in enumerate(pairs(30)):
        for target, positive, negative, _, crop in rows(photos, seed):
            here, there = photos[crop], photos[1 - crop]
            objects = {name: (of_object(here, name), of_object(there, name)) for name in (HOST, PASTED)}
            objects["both"] = (union(here.masks.values()), union(there.masks.values()))
            name = next((n for n, (own, _) in objects.items() if np.array_equal(own, target)), "part")
            seen.add(name)
            if name != "part":
                np.testing.assert_array_equal(positive, objects[name][1])
            np.testing.assert_array_equal(negative, union(there.masks.values()) & ~positive)
    assert seen == {HOST, PASTED, "both", "part"}


def test_a_part_its_object_and_both_objects_share_a_click() -> None:
    triples = 0
    for seed, photos in enumerate(pairs(30)):
        asked = rows(photos, seed)
        for crop in (0, 1):
            own = [row for row in asked if row[4] == crop]
            small, middle, large = sorted((row[0] for row in own), key=lambda mask: mask.sum())
            if len({tuple(row[3]) for row in own}) == 1 and small.sum() < middle.sum() < large.sum():
                row, col = own[0][3].astype(int)
                assert small[row, col]
                assert (small <= middle).all()
                assert (middle <= large).all()
                triples += 1
    assert triples > 15


def test_two_things_of_one_name_need_the_click() -> None:
    settings = replace(ALWAYS_ALL, no_click=1.0)
    for boxes, needs in ((CAR, True), (DOG, False)):
        photos = [square(pasted(seed, boxes)) for seed in (1, 2)]
        both_px = [int(union(photo.masks.values()).sum()) for photo in photos]
        for seed in range(10):
            for target, _, _, click, crop in rows(photos, seed, settings):
                is_both = int(target.sum()) == both_px[crop]
                assert (click[0] >= 0) == (needs and not is_both)
