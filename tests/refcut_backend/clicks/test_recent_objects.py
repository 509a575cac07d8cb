from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from sqlalchemy import create_engine, text

from refcut_backend.clicks.recent_objects import ClickedObjects, newly_accepted
from refcut_backend.clicks.session import ClickedObject, RememberedObject
from refcut_backend.database.engine import open_database
from refcut_backend.label_studio.prompts import PercentBox, PercentClick
from refcut_backend.label_studio.regions import GivenMask

DOOR = ClickedObject(
    "Door",
    "image",
    "rc-a",
    (PercentClick(1.5, 2.5, True, "a"), PercentClick(3, 4, False, "n")),
    PercentBox(1, 2, 3, 4, "b"),
    frozenset({"n"}),
    single_prompt=True,
)
GIVEN = GivenMask(8, 9, [0, 1, 255], 0.75, ("v1", "v2"))


@pytest.fixture
def objects(engine) -> ClickedObjects:
    return ClickedObjects(engine, memory_s=100)


def remember(
    objects: ClickedObjects, clicked: ClickedObject, at_s: float, task: int = 2, context_key: str = "k"
) -> None:
    objects.remember(1, task, clicked, GIVEN, context_key=context_key, requested_at_s=at_s)


def test_an_object_comes_back_as_it_was(objects):
    stepped = replace(DOOR, extent=-1, step_dots=frozenset({"s", "t"}))
    remember(objects, stepped, 50)
    assert objects.recall(1, 2, 60) == [RememberedObject(stepped, False, 50, "k")]
    assert objects.mask(1, 2, "rc-a") == GIVEN


def test_objects_come_newest_first_and_of_the_task_alone(objects):
    for at_s, name in ((50, "rc-a"), (70, "rc-b"), (60, "rc-c")):
        remember(objects, replace(DOOR, region_id=name), at_s)
    remember(objects, replace(DOOR, region_id="rc-other"), 65, task=3)
    assert [o.clicked.region_id for o in objects.recall(1, 2, 80)] == ["rc-b", "rc-c", "rc-a"]
    assert objects.recall(2, 2, 80) == []
    assert objects.mask(1, 3, "rc-a") is None


def test_further_clicks_replace_what_was_remembered(objects):
    remember(objects, replace(DOOR, extent=2, step_dots=frozenset({"l"})), 50)
    less = replace(
        DOOR, clicks=DOOR.clicks[:1], box=None, negative_label_clicks=frozenset(), single_prompt=False
    )
    remember(objects, less, 60, context_key="l")
    assert objects.recall(1, 2, 60) == [RememberedObject(less, False, 60, "l")]


def test_an_answer_that_took_longer_does_not_replace_a_newer_one(objects):
    remember(objects, replace(DOOR, single_prompt=False), 60)
    remember(objects, DOOR, 50)
    assert objects.recall(1, 2, 60)[0].clicked == replace(DOOR, single_prompt=False)


def test_what_is_too_old_is_not_recalled_and_then_dropped(objects):
    remember(objects, DOOR, 50)
    assert len(objects.recall(1, 2, 150)) == 1
    assert objects.recall(1, 2, 151) == []
    remember(objects, replace(DOOR, region_id="rc-b"), 151)
    assert objects.mask(1, 2, "rc-a") is None


def test_an_accepted_object_stays_accepted(objects):
    remember(objects, DOOR, 50)
    objects.accept(1, 2, ["rc-a", "rc-unknown"])
    remember(objects, DOOR, 60)
    assert objects.recall(1, 2, 60)[0].accepted


def test_a_task_is_forgotten_alone(objects):
    remember(objects, DOOR, 50)
    remember(objects, DOOR, 50, task=3)
    objects.forget(1, 2)
    assert objects.recall(1, 2, 50) == []
    assert len(objects.recall(1, 3, 50)) == 1


def test_clicks_on_one_new_object_at_once_are_all_remembered_as_one(objects):
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda at_s: remember(objects, DOOR, at_s), range(50, 66)))
    assert objects.recall(1, 2, 65)[0].clicked_at_s == 65


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        ([], []),
        (["rc-b", "a"], []),
        (["rc-a"], ["rc-a"]),
        (["rc-a-2"], ["rc-a"]),
        (["rc-a-x"], []),
    ],
)
def test_an_object_is_accepted_when_it_or_a_piece_of_it_has_been_seen(seen, expected):
    assert newly_accepted([RememberedObject(DOOR, False, 1)], seen) == expected
    assert newly_accepted([RememberedObject(DOOR, True, 1)], seen) == []


def test_ids_that_end_in_a_number_are_distinguished_from_pieces():
    one = RememberedObject(replace(DOOR, region_id="rc--1o06-7"), False, 1)
    assert newly_accepted([one], ["rc--1o06-7"]) == ["rc--1o06-7"]
    assert newly_accepted([one], ["rc--1o06-7-3"]) == ["rc--1o06-7"]


OLDER_TABLE = """
CREATE TABLE clicked_objects (
    project_id BIGINT NOT NULL, task_id BIGINT NOT NULL, region_id VARCHAR(120) NOT NULL,
    label VARCHAR(500) NOT NULL, to_name VARCHAR(500) NOT NULL, clicks JSON NOT NULL, box JSON,
    borrowed JSON NOT NULL, lone BOOLEAN NOT NULL, accepted BOOLEAN NOT NULL, asked VARCHAR(16) NOT NULL,
    asked_at_s FLOAT NOT NULL, width INTEGER NOT NULL, height INTEGER NOT NULL, rle BLOB NOT NULL,
    score FLOAT NOT NULL, reference_versions JSON NOT NULL,
    PRIMARY KEY (project_id, task_id, region_id)
)
"""
OLDER_ROW = """
INSERT INTO clicked_objects VALUES (
    1, 2, 'rc-a', 'Door', 'image', '[["a", 1.5, 2.5, true], ["n", 3, 4, false]]', '["b", 1, 2, 3, 4]',
    '["n"]', 1, 0, 'k', 50, 8, 9, X'0001FF', 0.75, '["v1", "v2"]'
)
"""


def test_objects_that_version_0_1_0_remembered_are_recalled_and_replaced(tmp_path):
    url = f"sqlite:///{tmp_path / 'refcut.db'}"
    older = create_engine(url)
    with older.begin() as connection:
        connection.execute(text(OLDER_TABLE))
        connection.execute(text(OLDER_ROW))
    older.dispose()
    engine = open_database(url)
    objects = ClickedObjects(engine, memory_s=100)
    assert objects.recall(1, 2, 60) == [RememberedObject(DOOR, False, 50, "k")]
    assert objects.mask(1, 2, "rc-a") == GIVEN
    remember(objects, replace(DOOR, single_prompt=False), 60)
    assert objects.recall(1, 2, 60)[0].clicked == replace(DOOR, single_prompt=False)
    engine.dispose()
