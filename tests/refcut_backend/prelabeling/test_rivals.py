"""Masks of different labels on the same thing: the surer one stays, and what is not the same thing is left alone."""

from __future__ import annotations

import numpy as np

from refcut_backend.label_studio import brush_rle
from refcut_backend.prelabeling.rivals import MARGIN, without_rivals
from refcut_backend.queue.messages import FoundLabel, FoundMask

WIDTH, HEIGHT = 300, 200


def found(label: str, *masks: tuple[slice, float], to_name: str = "image") -> FoundLabel:
    """A label with masks that cover these columns, with their scores."""
    made = []
    for columns, score in masks:
        mask_hw = np.zeros((HEIGHT, WIDTH), bool)
        mask_hw[20:180, columns] = True
        made.append(FoundMask(brush_rle.encode(mask_hw), score))
    return FoundLabel(label, to_name, WIDTH, HEIGHT, tuple(made), ("v",))


def scores(labels: list[FoundLabel]) -> dict[str, list[float]]:
    return {label.label: [mask.score for mask in label.masks] for label in labels}


def test_of_two_labels_on_the_same_thing_the_surer_one_stays_whatever_their_order():
    front, back = found("front", (slice(0, 100), 0.8)), found("back", (slice(5, 105), 0.4))
    assert scores(without_rivals([front, back])) == {"front": [0.8], "back": []}
    assert scores(without_rivals([back, front])) == {"back": [], "front": [0.8]}


def test_labels_that_are_about_as_sure_may_mean_the_same_thing_and_both_stay():
    front, back = found("front", (slice(0, 100), 0.8)), found("back", (slice(0, 100), 0.8 - 0.9 * MARGIN))
    assert without_rivals([front, back]) == [front, back]


def test_a_part_of_another_label_stays():
    car, wheel = found("car", (slice(0, 200), 0.9)), found("wheel", (slice(0, 90), 0.4))
    assert without_rivals([car, wheel]) == [car, wheel]


def test_masks_of_one_label_are_not_compared():
    wheels = found("wheel", (slice(0, 100), 0.8), (slice(5, 105), 0.4))
    hood = found("hood", (slice(200, 300), 0.5))
    assert without_rivals([wheels, hood]) == [wheels, hood]


def test_masks_on_two_images_of_a_task_are_not_compared():
    left, right = (
        found("front", (slice(0, 100), 0.8), to_name="left"),
        found("back", (slice(0, 100), 0.4), to_name="right"),
    )
    assert without_rivals([left, right]) == [left, right]


def test_a_mask_that_was_left_out_displaces_no_other():
    """The second is on the first, and the third is on the second but not on the first."""
    labels = [
        found("first", (slice(0, 100), 0.9)),
        found("second", (slice(20, 120), 0.6)),
        found("third", (slice(40, 140), 0.4)),
    ]
    assert scores(without_rivals(labels)) == {"first": [0.9], "second": [], "third": [0.4]}


def test_only_the_mask_on_the_other_label_is_left_out():
    wheels = found("wheel", (slice(0, 100), 0.4), (slice(150, 250), 0.35))
    hood = found("hood", (slice(0, 100), 0.7))
    assert scores(without_rivals([wheels, hood])) == {"wheel": [0.35], "hood": [0.7]}


def test_masks_too_thin_to_be_compared_stay():
    tall = np.zeros((3000, 10), bool)
    tall[1::2, 3] = True
    rle = brush_rle.encode(tall)
    labels = [
        FoundLabel(name, "image", 10, 3000, (FoundMask(rle, score),), ())
        for name, score in zip("ab", (0.9, 0.4), strict=True)
    ]
    assert without_rivals(labels) == labels
