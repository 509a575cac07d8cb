"""What annotators do in Label Studio 1.23, and which object each of their clicks is about."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refcut_backend.clicks.context import MAX_CLICKS, read_context
from refcut_backend.clicks.session import ClickedObject, ClickSession, RememberedObject
from refcut_backend.errors import BadRequestError, NoObjectError, NoPositiveClickError
from refcut_backend.label_studio.prompts import PercentBox
from tests.support.recorded import box_result, click_result

MASK_PERCENT = 10


class Annotator:
    """Sends contexts and remembers the objects as the backend would. A mask is a square round its first positive click
    or its box, so that "inside the mask" needs no network."""

    def __init__(self) -> None:
        self.objects: list[RememberedObject] = []
        self.polarities: dict[str, bool] = {}
        self.now_s = 0.0

    def send(self, *regions: dict[str, Any], is_negative_label: bool = False, step: int = 0) -> ClickedObject:
        context = read_context(list(regions))
        assert context is not None
        kind: dict[str, Any] = {"is_negative_label": is_negative_label, "step": step}
        clicked = self.session().understand(context, **kind)
        self.remember(clicked, context.key())
        assert self.session().understand(context, **kind) == clicked, "sent again"
        return clicked

    def larger(self, *names: str) -> ClickedObject:
        return self.send(*(dot(name, 5, "Larger") for name in names), step=1)

    def smaller(self, *names: str) -> ClickedObject:
        return self.send(*(dot(name, 5, "Smaller") for name in names), step=-1)

    def session(self) -> ClickSession:
        return ClickSession(tuple(self.objects), self.polarities, self.on_mask)

    def remember(self, clicked: ClickedObject, context_key: str) -> None:
        self.now_s += 1
        others = [o for o in self.objects if o.clicked.region_id != clicked.region_id]
        accepted = any(o.accepted for o in self.objects if o.clicked.region_id == clicked.region_id)
        self.objects = [RememberedObject(clicked, accepted, self.now_s, context_key), *others]

    def accept(self, *region_ids: str) -> None:
        self.objects = [
            replace(o, accepted=o.accepted or o.clicked.region_id in region_ids) for o in self.objects
        ]

    def on_mask(self, region_id: str, x: float, y: float) -> bool:
        clicked = next(o.clicked for o in self.objects if o.clicked.region_id == region_id)
        if clicked.box is not None:
            return clicked.box.holds(x, y)
        first = next(click for click in clicked.clicks if click.positive)
        return abs(first.x_percent - x) <= MASK_PERCENT and abs(first.y_percent - y) <= MASK_PERCENT


def dot(name: str, at: float = 50, label: str = "Door", *, positive: bool | None = True) -> dict[str, Any]:
    return click_result(name, at, at, label, positive=positive)


def signs(clicked: ClickedObject) -> list[str]:
    """Ids with + or -, in order."""
    return [f"{'+' if click.positive else '-'}{click.id}" for click in clicked.clicks]


@pytest.fixture
def annotator() -> Annotator:
    return Annotator()


# Lists of dots: what a manual annotator sends.


def test_the_region_keeps_its_id_while_clicks_are_added(annotator):
    one = annotator.send(dot("a"))
    two = annotator.send(dot("a"), dot("b", 20))
    assert one.region_id == two.region_id == "rc-a"
    assert signs(two) == ["+a", "+b"]


def test_an_alt_click_takes_away(annotator):
    assert signs(annotator.send(dot("a"), dot("b", positive=False))) == ["+a", "-b"]


def test_a_dragged_dot_counts_where_it_is_now(annotator):
    annotator.send(dot("a", 10), dot("b", 20))
    clicked = annotator.send(dot("a", 15), dot("b", 20))
    assert [click.x_percent for click in clicked.clicks] == [15, 20]
    assert clicked.region_id == "rc-a"


def test_a_single_dot_that_is_dragged_stays_its_object(annotator):
    annotator.send(dot("a", 10))
    clicked = annotator.send(dot("a", 60))
    assert (clicked.region_id, signs(clicked), clicked.clicks[0].x_percent) == ("rc-a", ["+a"], 60)


def test_a_deleted_dot_no_longer_counts(annotator):
    annotator.send(dot("a"), dot("b", 20))
    assert signs(annotator.send(dot("a"), dot("c", 30))) == ["+a", "+c"]
    assert signs(annotator.send(dot("c", 30))) == ["+c"]


def test_dots_that_stay_after_accepting_in_the_canvas_go_on_with_the_same_region(annotator):
    annotator.send(dot("a"), dot("b", 20))
    annotator.accept("rc-a")
    clicked = annotator.send(dot("a"), dot("b", 20), dot("c", 30))
    assert (clicked.region_id, signs(clicked)) == ("rc-a", ["+a", "+b", "+c"])


def test_an_object_that_had_a_list_of_dots_is_never_refined_by_a_single_click(annotator):
    annotator.send(dot("a"), dot("b", 52))
    clicked = annotator.send(dot("c", 51))
    assert (clicked.region_id, signs(clicked)) == ("rc-c", ["+c"])


DOTS = st.lists(
    st.tuples(st.sampled_from("abcd"), st.integers(0, 100), st.booleans()),
    min_size=2,
    max_size=4,
    unique_by=lambda chosen: chosen[0],
)


@given(earlier=st.lists(DOTS, max_size=4), last=DOTS)
def test_what_a_list_of_dots_means_does_not_depend_on_what_was_sent_before(earlier, last):
    def regions(chosen):
        first = [dot("first", 50)]
        return first + [dot(name, at, positive=positive) for name, at, positive in chosen]

    annotator = Annotator()
    for chosen in earlier:
        annotator.send(*regions(chosen))
    assert annotator.send(*regions(last)) == Annotator().send(*regions(last))


def test_polarity_that_label_studio_has_forgotten_is_what_it_was(annotator):
    annotator.polarities = {"b": False}
    after_reload = [dot("a", positive=None), dot("b", 20, positive=None), dot("c", 30)]
    assert signs(annotator.send(*after_reload)) == ["+a", "-b", "+c"]


# "Auto accept": one dot a context.


def test_with_auto_accept_a_click_on_the_mask_refines_it(annotator):
    annotator.send(dot("a", 50))
    clicked = annotator.send(dot("b", 55))
    assert (clicked.region_id, signs(clicked)) == ("rc-a", ["+a", "+b"])


def test_with_auto_accept_a_negative_click_takes_away_from_the_last_mask_wherever_it_lies(annotator):
    annotator.send(dot("a", 50))
    clicked = annotator.send(dot("b", 90, positive=False))
    assert (clicked.region_id, signs(clicked)) == ("rc-a", ["+a", "-b"])
    clicked = annotator.send(dot("c", 52))
    assert (clicked.region_id, signs(clicked)) == ("rc-a", ["+a", "-b", "+c"])


def test_with_auto_accept_two_quick_negative_clicks_that_come_together_both_take_away(annotator):
    annotator.send(dot("a", 50))
    clicked = annotator.send(dot("b", 51, positive=False), dot("c", 52, positive=False))
    assert (clicked.region_id, signs(clicked)) == ("rc-a", ["+a", "-b", "-c"])


def test_with_auto_accept_a_click_beside_the_mask_begins_another_object(annotator):
    annotator.send(dot("a", 20))
    clicked = annotator.send(dot("b", 80))
    assert (clicked.region_id, signs(clicked)) == ("rc-b", ["+b"])


def test_a_single_click_goes_on_with_the_last_object_of_its_label_and_no_other(annotator):
    annotator.send(dot("a", 20))
    annotator.send(dot("b", 80))
    assert annotator.send(dot("c", 20)).region_id == "rc-c", "the first object is not the last"
    assert annotator.send(dot("d", 20, "Hood")).region_id == "rc-d", "another label"


def test_a_single_click_on_another_image_tag_begins_an_object_of_its_own(annotator):
    annotator.send(dot("a"))
    assert annotator.send(dot("b") | {"to_name": "second"}).region_id == "rc-b"


def test_a_single_click_that_is_sent_again_later_gives_what_it_gave(annotator):
    first = annotator.send(dot("a", 50))
    second = annotator.send(dot("b", 55))
    assert annotator.send(dot("a", 50)) == first
    assert annotator.send(dot("b", 55)) == second


@pytest.mark.parametrize("regions", [[dot("a", positive=False)], [dot("a", positive=False)] * 2])
def test_a_negative_click_without_an_object_is_refused(annotator, regions):
    with pytest.raises(NoPositiveClickError):
        annotator.send(*regions)


def test_a_negative_click_after_a_list_of_dots_was_accepted_is_refused(annotator):
    annotator.send(dot("a"), dot("b", 20))
    with pytest.raises(NoPositiveClickError):
        annotator.send(dot("c", positive=False))


def test_two_annotators_on_one_task_are_both_answered_with_their_own_clicks(annotator):
    annotator.send(dot("a", 20))
    annotator.send(dot("x", 80))
    assert signs(annotator.send(dot("a", 20), dot("b", 25))) == ["+a", "+b"]
    assert signs(annotator.send(dot("x", 80), dot("y", 85))) == ["+x", "+y"]


def test_an_object_refined_without_end_is_refused_at_the_limit(annotator):
    annotator.send(dot("a"))
    for number in range(MAX_CLICKS - 1):
        annotator.send(dot(f"n{number}", positive=False))
    with pytest.raises(BadRequestError, match="limit"):
        annotator.send(dot("last", positive=False))


# A label whose dots take away.


def test_dots_of_a_negative_label_take_away_from_the_object_clicked_last(annotator):
    annotator.send(dot("a", 20))
    annotator.send(dot("w", 80, "Wheel"))
    clicked = annotator.send(dot("n", 70, "Negative"), is_negative_label=True)
    assert (clicked.label, clicked.region_id, signs(clicked)) == ("Wheel", "rc-w", ["+w", "-n"])


def test_a_dot_of_a_negative_label_outlives_further_clicks_of_the_label(annotator):
    annotator.send(dot("a", 20))
    annotator.send(dot("n", 70, "Negative"), is_negative_label=True)
    clicked = annotator.send(dot("a", 20), dot("b", 25))
    assert (clicked.region_id, signs(clicked)) == ("rc-a", ["+a", "-n", "+b"])
    clicked = annotator.send(dot("n", 70, "Negative"), dot("m", 60, "Negative"), is_negative_label=True)
    assert signs(clicked) == ["+a", "-n", "+b", "-m"]


def test_alt_clicks_and_a_negative_label_go_together(annotator):
    annotator.send(dot("a", 20), dot("b", 30, positive=False))
    clicked = annotator.send(dot("n", 70, "Negative"), is_negative_label=True)
    assert signs(clicked) == ["+a", "-b", "-n"]


def test_a_negative_dot_stays_with_its_object_when_another_is_clicked(annotator):
    annotator.send(dot("a", 20))
    annotator.send(dot("n", 25, "Negative"), is_negative_label=True)
    annotator.send(dot("w", 80, "Wheel"))
    both = [dot("n", 25, "Negative"), dot("m", 85, "Negative")]
    assert signs(annotator.send(*both, is_negative_label=True)) == ["+w", "-m"]
    dragged = [dot("n", 28, "Negative"), both[1]]
    clicked = annotator.send(*dragged, is_negative_label=True)
    assert (clicked.region_id, [click.x_percent for click in clicked.clicks]) == ("rc-a", [20, 28])


def test_a_deleted_dot_of_a_negative_label_no_longer_takes_away(annotator):
    annotator.send(dot("a", 20), dot("b", 22))
    annotator.send(dot("n", 25, "Negative"), is_negative_label=True)
    clicked = annotator.send(dot("m", 26, "Negative"), is_negative_label=True)
    assert signs(clicked) == ["+a", "+b", "-m"]


def test_with_auto_accept_dots_of_a_negative_label_add_up(annotator):
    annotator.send(dot("a", 20))
    annotator.accept("rc-a")
    annotator.send(dot("n", 25, "Negative"), is_negative_label=True)
    clicked = annotator.send(dot("m", 26, "Negative"), is_negative_label=True)
    assert (clicked.region_id, signs(clicked)) == ("rc-a", ["+a", "-n", "-m"])


def test_a_single_click_that_is_sent_again_later_comes_without_the_negative_dot_that_followed_it(annotator):
    first = annotator.send(dot("a", 20))
    annotator.send(dot("n", 25, "Negative"), is_negative_label=True)
    assert annotator.send(dot("a", 20)) == first


def test_a_negative_label_without_an_object_is_refused(annotator):
    with pytest.raises(NoObjectError):
        annotator.send(dot("n", 25, "Negative"), is_negative_label=True)


def test_a_negative_label_does_not_touch_what_was_accepted(annotator):
    annotator.send(dot("a", 20), dot("b", 22))
    annotator.accept("rc-a")
    with pytest.raises(NoObjectError):
        annotator.send(dot("n", 25, "Negative"), is_negative_label=True)


# Labels that step the mask.


def test_each_dot_of_larger_or_smaller_is_a_step_of_the_object_clicked_last(annotator):
    annotator.send(dot("a", 20))
    wheel = annotator.send(dot("w", 80, "Wheel"))
    assert annotator.larger("l1") == replace(wheel, extent=1, step_dots=frozenset({"l1"}))
    assert annotator.larger("l1", "l2").extent == 2
    stepped = annotator.smaller("s1")
    assert (stepped.region_id, stepped.extent, signs(stepped)) == ("rc-w", 1, ["+w"])


def test_with_auto_accept_steps_add_up_although_their_dots_leave_the_canvas(annotator):
    annotator.send(dot("a", 20))
    annotator.accept("rc-a")
    assert [annotator.smaller(name).extent for name in ("s1", "s2")] == [-1, -2]


def test_dragging_or_deleting_a_step_dot_changes_nothing(annotator):
    annotator.send(dot("a", 20), dot("b", 22))
    annotator.larger("l1", "l2")
    dragged = annotator.send(dot("l1", 60, "Larger"), step=1)
    assert (dragged.region_id, dragged.extent) == ("rc-a", 2)


def test_a_further_click_begins_at_the_networks_own_choice_again_and_counts_no_step_twice(annotator):
    annotator.send(dot("a", 20))
    annotator.larger("l1")
    assert annotator.send(dot("a", 20)).extent == 1, "the same clicks once more: the same mask"
    assert annotator.send(dot("a", 20), dot("b", 25)).extent == 0
    assert annotator.larger("l1", "l2").extent == 1


@pytest.mark.parametrize("more", [[dot("b", 22, positive=False)], [box_result("x", 40, 40, 20, 20, "Door")]])
def test_steps_are_forgotten_by_whatever_changes_the_object(annotator, more):
    first = (
        [dot("a", 20)] if more[0]["type"] == "keypointlabels" else [box_result("x", 30, 30, 20, 20, "Door")]
    )
    annotator.send(*first)
    assert annotator.larger("l1").extent == 1
    assert annotator.send(*more).extent == 0


def test_a_step_label_without_an_object_is_refused(annotator):
    with pytest.raises(NoObjectError, match="Larger"):
        annotator.larger("l1")


# Boxes.


def box(name: str, left: float = 40, size: float = 20) -> dict[str, Any]:
    return box_result(name, left, left, size, size, "Door")


def test_a_box_begins_an_object(annotator):
    clicked = annotator.send(box("b"))
    assert (clicked.region_id, clicked.clicks) == ("rc-b", ())
    assert clicked.box == PercentBox(40, 40, 60, 60, "b")


def test_clicks_in_a_box_refine_its_object(annotator):
    annotator.send(box("b"))
    annotator.send(dot("k", 50))
    clicked = annotator.send(dot("k", 50), dot("m", 90, positive=False))
    assert (clicked.region_id, signs(clicked)) == ("rc-b", ["+k", "-m"])
    assert clicked.box == PercentBox(40, 40, 60, 60, "b")
    assert signs(annotator.send(dot("m", 90, positive=False))) == ["-m"], "a deleted dot no longer counts"


def test_a_negative_click_alone_refines_a_box(annotator):
    annotator.send(box("b"))
    clicked = annotator.send(dot("k", 45, positive=False))
    assert (clicked.region_id, signs(clicked)) == ("rc-b", ["-k"])


def test_a_click_beside_a_box_begins_another_object(annotator):
    annotator.send(box("b"))
    clicked = annotator.send(dot("k", 90))
    assert (clicked.region_id, clicked.box) == ("rc-k", None)


def test_two_clicks_at_once_in_a_box_refine_it_unless_it_was_accepted(annotator):
    annotator.send(box("b"))
    inside = [dot("k", 50), dot("m", 52)]
    assert annotator.send(*inside).region_id == "rc-b"
    annotator.accept("rc-b")
    elsewhere = [dot("x", 50), dot("y", 52)]
    assert annotator.send(*elsewhere).region_id == "rc-x"


def test_a_second_box_is_an_object_of_its_own_and_a_moved_one_stays_its_object(annotator):
    annotator.send(box("b"))
    assert annotator.send(box("b"), box("c", 5)).region_id == "rc-c"
    moved = annotator.send(box("b", 45), box("c", 5))
    assert (moved.region_id, moved.box) == ("rc-b", PercentBox(45, 45, 65, 65, "b"))


def test_a_moved_box_keeps_its_clicks(annotator):
    annotator.send(box("b"))
    annotator.send(dot("k", 50))
    assert signs(annotator.send(box("b", 45))) == ["+k"]


# Any of it, in any order.

STEPS = st.lists(
    st.tuples(
        st.sampled_from(["dots", "boxes", "negative"]),
        st.lists(
            st.tuples(st.sampled_from("abc"), st.sampled_from([20, 24, 80]), st.booleans()),
            min_size=1,
            max_size=3,
            unique_by=lambda chosen: chosen[0],
        ),
    ),
    max_size=8,
)


@pytest.mark.slow
@settings(max_examples=400)
@given(STEPS)
def test_a_context_that_is_sent_again_is_the_same_object_after_any_history(steps):
    annotator = Annotator()
    for kind, chosen in steps:
        if kind == "boxes":
            regions = [box(f"box-{name}", at) for name, at, _ in chosen]
        else:
            label = "Negative" if kind == "negative" else "Door"
            regions = [dot(f"{kind}-{name}", at, label, positive=positive) for name, at, positive in chosen]
        try:
            clicked = annotator.send(*regions, is_negative_label=kind == "negative")
        except (NoPositiveClickError, NoObjectError):
            continue
        assert clicked.region_id.startswith("rc-")
        assert len({click.id for click in clicked.clicks}) == len(clicked.clicks)
        assert clicked.negative_label_clicks <= {click.id for click in clicked.clicks}
