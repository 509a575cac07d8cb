"""The thread that compares all projects: who runs it, how often, and what it says when something fails."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from itertools import pairwise

import pytest

from refcut_backend.database.leases import LeaseHolder
from refcut_backend.errors import RefCutError
from refcut_backend.references import reconcile_loop
from refcut_backend.references.reconcile import ComparisonResult, Reconciler
from refcut_backend.references.reconcile_loop import LEASE, ReconcileThread
from tests.support.label_studio_api import LabelStudioApi, serving
from tests.support.registry import DOOR, Registry, marked

WAIT_LIMIT_S = 60


class CountingReconciler(Reconciler):
    """Compares nothing, counts, and fails when asked to."""

    def __init__(self) -> None:
        self.asked_for: list[int] = []
        self.fails: dict[int, Exception] = {}

    def compare(self, project_id: int) -> ComparisonResult:
        self.asked_for.append(project_id)
        if project_id in self.fails:
            raise self.fails[project_id]
        return ComparisonResult()


class Clock:
    time = 0.0

    def __call__(self) -> float:
        return self.time


def thread_for(
    registry: Registry,
    reconciler: Reconciler,
    interval_s: float = 60,
    clock: Callable[[], float] = time.monotonic,
) -> ReconcileThread:
    lease = LeaseHolder(registry.engine, LEASE, 30)
    return ReconcileThread(reconciler, registry.projects, registry.sync_states, lease, interval_s, clock)


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_LIMIT_S
    while not is_so():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def test_a_lost_webhook_is_found_within_one_interval(registry):
    with serving(LabelStudioApi()) as api:
        registry.connect(api)
        thread = thread_for(registry, registry.reconciler, interval_s=1)
        thread.start()
        try:
            wait_until(lambda: "/api/tasks/" in api.requests)
            api.annotate(1, 10, DOOR, marked(DOOR))
            wait_until(lambda: registry.in_use() == [1])
            api.delete_annotation(1)
            wait_until(lambda: registry.in_use() == [])
        finally:
            thread.stop()


def test_one_of_two_web_processes_compares_and_the_other_takes_over_when_it_stops(registry):
    registry.connect(unasked_api())
    first, second = CountingReconciler(), CountingReconciler()
    leader, other = thread_for(registry, first), thread_for(registry, second)
    leader.round()
    other.round()
    leader.round()
    assert (first.asked_for, second.asked_for) == ([7, 7], [])
    leader.stop()
    other.round()
    assert second.asked_for == [7]


def unasked_api() -> LabelStudioApi:
    """A project that is known, on a Label Studio that nobody asks."""
    return LabelStudioApi()


def test_a_project_that_was_just_set_up_is_compared_at_once_by_whoever_heard_of_it(registry):
    registry.connect(unasked_api())
    leader = thread_for(registry, CountingReconciler())
    leader.round()
    heard = CountingReconciler()
    thread = thread_for(registry, heard)
    thread.soon(7)
    thread.round()
    assert heard.asked_for == [7]


def test_an_interval_of_zero_compares_only_what_was_asked_for(registry):
    registry.connect(unasked_api())
    reconciler = CountingReconciler()
    thread = thread_for(registry, reconciler, interval_s=0)
    thread.start()
    try:
        thread.soon(7)
        wait_until(lambda: bool(reconciler.asked_for))
    finally:
        thread.stop()
    assert reconciler.asked_for == [7]


def test_a_project_in_trouble_is_tried_ever_more_rarely_and_its_reason_is_logged_once(registry, caplog):
    for project in (7, 8):
        registry.connect(LabelStudioApi(project))
    reconciler, clock = CountingReconciler(), Clock()
    reconciler.fails = {7: RefCutError("refused", hint="set a token")}
    thread = thread_for(registry, reconciler, interval_s=60, clock=clock)
    rounds_with_7 = []
    for number in range(60):
        reconciler.asked_for.clear()
        thread.round()
        assert 8 in reconciler.asked_for
        if 7 in reconciler.asked_for:
            rounds_with_7.append(number)
        clock.time += 60
    pauses = [later - earlier for earlier, later in pairwise(rounds_with_7)]
    assert pauses == sorted(pauses)
    assert 2 <= pauses[0] <= 3
    assert pauses[-1] <= 34
    problems = [record.problem for record in caplog.records if "cannot be compared" in record.message]
    assert problems == ["refused; set a token"]


def test_the_thread_survives_whatever_a_comparison_raises(registry, caplog):
    registry.connect(unasked_api())
    reconciler = CountingReconciler()
    reconciler.fails = {7: RuntimeError("a bug")}
    thread = thread_for(registry, reconciler, interval_s=0.05)  # type: ignore[arg-type]
    thread.start()
    try:
        wait_until(lambda: len(reconciler.asked_for) > 2)
    finally:
        thread.stop()
    assert "a bug" in caplog.text


def test_a_project_whose_comparison_has_a_bug_does_not_keep_others_from_being_compared(registry, caplog):
    for project in (7, 8):
        registry.connect(LabelStudioApi(project))
    reconciler = CountingReconciler()
    reconciler.fails = {7: AttributeError("canary")}
    thread_for(registry, reconciler).round()
    assert reconciler.asked_for == [7, 8]
    problems = [record.problem for record in caplog.records if "cannot be compared" in record.message]
    assert problems == ["AttributeError"]


class HangingReconciler(CountingReconciler):
    """Hangs in some projects until it is released."""

    def __init__(self, *hanging: int) -> None:
        super().__init__()
        self.hanging = set(hanging)
        self.released = threading.Event()

    def compare(self, project_id: int) -> ComparisonResult:
        result = super().compare(project_id)
        if project_id in self.hanging:
            self.released.wait(WAIT_LIMIT_S)
        return result


@pytest.fixture
def impatient(monkeypatch) -> None:
    monkeypatch.setattr(reconcile_loop, "SLOW_AFTER_S", 0.2)


@pytest.mark.usefixtures("impatient")
def test_projects_whose_label_studio_hangs_hold_up_no_other(registry):
    hanging = range(1, 8)
    for project in range(1, 11):
        registry.connect(LabelStudioApi(project))
    reconciler = HangingReconciler(*hanging)
    thread = thread_for(registry, reconciler)
    try:
        for _ in range(2):
            thread.round()
        asked = Counter(reconciler.asked_for)
        assert asked == dict.fromkeys(hanging, 1) | dict.fromkeys((8, 9, 10), 2)
        reconciler.released.set()
        wait_until(lambda: not thread._comparisons._started)
        thread.round()
        assert set(Counter(reconciler.asked_for).values()) == {2, 3}
    finally:
        reconciler.released.set()
        thread.stop()


@pytest.mark.usefixtures("impatient")
def test_every_project_has_its_turn_where_slow_ones_leave_no_room(registry, monkeypatch):
    monkeypatch.setattr(reconcile_loop, "MAX_RUNNING", 2)
    for project in range(1, 7):
        registry.connect(LabelStudioApi(project))
    reconciler = HangingReconciler(1, 2, 3, 4)
    thread = thread_for(registry, reconciler)
    try:
        thread.round()
        assert set(reconciler.asked_for) == {1, 2}
        reconciler.released.set()
        wait_until(lambda: not thread._comparisons._started)
        thread.round()
        assert set(reconciler.asked_for[2:4]) == {3, 4}
    finally:
        reconciler.released.set()
        thread.stop()


@pytest.mark.usefixtures("impatient")
def test_a_project_that_is_requested_while_it_is_compared_is_compared_once_more(registry):
    registry.connect(unasked_api())
    reconciler = HangingReconciler(7)
    thread = thread_for(registry, reconciler, interval_s=0)
    thread.start()
    try:
        thread.soon(7)
        wait_until(lambda: reconciler.asked_for == [7])
        thread.soon(7)
        time.sleep(0.5)
        assert reconciler.asked_for == [7]
        reconciler.released.set()
        wait_until(lambda: reconciler.asked_for == [7, 7])
    finally:
        reconciler.released.set()
        thread.stop()


@pytest.mark.usefixtures("impatient")
def test_without_an_interval_a_request_for_which_there_is_no_room_is_kept(registry, monkeypatch):
    monkeypatch.setattr(reconcile_loop, "MAX_RUNNING", 1)
    for project in (1, 2):
        registry.connect(LabelStudioApi(project))
    reconciler = HangingReconciler(1)
    thread = thread_for(registry, reconciler, interval_s=0)
    for project in (1, 2):
        thread.soon(project)
    thread.start()
    try:
        wait_until(lambda: reconciler.asked_for == [1])
        time.sleep(0.5)
        assert reconciler.asked_for == [1]
        reconciler.released.set()
        wait_until(lambda: reconciler.asked_for == [1, 2])
    finally:
        reconciler.released.set()
        thread.stop()
