"""A database in trouble never fails a click."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from sqlalchemy import Engine, create_engine, event, text

from refcut_backend.clicks.context import read_context
from refcut_backend.clicks.history import LOCK_TIMEOUT_MS, ClickHistory, ClickKey, ClickPolarities
from refcut_backend.clicks.session import ClickedObject, ClickSession
from refcut_backend.database.engine import open_database
from refcut_backend.label_studio import brush_rle
from refcut_backend.label_studio.prompts import Dot, PercentClick
from refcut_backend.label_studio.regions import GivenMask
from tests.support.recorded import click_result

MASK = np.zeros((10, 20), bool)
MASK[0:5, 0:10] = True
GIVEN = GivenMask(20, 10, brush_rle.encode(MASK), 0.5, ())
DOOR = ClickedObject("Door", "image", "rc-a", (PercentClick(10, 10, True, "a"),), single_prompt=True)


@pytest.fixture
def engine(tmp_path) -> Iterator[Engine]:
    opened = open_database(f"sqlite:///{tmp_path / 'refcut.db'}", LOCK_TIMEOUT_MS)
    yield opened
    opened.dispose()


@pytest.fixture
def memory(engine) -> ClickHistory:
    return ClickHistory(engine, 600)


def ask(*, positive: bool | None = True, at_s: float = 50) -> ClickKey:
    context = read_context([click_result("a", 10, 10, "Door", positive=positive)])
    assert context is not None
    return ClickKey(1, 2, context, at_s)


def click(memory: ClickHistory, key: ClickKey, given: GivenMask = GIVEN) -> ClickSession:
    session = memory.session(key, [])
    memory.record(key, DOOR, given, model_version="s14", milliseconds=1)
    return session


@pytest.mark.parametrize(
    ("x", "y", "inside"), [(0, 0, True), (49, 49, True), (51, 10, False), (10, 51, False), (100, 100, False)]
)
def test_a_point_on_the_last_mask_is_distinguished_from_one_beside_it(memory, x, y, inside):
    click(memory, ask())
    assert memory.session(ask(at_s=51), []).on_mask("rc-a", x, y) is inside
    assert not memory.session(ask(at_s=51), []).on_mask("rc-other", x, y)


def test_an_empty_mask_is_logged_and_not_refined(memory, engine):
    click(memory, ask(), GivenMask(20, 10, [], 0, ()))
    assert memory.session(ask(at_s=51), []).objects == []
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT COUNT(*) FROM click_events")) == 1


def test_a_region_that_was_seen_is_accepted_from_then_on(memory):
    click(memory, ask())
    assert [o.accepted for o in memory.session(ask(at_s=51), ["rc-a", "x"]).objects] == [True]
    assert [o.accepted for o in memory.session(ask(at_s=52), None).objects] == [True]


def test_an_accepted_object_whose_region_was_deleted_is_dropped(memory):
    click(memory, ask())
    assert len(memory.session(ask(at_s=51), []).objects) == 1, "it was not accepted yet"
    memory.session(ask(at_s=52), ["rc-a-2"])
    assert len(memory.session(ask(at_s=53), ["rc-a-2"]).objects) == 1, "a piece of it is left"
    assert memory.session(ask(at_s=54), ["x"]).objects == []
    click(memory, ask(at_s=55))
    assert [o.accepted for o in memory.session(ask(at_s=56), []).objects] == [False], "it was clicked anew"


def problems(caplog) -> list[str]:
    return [record.problem for record in caplog.records if record.name == "refcut.click_memory"]


def test_a_locked_database_costs_the_memory_and_not_the_click(memory, engine, caplog):
    click(memory, ask())
    other = create_engine(engine.url)
    with other.connect() as connection:
        connection.execute(text("BEGIN IMMEDIATE"))
        session = click(memory, ask(at_s=51))
        memory.mark_accepted(1, ["rc-a"])
        memory.forget(1, 2)
    other.dispose()
    assert [o.clicked for o in session.objects] == [DOOR], "reading is not hindered"
    assert "database is locked" in problems(caplog)


def test_a_full_disk_costs_the_memory_and_not_the_click(memory, engine, caplog):
    with engine.connect() as connection:
        pages = connection.scalar(text("PRAGMA page_count"))
    engine.dispose()

    @event.listens_for(engine, "connect")
    def _full(connection, _entry) -> None:
        connection.execute(f"PRAGMA max_page_count={pages}")

    noise = np.random.default_rng(0).random((300, 300)) > 0.5
    large = GivenMask(300, 300, brush_rle.encode(noise), 0.5, ())
    click(memory, ask(), large)
    assert "database or disk is full" in problems(caplog)


def test_text_that_no_database_takes_costs_the_memory_and_not_the_click(memory, caplog):
    context = read_context([click_result("\ud800", 10, 10, "Door")])
    assert context is not None
    click(memory, ClickKey(1, 2, context, 50))
    assert problems(caplog) == ["UnicodeEncodeError"] * len(problems(caplog))
    assert problems(caplog)


def test_a_database_without_tables_costs_the_memory_and_not_the_click(tmp_path, caplog):
    bare = create_engine(f"sqlite:///{tmp_path / 'bare.db'}")
    memory = ClickHistory(bare, 600)
    session = click(memory, ask(positive=None))
    memory.forget(1, 2)
    assert (session.objects, session.polarities) == ((), {})
    assert session.on_mask("rc-a", 1, 1) is False
    assert all("no such table" in problem for problem in problems(caplog))
    bare.dispose()


def dots(**polarities: bool | None) -> list[Dot]:
    return [Dot(name, 1, 2, positive) for name, positive in polarities.items()]


def test_the_polarity_of_a_dot_is_known_when_label_studio_has_forgotten_it(engine):
    polarities = ClickPolarities(engine)
    assert polarities.resolve(1, dots(a=True, b=False)) == {}
    assert polarities.resolve(1, dots(a=None, b=None, c=None, d=True)) == {"a": True, "b": False}


def test_polarities_survive_a_restart(tmp_path):
    url = f"sqlite:///{tmp_path / 'refcut.db'}"
    before = open_database(url)
    ClickPolarities(before).resolve(1, dots(b=False))
    before.dispose()
    after = open_database(url)
    assert ClickPolarities(after).resolve(1, dots(b=None)) == {"b": False}
    after.dispose()


def test_the_newest_word_about_a_dot_counts(engine):
    polarities = ClickPolarities(engine)
    polarities.resolve(1, dots(a=False))
    polarities.resolve(1, dots(a=True))
    assert polarities.resolve(1, dots(a=None)) == {"a": True}


def test_dots_of_another_project_are_unknown(engine):
    polarities = ClickPolarities(engine)
    polarities.resolve(1, dots(a=False))
    assert polarities.resolve(2, dots(a=None)) == {}


def test_the_same_dots_from_many_requests_at_once_are_remembered_once(engine):
    polarities = ClickPolarities(engine)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: polarities.resolve(1, dots(a=False, b=True)), range(16)))
    assert polarities.resolve(1, dots(a=None, b=None)) == {"a": False, "b": True}
