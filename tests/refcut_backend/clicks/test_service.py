"""Whole conversations between Label Studio and the backend; only the worker is fake."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, select, text
from sqlalchemy.orm import Session

from refcut_backend.clicks.history import ClickHistory
from refcut_backend.clicks.log import ClickLog
from refcut_backend.clicks.options import AnswerRules
from refcut_backend.clicks.service import ClickService
from refcut_backend.database.click_tables import ClickEvent
from refcut_backend.database.engine import open_database
from refcut_backend.errors import ClickTimeoutError
from refcut_backend.label_studio.label_config import MASK_KINDS
from refcut_backend.label_studio.payloads import Webhook
from refcut_backend.logs import collect_fields
from refcut_backend.references.owner_rules import read_extra_params
from refcut_backend.references.registry import References
from tests.support import squares
from tests.support.one_version import OneVersion
from tests.support.recorded import LABEL_CONFIG, box_result, click_result, recorded
from tests.support.squares import HEIGHT, WIDTH, Editor, SquareQueue, mask_of

NEGATIVE_CONFIG = LABEL_CONFIG.replace(
    '<Label value="Door" background="#1f77b4" model_index="0"/>',
    '<Label value="Background"/><Label value="Door" background="#1f77b4"/>',
    1,
)
BOX_CONFIG = LABEL_CONFIG.replace(
    "<Header",
    '<RectangleLabels name="box" toName="image" smart="true"><Label value="Door"/></RectangleLabels><Header',
    1,
)


THREE_BOXES = BOX_CONFIG.replace(
    '<Label value="Door"/></RectangleLabels>',
    '<Label value="Door"/><Label value="Wheel"/><Label value="Hood"/></RectangleLabels>',
)


class Clock:
    """Seconds go by when a test says so, and a little between any two clicks."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        self.now_s += 0.01
        return self.now_s


@pytest.fixture
def engine(tmp_path) -> Iterator[Engine]:
    opened = open_database(f"sqlite:///{tmp_path / 'refcut.db'}")
    yield opened
    opened.dispose()


@pytest.fixture
def queue() -> SquareQueue:
    return SquareQueue()


@pytest.fixture
def clock() -> Clock:
    return Clock()


def make_service(engine: Engine, queue: SquareQueue, clock: Clock, **rules: Any) -> ClickService:
    return ClickService(
        queue,
        References(engine),
        OneVersion("s14-test"),
        AnswerRules(**rules),
        ClickHistory(engine, 600),
        clock,
    )


@pytest.fixture
def service(engine, queue, clock) -> ClickService:
    return make_service(engine, queue, clock)


@pytest.fixture
def editor(service) -> Editor:
    return Editor(service)


def dot(
    name: str, x: float, label: str = "Door", *, y: float = 50, positive: bool | None = True
) -> dict[str, Any]:
    return click_result(name, x, y, label, positive=positive)


# Polarity.


def test_a_negative_dot_is_still_negative_after_the_page_was_loaded_again(editor, queue):
    for step in recorded("ui_s10_negative_lost_after_reload"):
        if "backend_received" in step:
            body = step["backend_received"]["body"]
            editor.label_config = body["label_config"]
            editor.send(*body["params"]["context"]["result"])
    assert [[click.positive for click in job.clicks] for job in queue.jobs] == [
        [True],
        [True, False],
        [True, False, True],
    ]


def test_polarity_survives_a_restart_of_the_web_process(editor, engine, queue, clock):
    editor.send(dot("a", 20), dot("b", 30, positive=False))
    restarted = Editor(make_service(engine, queue, clock))
    restarted.send(dot("a", 20, positive=None), dot("b", 30, positive=None), dot("c", 40))
    assert [click.positive for click in queue.jobs[-1].clicks] == [True, False, True]


# The list says it.


