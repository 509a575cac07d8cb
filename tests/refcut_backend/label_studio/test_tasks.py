from __future__ import annotations

from collections.abc import Iterable, Iterator

import httpx
import pytest
from label_studio_sdk.base_client import LabelStudioBase

from refcut_backend.label_studio.connection import Connection
from refcut_backend.label_studio.payloads import ListedTask, Timestamp, Webhook
from refcut_backend.label_studio.tasks import (
    AnnotationSource,
    ApiAnnotations,
    GoneError,
    ProjectOverview,
    SourceError,
    TaskRange,
    UnreadableError,
    open_source,
)
from tests.support.label_studio_api import TOKEN, LabelStudioApi, serving
from tests.support.registry import DOOR, WHEEL, marked


@pytest.fixture
def label_studio() -> Iterator[LabelStudioApi]:
    with serving(LabelStudioApi()) as api:
        yield api


@pytest.fixture
def source(label_studio: LabelStudioApi) -> Iterator[AnnotationSource]:
    opened = open_source(7, label_studio.connection)
    yield opened
    opened.close()


def test_an_overview_has_the_newest_change_and_counts(source, label_studio):
    assert source.overview() == ProjectOverview(Timestamp(), 0, 0)
    label_studio.add_task(10)
    label_studio.annotate(1, 20, DOOR)
    label_studio.add_task(30)
    label_studio.annotate(2, 10, DOOR)
    label_studio.annotations[2]["was_cancelled"] = True
    assert source.overview() == ProjectOverview(label_studio.tasks[10]["updated_at"], 3, 1)


def test_tasks_up_to_an_id_are_counted(source, label_studio):
    assert source.tasks_up_to(None) == TaskRange(0, 0)
    for number in (10, 20, 30):
        label_studio.add_task(number)
    assert source.tasks_up_to(None) == TaskRange(30, 3)
    label_studio.delete_task(10)
    assert source.tasks_up_to(25) == TaskRange(25, 1)


def test_emptied_tasks_are_those_without_annotations_that_changed(source, label_studio):
    label_studio.add_task(10)
    for number in (20, 30, 40, 50):
        label_studio.annotate(number, number, DOOR)
    since = label_studio.tasks[50]["updated_at"]
    for number in (20, 40):
        label_studio.delete_annotation(number)
    assert ids(source.emptied_since(since, 30)) == [20]


def ids(parts: Iterable[list[ListedTask]]) -> list[int]:
    return [task.id for part in parts for task in part]


def test_tasks_behind_a_task_are_those_that_nobody_annotated_or_skipped_by_id(source, label_studio):
    for number in (50, 20, 10, 40):
        label_studio.add_task(number)
    for number in (30, 60):
        label_studio.annotate(number, number, DOOR)
    label_studio.annotations[60]["was_cancelled"] = True
    assert [task.id for task in source.unannotated_behind(10, 2)] == [20, 40]
    assert [task.id for task in source.unannotated_behind(40, 5)] == [50]


def test_the_order_of_the_label_stream_is_that_of_the_project(source, label_studio):
    label_studio.sampling = "Uniform sampling"
    assert source.sampling() == "Uniform sampling"


def test_annotated_tasks_that_changed_since_a_time_include_those_of_that_very_time(source, label_studio):
    for number in (1, 2, 3):
        label_studio.annotate(number, 10 * number, DOOR)
    label_studio.add_task(40)
    assert ids(source.annotated_since(label_studio.tasks[20]["updated_at"])) == [20, 30]
    assert ids(source.annotated_since("")) == [10, 20, 30]


def test_a_list_longer_than_an_answer_comes_in_parts_that_lose_no_task_when_one_is_deleted(
    source, label_studio
):
    for number in range(1, 61):
        label_studio.annotate(number, number, DOOR)
    parts = source.annotated_since("")
    first = next(parts)
    label_studio.delete_task(1)
    assert ids([first, *parts]) == list(range(1, 61))


def test_any_number_of_tasks_is_asked_for_in_parts(source, label_studio):
    for number in range(1, 61):
        label_studio.add_task(number)
    assert [task.id for task in source.tasks(range(2, 70))] == list(range(2, 61))
    assert len(label_studio.requests) == 3


