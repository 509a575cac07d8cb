from __future__ import annotations

from dataclasses import replace

import pytest

from refcut_backend.clicks.context import ClickContext
from refcut_backend.clicks.pending_masks import still_pending
from refcut_backend.clicks.session import ClickedObject, RememberedObject
from refcut_backend.label_studio.prompts import Dot, PercentBox, PercentClick

BOX = PercentBox(1, 1, 2, 2, "b")
NEW_BOX = PercentBox(5, 5, 9, 9, "c")
CONTEXT = ClickContext("Wheel", "image", boxes=(BOX, NEW_BOX))
CLICKED = ClickedObject("Wheel", "image", "rc-c", box=NEW_BOX)
BOXED = ClickedObject("Wheel", "image", "rc-b", box=BOX)
DOOR = ClickedObject("Door", "image", "rc-d", (PercentClick(1, 1, True, "d"),))


def remembered(clicked: ClickedObject, at_s: float = 100, *, accepted: bool = False) -> RememberedObject:
    return RememberedObject(clicked, accepted, at_s)


def carried(
    *objects: RememberedObject,
    context: ClickContext = CONTEXT,
    clicked: ClickedObject | None = CLICKED,
    pending_s: float = 120,
) -> list[str]:
    found = still_pending(objects, context, clicked, now_s=150, pending_s=pending_s)
    return [known.clicked.region_id for known in found]


def test_the_mask_of_a_box_that_the_request_shows_goes_along():
    assert carried(remembered(CLICKED), remembered(BOXED)) == ["rc-b"]
    refined = replace(BOXED, clicks=(PercentClick(2, 2, False, "e"),))
    assert carried(remembered(refined)) == ["rc-b"]


def test_the_mask_of_a_box_that_the_request_does_not_show_stays_out():
    gone = ClickContext("Wheel", "image", boxes=(NEW_BOX,))
    assert carried(remembered(BOXED), context=gone) == []
    dots = ClickContext("Wheel", "image", (Dot("w", 1, 1, True),))
    assert carried(remembered(BOXED), context=dots) == []


@pytest.mark.parametrize(
    "other",
    [DOOR, replace(DOOR, single_prompt=True), replace(DOOR, label="Wheel"), replace(DOOR, to_name="second")],
    ids=["a label", "a single dot", "the same label", "an image"],
)
def test_what_no_request_of_this_label_can_show_stays_out(other):
    assert carried(remembered(other)) == []
    assert carried(remembered(other), clicked=None) == []


@pytest.mark.parametrize("change", [{"label": "Door"}, {"to_name": "second"}])
def test_a_box_whose_label_or_image_is_another_by_now_stays_out(change):
    assert carried(remembered(replace(BOXED, **change))) == []


def test_an_accepted_mask_does_not_go_along():
    assert carried(remembered(BOXED, accepted=True)) == []


@pytest.mark.parametrize(("pending_s", "expected"), [(50, ["rc-b"]), (49, []), (0, [])])
def test_an_old_mask_does_not_go_along(pending_s, expected):
    assert carried(remembered(BOXED, at_s=100), pending_s=pending_s) == expected