def test_dragging_deleting_and_repeating_dots_gives_what_the_list_says(editor, service):
    def masks(*regions: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
        alone = Editor(service, task=4)
        alone.send()
        (first,), (second,) = squares.given(alone.send(*regions)), squares.given(editor.send(*regions))
        assert first == second
        return mask_of(alone.send(*regions), first), mask_of(editor.send(*regions), second)

    for regions in (
        [dot("a", 20), dot("b", 40)],
        [dot("a", 30), dot("b", 40)],
        [dot("a", 30), dot("b", 40), dot("c", 90)],
        [dot("b", 40), dot("c", 90)],
        [dot("b", 40), dot("b", 45), dot("c", 90)],
    ):
        assert np.array_equal(*masks(*regions))


def test_the_same_request_twice_gives_the_same_answer(editor):
    for regions in (
        [dot("a", 20)],
        [dot("b", 22, positive=False)],
        [dot("w", 70, "Wheel")],
        [dot("w", 70, "Wheel"), dot("x", 75, "Wheel")],
    ):
        assert editor.send(*regions) == editor.send(*regions)


# "Auto accept".


def test_with_auto_accept_single_clicks_refine_the_last_mask_and_keep_its_id(editor, queue):
    editor.send(dot("a", 20))
    assert squares.given(editor.send(dot("b", 28))) == {"rc-a": "Door"}
    assert squares.given(editor.send(dot("c", 36))) == {"rc-a": "Door"}, "inside the mask as it is by now"
    reply = editor.send(dot("d", 20, positive=False))
    assert squares.given(reply) == {"rc-a": "Door"}
    assert [click.id for click in queue.jobs[-1].clicks] == ["a", "b", "c", "d"]
    assert not mask_of(reply, "rc-a")[HEIGHT // 2, WIDTH // 5]


def test_with_auto_accept_a_click_elsewhere_begins_another_object(editor):
    editor.send(dot("a", 20))
    assert squares.given(editor.send(dot("b", 60))) == {"rc-b": "Door"}


def test_the_recorded_auto_accept_session_refines_one_cat_and_begins_a_dog(editor, queue):
    ids = []
    for step in recorded("ui_s2_auto_accept_stable_id"):
        if "backend_received" in step:
            body = step["backend_received"]["body"]
            editor.label_config = body["label_config"]
            ids.append(next(iter(squares.given(editor.send(*body["params"]["context"]["result"])))))
    assert ids == ["rc-CJN7m2RO5f"] * 3 + ["rc-uluhZ-Y9qw"]
    assert [len(job.clicks) for job in queue.jobs] == [1, 2, 3, 1]


def test_single_clicks_go_on_in_another_web_process(editor, engine, queue, clock):
    editor.send(dot("a", 20))
    other = Editor(make_service(engine, queue, clock))
    assert squares.given(other.send(dot("b", 25))) == {"rc-a": "Door"}


def test_single_clicks_do_not_go_on_with_what_is_too_old_or_was_submitted(editor, clock):
    editor.send(dot("a", 20))
    clock.now_s += 601
    assert squares.given(editor.send(dot("b", 25))) == {"rc-b": "Door"}
    editor.send()
    assert squares.given(editor.send(dot("c", 25))) == {"rc-c": "Door"}


def test_a_negative_click_without_an_object_gives_an_empty_answer_with_its_reason(editor, queue):
    reply = editor.send(dot("a", 20, positive=False))
    assert (reply.reason, reply.prediction["result"]) == ("no_positive_click", [])
    assert queue.jobs == []


def test_a_click_that_was_not_answered_is_not_refined(editor, queue):
    queue.fails_with = ClickTimeoutError("no worker")
    assert editor.send(dot("a", 20)).reason == "timeout"
    queue.fails_with = None
    assert squares.given(editor.send(dot("b", 25))) == {"rc-b": "Door"}


def test_clicks_that_leave_nothing_are_an_empty_answer_with_its_reason(editor):
    editor.send(dot("a", 20))
    reply = editor.send(dot("b", 20, positive=False))
    assert (reply.reason, reply.prediction["result"]) == ("empty_mask", [])
    assert squares.given(editor.send(dot("c", 28))) == {"rc-a": "Door"}, (
        "the mask on the canvas is still the last"
    )


def test_jobs_name_all_dots_of_their_own_canvas_so_that_newer_ones_take_over(editor, queue):
    editor.send(dot("a", 20), dot("b", 25))
    assert queue.jobs[-1].click_ids == ("a", "b")


def test_promise_2_single_clicks_that_join_one_object_never_cancel_each_other(editor, queue):
    editor.send(dot("a", 20))
    editor.send(dot("b", 25))
    editor.send(dot("c", 22))
    assert [len(job.clicks) for job in queue.jobs] == [1, 2, 3]
    ids = [set(job.click_ids) for job in queue.jobs]
    assert ids == [{"a"}, {"b"}, {"c"}]


# What else is in an answer: only what the request itself shows to be on the asking browser's canvas.


def test_masks_of_other_labels_do_not_come_along_because_no_request_shows_them(editor):
    editor.send(dot("a", 20))
    assert squares.given(editor.send(dot("w", 60, "Wheel"))) == {"rc-w": "Wheel"}
    assert squares.given(editor.send(dot("a", 20), dot("b", 80))) == {"rc-a": "Door"}


def test_a_rejected_mask_does_not_come_back_even_with_a_click_that_fails(editor, queue):
    """The annotator throws the mask away; no request tells, and the next click is of another label."""
    editor.send(dot("a", 20))
    queue.fails_with = ClickTimeoutError("no worker")
    reply = editor.send(dot("w", 60, "Wheel"))
    assert (reply.reason, squares.given(reply)) == ("timeout", {})
    queue.fails_with = None
    assert squares.given(editor.send(dot("w", 60, "Wheel"))) == {"rc-w": "Wheel"}


LABELS = ("Door", "Wheel", "Hood")
UNUSED_TASKS = itertools.count(10)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(
    st.lists(
        st.tuples(
            st.sampled_from("pq"),
            st.sampled_from(LABELS),
            st.integers(0, 20),
            st.sampled_from(["dot", "box", "reject", "fails"]),
        ),
        min_size=2,
        max_size=12,
    ),
)
def test_an_answer_holds_only_masks_whose_prompts_the_request_has_whoever_else_works_on_the_task(
    service, queue, steps
):
    """Two annotators click, draw boxes, and reject what they have, on one task, in any order and with any label.

    They do not click on the same place, not even after a rejection: a single dot on a mask refines that mask.
    """
    rows = {who: iter((52, 75, 98)) for who in "pq"}
    assume(all([(step[0], step[3]) for step in steps].count((who, "reject")) < 3 for who in rows))
    row = {who: next(rows[who]) for who in rows}
    task = next(UNUSED_TASKS)  # all examples share one database
    canvases: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for number, (who, label, x, what) in enumerate(steps):
        kind = "box" if what == "box" else "dot"
        on_canvas = canvases.setdefault((who, label, kind), [])
        if what == "reject":
            for other in LABELS:
                canvases[who, other, "dot"] = canvases[who, other, "box"] = []
            row[who] = next(rows[who])
            continue
        name = f"{who}-{task}-{number}"
        x += 15 if who == "p" else 65
        new = box_result(name, x / 2, 10, 20, 30, label) if kind == "box" else dot(name, x, label, y=row[who])
        canvases[who, label, kind] = [*on_canvas, new]
        queue.fails_with = ClickTimeoutError("no worker") if what == "fails" else None
        sent = canvases[who, label, kind]
        reply = Editor(service, task=task, label_config=THREE_BOXES).send(*sent)
        shown = {f"rc-{region['id']}" for region in sent}
        assert squares.given(reply).keys() <= shown
    queue.fails_with = None


def test_promise_2_two_annotators_on_one_task_are_both_answered_with_their_own_clicks(service):
    def annotate(name: str, x: float) -> list[dict[str, str]]:
        editor = Editor(service)
        dots = [dot(f"{name}{number}", x + number) for number in range(4)]
        return [squares.given(editor.send(*dots[:count])) for count in range(2, 5)]

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(annotate, ("p", "q"), (10, 80))
    assert first == [{"rc-p0": "Door"}] * 3
    assert second == [{"rc-q0": "Door"}] * 3


# Labels that step the mask.


def test_a_dot_of_larger_asks_for_the_next_larger_mask_of_the_object_and_answers_with_its_region(
    editor, queue
):
    editor.send(dot("a", 20))
    reply = editor.send(dot("l", 95, "Larger"))
    assert squares.given(reply) == {"rc-a": "Door"}
    assert mask_of(reply, "rc-a").sum() > mask_of(editor.send(dot("s", 96, "Smaller")), "rc-a").sum()
    assert [(job.label, [click.id for click in job.clicks], job.extent) for job in queue.jobs] == [
        ("Door", ["a"], 0),
        ("Door", ["a"], 1),
        ("Door", ["a"], 0),
    ]


def test_steps_beyond_the_largest_mask_need_no_steps_back(editor, queue):
    editor.send(dot("a", 20))
    for name in ("l1", "l2", "l3"):
        editor.send(dot(name, 95, "Larger"))
    editor.send(dot("s", 95, "Smaller"))
    assert queue.jobs[-1].extent == 0, "the squares have one larger mask"


def test_a_dot_of_smaller_without_an_object_is_an_empty_answer_with_its_reason(editor):
    assert editor.send(dot("s", 45, "Smaller")).reason == "no_object"


def test_the_extra_parameters_say_which_pieces_of_a_labels_masks_stay(editor, queue, engine):
    References(engine).rules.replace_extra_params(7, read_extra_params({"pieces": {"Door": "all"}}))
    editor.send(dot("a", 20))
    editor.send(dot("w", 80, "Wheel"))
    assert [(job.label, job.pieces) for job in queue.jobs] == [("Door", "all"), ("Wheel", "auto")]


# A negative label.


def test_dots_of_the_label_background_and_alt_clicks_both_take_away(service, queue):
    editor = Editor(service, label_config=NEGATIVE_CONFIG)
    editor.send(dot("a", 20), dot("b", 40), dot("alt", 12, positive=False))
    reply = editor.send(dot("n", 45, "Background"))
    assert squares.given(reply) == {"rc-a": "Door"}
    assert [(click.id, click.positive) for click in queue.jobs[-1].clicks] == [
        ("a", True),
        ("b", True),
        ("alt", False),
        ("n", False),
    ]
    assert queue.jobs[-1].label == "Door"


def test_a_dot_of_a_negative_label_without_an_object_is_an_empty_answer_with_its_reason(service):
    editor = Editor(service, label_config=NEGATIVE_CONFIG)
    assert editor.send(dot("n", 45, "Background")).reason == "no_object"


def test_a_label_called_background_that_takes_masks_is_a_label_like_any_other(service):
    body = recorded("predict_interactive_3clicks_full")["body"]
    editor = Editor(service, label_config=body["label_config"])
    background = dot("n", 45, "Background") | {"from_name": "tag2"}
    assert squares.given(editor.send(background)) == {"rc-n": "Background"}


# Boxes.


def test_a_box_gives_a_mask_that_clicks_refine(service, queue):
    editor = Editor(service, label_config=BOX_CONFIG)
    assert squares.given(editor.send(box_result("b", 20, 20, 40, 40, "Door"))) == {"rc-b": "Door"}
    assert squares.given(editor.send(dot("k", 30, y=30, positive=False))) == {"rc-b": "Door"}
    assert queue.jobs[-1].box is not None
    assert queue.jobs[-1].click_ids == ("k",)
    assert squares.given(editor.send(dot("far", 90))) == {"rc-far": "Door"}


FIRST_BOX, SECOND_BOX = (box_result(name, x, 20, 20, 40, "Door") for name, x in (("b", 10), ("c", 60)))


def test_a_second_box_keeps_the_first_ones_mask_as_long_as_its_box_is_there(service, queue):
    editor = Editor(service, label_config=BOX_CONFIG)
    first = editor.send(FIRST_BOX)
    both = editor.send(FIRST_BOX, SECOND_BOX)
    assert squares.given(both) == {"rc-c": "Door", "rc-b": "Door"}
    assert np.array_equal(mask_of(both, "rc-b"), mask_of(first, "rc-b"))
    assert squares.given(editor.send(SECOND_BOX)) == {"rc-c": "Door"}
    queue.fails_with = ClickTimeoutError("no worker")
    reply = editor.send(FIRST_BOX, box_result("d", 60, 20, 30, 40, "Door"))
    assert (reply.reason, squares.given(reply)) == ("timeout", {"rc-b": "Door"})


@pytest.mark.parametrize("ending", ["seen", "submitted", "old", "off", "another task"])
def test_the_first_boxs_mask_does_not_come_along_when_it_is_accepted_or_old_or_elsewhere(
    engine, queue, clock, ending
):
    rules = {"pending_s": 0} if ending == "off" else {}
    service = make_service(engine, queue, clock, **rules)
    editor = Editor(service, label_config=BOX_CONFIG)
    editor.send(FIRST_BOX)
    if ending == "submitted":
        assert editor.send().reason == "no_clicks"
    if ending == "old":
        clock.now_s += 121
    if ending == "another task":
        editor = Editor(service, task=4, label_config=BOX_CONFIG)
    seen = ["rc-b"] if ending == "seen" else []
    assert squares.given(editor.send(FIRST_BOX, SECOND_BOX, seen=seen)) == {"rc-c": "Door"}


def test_a_pending_mask_whose_tag_was_renamed_comes_along_under_the_new_name_and_one_without_its_label_not(
    service,
):
    editor = Editor(service, label_config=BOX_CONFIG)
    editor.send(FIRST_BOX)
    editor.label_config = BOX_CONFIG.replace('BrushLabels name="brush"', 'BrushLabels name="mask"')
    reply = editor.send(FIRST_BOX, SECOND_BOX)
    assert {region["from_name"] for region in reply.prediction["result"]} == {"mask"}
    assert len(reply.prediction["result"]) == 2


# What comes back.


@pytest.mark.parametrize("kind", MASK_KINDS)
def test_masks_come_back_as_what_the_config_has(engine, queue, clock, kind):
    tag = {"brush": "BrushLabels", "polygon": "PolygonLabels", "rectangle": "RectangleLabels"}[kind]
    config = LABEL_CONFIG.replace("BrushLabels", tag)
    reply = Editor(make_service(engine, queue, clock), label_config=config).send(dot("a", 20))
    (region,) = reply.prediction["result"]
    assert region["type"] == tag.lower()
    assert region["value"][region["type"]] == ["Door"]


def test_a_setting_says_which_kind_is_preferred(engine, queue, clock):
    brush = LABEL_CONFIG[LABEL_CONFIG.index("<BrushLabels") : LABEL_CONFIG.index("</BrushLabels>")]
    polygon = brush.replace("BrushLabels", "PolygonLabels").replace('"brush"', '"polygon"')
    config = LABEL_CONFIG.replace("<BrushLabels", f"{polygon}</PolygonLabels><BrushLabels", 1)
    for kind, expected in (("brush", "brush"), ("polygon", "polygon"), ("rectangle", "brush")):
        editor = Editor(make_service(engine, queue, clock, mask_output=kind), label_config=config)
        (region,) = editor.send(dot("a", 20), dot("b", 30)).prediction["result"]
        assert region["from_name"] == expected


COORDINATE = st.one_of(
    st.floats(), st.integers(-1000, 1000), st.sampled_from(["12", "left", None, True, [], 10**400])
)
SIZE = st.one_of(st.none(), st.integers(-5, 10**9), st.text(max_size=3), st.floats())


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(
    st.lists(st.tuples(COORDINATE, COORDINATE, SIZE, SIZE), min_size=1, max_size=4),
    st.sampled_from(["keypointlabels", "rectanglelabels"]),
)
def test_promise_24_whatever_a_click_says_the_answer_has_the_images_true_size_or_a_reason(
    service, places, kind
):
    regions = []
    for number, (x, y, width, height) in enumerate(places):
        region = click_result(f"c{number}", x, y, "Door") | {"type": kind, "original_width": width}
        region["original_height"] = height
        region["value"] |= {"height": width, kind: ["Door"]}
        regions.append(region)
    reply = Editor(service).send(*regions)
    assert reply.reason is not None or reply.prediction["result"]
    assert {(r["original_width"], r["original_height"]) for r in reply.prediction["result"]} <= {
        (WIDTH, HEIGHT)
    }


@pytest.mark.parametrize(
    ("shown", "reason"), [((WIDTH, HEIGHT), None), ((HEIGHT, WIDTH), "orientation"), ((7, 9), None)]
)
def test_an_image_that_the_browser_shows_turned_by_a_quarter_is_a_reason_and_no_mask(editor, shown, reason):
    width, height = shown
    with collect_fields() as facts:
        reply = editor.send(dot("a", 20) | {"original_width": width, "original_height": height})
    assert reply.reason == reason
    assert bool(reply.prediction["result"]) == (reason is None)
    assert ("upright and without its orientation mark" in str(facts.get("problem"))) == (reason is not None)


def test_promise_24_five_hundred_clicks_are_refused_with_the_limit_as_reason(editor):
    with collect_fields() as facts:
        reply = editor.send(*(dot(str(number), number % 100) for number in range(500)))
    assert reply.reason == "bad_request"
    assert "200 is the limit" in facts["problem"]


# Promise 25: label configs that do not fit.

TWO_IMAGES = LABEL_CONFIG.replace(
    "</View>",
    """<Image name="second" value="$second"/>
  <KeyPointLabels name="click2" toName="second" smart="true"><Label value="Door"/></KeyPointLabels>
  <BrushLabels name="brush2" toName="second" smart="false"><Label value="Door"/></BrushLabels></View>""",
)


def test_promise_25_each_of_two_image_tags_is_answered_on_its_own(service, queue):
    editor = Editor(service, label_config=TWO_IMAGES)
    on_second = dot("b", 20) | {"to_name": "second", "from_name": "click2"}
    (region,) = editor.send(on_second).prediction["result"]
    assert (region["from_name"], region["to_name"]) == ("brush2", "second")
    reply = editor.send(dot("a", 20))
    assert reply.prediction["result"][0]["to_name"] == "image"
    assert [job.image_address for job in queue.jobs] == ["/data/upload/1/b.jpg", "/data/upload/1/a.jpg"]


def test_promise_25_a_label_without_a_brush_on_one_image_says_so_and_the_other_image_works(service):
    editor = Editor(service, label_config=TWO_IMAGES.replace('<Label value="Door"/></Brush', "</Brush"))
    on_second = dot("b", 20) | {"to_name": "second", "from_name": "click2"}
    with collect_fields() as facts:
        assert editor.send(on_second).reason == "label_config"
    assert "'Door'" in facts["problem"]
    assert "'second'" in facts["problem"]
    assert squares.given(editor.send(dot("a", 20))) == {"rc-a": "Door"}


def test_promise_25_renamed_tags_and_labels_work_with_the_next_click(editor):
    editor.send(dot("a", 20), dot("b", 30))
    editor.label_config = LABEL_CONFIG.replace('name="brush"', 'name="masks"').replace("Door", "Gate")
    (region,) = editor.send(dot("c", 20, "Gate")).prediction["result"]
    assert (region["from_name"], region["value"]["brushlabels"]) == ("masks", ["Gate"])


@pytest.mark.parametrize(
    "label_config", ["<View/>", "", "no xml", "<View><Image name='image' value='$i'/></View>"]
)
def test_promise_25_a_config_that_cannot_work_is_a_reason_and_no_exception(service, label_config):
    reply = Editor(service, label_config=label_config).send(dot("a", 20))
    assert (reply.reason, reply.prediction["result"]) == ("label_config", [])


# Trouble with the database.


def test_a_registry_that_cannot_be_read_is_a_reason_and_no_mask_of_something_else(service, engine, queue):
    with engine.begin() as connection:
        connection.execute(text('DROP TABLE "references"'))
    with collect_fields() as facts:
        reply = Editor(service).send(dot("a", 20))
    assert (reply.reason, reply.prediction["result"], queue.jobs) == ("database", [], [])
    assert "REFCUT_DATABASE_URL" in facts["problem"]


# The log of clicks.


def events(engine: Engine) -> list[ClickEvent]:
    with Session(engine) as session:
        return list(session.scalars(select(ClickEvent).order_by(ClickEvent.id)))


def test_every_answered_click_is_logged_and_others_are_not(editor, engine, queue):
    editor.send(dot("a", 20))
    editor.send(dot("a", 20), dot("b", 30, positive=False))
    queue.fails_with = ClickTimeoutError("no worker")
    editor.send(dot("a", 20), dot("b", 30, positive=False), dot("c", 40))
    editor.send()
    first, second = events(engine)
    assert (first.project_id, first.task_id, first.label, first.region_id) == (7, 3, "Door", "rc-a")
    assert second.clicks == [["a", 20, 50, True], ["b", 30, 50, False]]
    assert (second.model_version, second.reference_versions) == ("s14-test", ["v1"])
    assert second.milliseconds >= 0


def test_masks_in_a_submitted_annotation_are_counted_with_their_clicks(editor, service, engine):
    editor.send(dot("a", 20))
    editor.send(dot("a", 20), dot("b", 30))
    editor.send(dot("w", 60, "Wheel"))
    for cancelled, ids in ((True, ["rc-w"]), (False, ["rc-a", "by hand"])):
        body = {
            "action": "ANNOTATION_CREATED",
            "project": {"id": 7},
            "annotation": {
                "id": 1,
                "result": [{"id": region_id} for region_id in ids],
                "was_cancelled": cancelled,
            },
        }
        service.follow(Webhook.model_validate(body))
    (cost,) = ClickLog(engine).clicks_per_mask(7)
    assert (cost.label, cost.masks, cost.clicks_per_mask) == ("Door", 1, 2)


def test_a_prediction_carries_the_version_that_computed_it(editor, queue, clock, engine):
    class Switched(SquareQueue):
        def ask(self, job):
            return dataclasses.replace(super().ask(job), model_version="s14-new")

    service = make_service(engine, Switched(), clock)
    reply = Editor(service).send(dot("a", 50))
    assert reply.prediction["model_version"] == "s14-new"
    assert editor.send().prediction["model_version"] == "s14-test"