def test_asking_for_no_tasks_asks_nothing(source, label_studio):
    """For Label Studio an empty list of ids means all tasks."""
    label_studio.annotate(1, 10, DOOR, marked(DOOR))
    assert source.tasks([]) == []
    assert label_studio.requests == []


def test_what_a_list_says_of_a_task_changes_with_every_annotation(source, label_studio):
    fingerprints = []
    for result in ([DOOR], [WHEEL]):
        label_studio.annotate(1, 10, *result)
        fingerprints += [task.fingerprint for task in source.tasks([10])]
    label_studio.delete_annotation(1)
    fingerprints += [task.fingerprint for task in source.tasks([10, 11])]
    assert len(set(fingerprints)) == 3


def test_annotations_come_with_their_author_and_without_skipped_ones(source, label_studio):
    label_studio.annotate(1, 10, DOOR, by=2)
    label_studio.annotate(2, 10, WHEEL)
    label_studio.annotations[2]["was_cancelled"] = True
    (annotation,) = source.annotations(10)
    assert (annotation.id, annotation.task, annotation.author_id) == (1, 10, 2)
    assert annotation.result == [DOOR]
    assert annotation.updated_at == label_studio.annotations[1]["updated_at"]
    with pytest.raises(GoneError):
        source.annotations(11)


@pytest.mark.parametrize("longest_page", [None, 3])
def test_tasks_come_with_their_annotations_in_pages_or_one_by_one(source, label_studio, longest_page):
    for number in range(1, 14):
        label_studio.annotate(number, number, DOOR)
    label_studio.annotate(20, 5, WHEEL)
    label_studio.annotations[20]["was_cancelled"] = True
    label_studio.add_task(30)
    label_studio.longest_page = longest_page
    parts = list(source.annotated_in_full())
    assert [(len(part.tasks), part.remaining) for part in parts] == [(10, 13), (3, 3)]
    for one in [one for part in parts for one in part.tasks]:
        assert one.annotations == source.annotations(one.task.id)


def test_a_task_whose_annotations_cannot_be_read_has_the_reason_and_the_others_are_read(source, label_studio):
    for number in (1, 2):
        label_studio.annotate(number, number, DOOR)
    label_studio.annotations[1]["id"] = "one"
    (part,) = source.annotated_in_full()
    bad, good = part.tasks
    assert isinstance(bad.annotations, UnreadableError)
    assert good.annotations == source.annotations(2)


def test_a_webhook_and_the_list_say_the_same_of_a_task(source, label_studio):
    """As was seen with Label Studio 1.23: so annotations that a webhook covers need not be read again."""
    webhook = Webhook.model_validate(label_studio.annotate(1, 10, DOOR))
    ((_, from_webhook),) = webhook.states()
    (listed,) = source.tasks([10])
    assert from_webhook.fingerprint == listed.fingerprint


def test_users_come_by_their_addresses(source):
    assert source.emails() == {1: "lead@example.com", 2: "annotator@example.com"}


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (httpx.Response(200, text="<html>a proxy's page</html>"), "200|understood"),
        (httpx.Response(200, json={"tasks": [{"id": -1, "updated_at": "2026"}]}), "understood"),
        (httpx.Response(200, json={"tasks": []}), "understood"),
        (httpx.Response(429, json={}), "429"),
        (httpx.Response(401, json={"detail": "canary"}), "REFCUT_ACCESS_TOKEN"),
    ],
)
def test_an_answer_that_is_not_what_it_should_be_is_named_without_its_content(answer, message):
    http = httpx.Client(transport=httpx.MockTransport(lambda _request: answer))
    client = LabelStudioBase(base_url="http://ls.test", api_key=TOKEN, httpx_client=http, max_retries=0)
    with pytest.raises(SourceError, match=message) as error:
        ApiAnnotations(client, 7, http).overview()
    assert "canary" not in str(error.value)
    assert "proxy" not in str(error.value)
    http.close()


def test_a_connection_without_a_token_is_not_tried():
    with pytest.raises(SourceError, match="REFCUT_ACCESS_TOKEN"):
        open_source(7, Connection("http://ls.test", ""))


def test_a_list_that_begins_again_and_again_is_left(source, label_studio, monkeypatch):
    for number in range(1, 30):
        label_studio.annotate(number, number, DOOR)
    monkeypatch.setattr(label_studio, "_passes", lambda _row, _item: True)
    with pytest.raises(SourceError, match="again"):
        ids(source.annotated_since(""))
