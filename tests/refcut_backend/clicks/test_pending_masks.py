from __future__ import annotations

from dataclasses import replace

import pytest

from refcut_backend.clicks.context import ClickContext
from refcut_backend.clicks.pending_masks import still_pending
from refcut_backend.clicks.session import ClickedObject, RememberedObject
from refcut_backend.label_studio.prompts import PercentBox, PercentClick

CONTEXT = ClickContext("Wheel", "image")
WHEEL = ClickedObject("Wheel", "image", "rc-w", (PercentClick(1, 1, True, "w"),))
DOOR = ClickedObject("Door", "image", "rc-d", (PercentClick(1, 1, True, "d"),), single_prompt=True)


def remembered(clicked: ClickedObject, at_s: float = 100, *, accepted: bool = False) -> RememberedObject:
    return RememberedObject(clicked, accepted, at_s)


def carried(*objects: RememberedObject, context: ClickContext = CONTEXT, pending_s: float = 120) -> list[str]:
    found = still_pending(objects, context, WHEEL, now_s=150, pending_s=pending_s)
    return [known.clicked.region_id for known in found]


def test_another_labels_mask_goes_along():
    assert carried(remembered(DOOR)) == ["rc-d"]
    assert carried(remembered(replace(DOOR, to_name="second"))) == ["rc-d"]


def test_an_accepted_mask_does_not_go_along():
    assert carried(remembered(DOOR, accepted=True)) == []


@pytest.mark.parametrize(("pending_s", "expected"), [(50, ["rc-d"]), (49, []), (0, [])])
def test_an_old_mask_does_not_go_along(pending_s, expected):
    assert carried(remembered(DOOR, at_s=100), pending_s=pending_s) == expected


def test_of_one_label_the_newest_mask_alone_goes_along():
    older = replace(DOOR, region_id="rc-e")
    assert carried(remembered(DOOR), remembered(older)) == ["rc-d"]
    assert carried(remembered(DOOR, accepted=True), remembered(older)) == []
    assert carried(remembered(replace(WHEEL, region_id="rc-x"))) == [], "the label that was clicked"


def test_what_single_clicks_have_refined_has_left_the_canvas_already():
    twice = (*DOOR.clicks, PercentClick(2, 2, False, "e"))
    assert carried(remembered(replace(DOOR, clicks=twice))) == []
    assert carried(remembered(replace(DOOR, clicks=twice, single_prompt=False))) == ["rc-d"]
    assert carried(remembered(replace(DOOR, clicks=twice, negative_label_clicks=frozenset({"e"})))) == [
        "rc-d"
    ]
    assert carried(remembered(replace(DOOR, clicks=twice[1:], box=PercentBox(1, 1, 2, 2, "b")))) == ["rc-d"]


def test_a_box_that_is_still_in_the_list_is_still_pending():
    box = PercentBox(1, 1, 2, 2, "b")
    first = remembered(replace(WHEEL, region_id="rc-b", clicks=(), box=box))
    context = ClickContext("Wheel", "image", boxes=(box, PercentBox(5, 5, 9, 9, "c")))
    assert carried(first, context=context) == ["rc-b"]
    assert carried(first) == []


def test_the_answer_to_a_click_that_failed_keeps_the_other_labels_masks():
    objects = [remembered(WHEEL), remembered(DOOR)]
    found = still_pending(objects, CONTEXT, None, now_s=150, pending_s=120)
    assert [known.clicked.region_id for known in found] == ["rc-d"]
