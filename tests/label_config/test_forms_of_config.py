"""Every form of a label config that the editor accepts: clicks, references, trainings, exports, prelabelled tasks.

What is right is what the editor of Label Studio 1.23.2 does, as its code says.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from sqlalchemy import Engine

from refcut_backend.clicks.history import ClickHistory
from refcut_backend.clicks.options import AnswerRules
from refcut_backend.clicks.service import ClickService
from refcut_backend.exporting.annotations import read_task
from refcut_backend.images.hidden_urls import Addresses
from refcut_backend.label_studio import brush_rle
from refcut_backend.label_studio.label_config import image_of_item, problems, read_label_config
from refcut_backend.label_studio.payloads import AnnotationPayload, ListedTask
from refcut_backend.prelabeling.task import TaskPrelabeller, TaskToPrelabel
from refcut_backend.queue.messages import FoundLabel, FoundMask, PrelabelAnswer, PrelabelJob
from refcut_backend.training.masks import read_training_masks
from tests.support.one_version import OneVersion
from tests.support.recorded import brush_result, click_result
from tests.support.registry import Registry, marked, open_registry, square
from tests.support.squares import Editor, SquareQueue

ROLE = (
    """<Choices name="refcut_role{n}" toName="{to}" perRegion="true"><Choice value="Reference"/></Choices>"""
)
LABELS = '<Label value="Door"/><Label value="Wheel"/>'


def config(image: str, *, labels: str = LABELS, value: str = "", to: str = "image", n: str = "") -> str:
    """Image, brush, clicks and roles; `n` ends the names of the controls."""
    return (
        f'{image}<BrushLabels name="brush{n}" toName="{to}" smart="false"{value}>{labels}</BrushLabels>'
        f'<KeyPointLabels name="click{n}" toName="{to}" smart="true"{value}>{labels}</KeyPointLabels>'
        f"{ROLE.format(n=n, to=to)}"
    )


@dataclass
class Form:
    """A config with a task's data, and what a click on the picture in question meets.

    tag: what items of that picture have beside their value. address: of the picture.
    """

    xml: str
    data: dict[str, Any]
    tag: dict[str, Any]
    address: str


PLAIN = '<Image name="image" value="{}"/>'
FROM_TASK = ' value="$classes"'
CLASSES = {"classes": [{"value": "Door"}, {"value": "Wheel", "background": "red"}]}
PAGES = {"pages": [{"image": "/data/0.png"}, {"image": "/data/1.png"}]}
REPEATED = (
    '<Repeater on="$pages" indexFlag="{{idx}}">'
    + config('<Image name="page_{{idx}}" value="$pages[{{idx}}].image"/>', to="page_{{idx}}", n="_{{idx}}")
    + "</Repeater>"
)
FORMS = {
    "plain": Form(config(PLAIN.format("$image")), {"image": "/data/a.png"}, {}, "/data/a.png"),
    "item of a list": Form(
        config(PLAIN.format("$photos[1]")), {"photos": ["/data/a.png", "/data/b.png"]}, {}, "/data/b.png"
    ),
    "nested": Form(config(PLAIN.format("$photo.url")), {"photo": {"url": "/data/a.png"}}, {}, "/data/a.png"),
    "nested in a list": Form(
        config(PLAIN.format("$photos[0].url")), {"photos": [{"url": "/data/a.png"}]}, {}, "/data/a.png"
    ),
    "part of a text": Form(
        config(PLAIN.format("http://host$image")), {"image": "/a.png"}, {}, "http://host/a.png"
    ),
    "labels from the task": Form(
        config(PLAIN.format("$image"), labels="", value=FROM_TASK),
        {"image": "/data/a.png"} | CLASSES,
        {},
        "/data/a.png",
    ),
    "labels as text": Form(
        config(PLAIN.format("$image"), labels="<Label>Door</Label><Label>Wheel</Label>"),
        {"image": "/data/a.png"},
        {},
        "/data/a.png",
    ),
    "lower case": Form(
        config(PLAIN.format("$image"))
        .lower()
        .replace("door", "Door")
        .replace("wheel", "Wheel")
        # What people see of values keeps its case.
        .replace('"reference"', '"Reference"'),
        {"image": "/data/a.png"},
        {},
        "/data/a.png",
    ),
    "first page": Form(
        config('<Image name="image" valueList="$photos"/>'),
        {"photos": ["/data/0.png", "/data/1.png"]},
        {"item_index": 0},
        "/data/0.png",
    ),
    "second page": Form(
        config('<Image name="image" valueList="$photos"/>'),
        {"photos": ["/data/0.png", "/data/1.png"]},
        {"item_index": 1},
        "/data/1.png",
    ),
    "repeated": Form(REPEATED, PAGES, {"to_name": "page_1", "n": "_1"}, "/data/1.png"),
}
EVERY = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())


def xml_of(form: Form) -> str:
    return f"<View>{form.xml}</View>"


def placed(item: dict[str, Any], form: Form) -> dict[str, Any]:
    """An item as the editor sends it from the picture in question."""
    tag = dict(form.tag)
    ending = tag.pop("n", "")
    return item | {"from_name": item["from_name"] + ending} | tag


def door(form: Form, left: int = 5) -> dict[str, Any]:
    return placed(brush_result("d", "Door", square(left)), form)


def as_reference(region: dict[str, Any], form: Form) -> dict[str, Any]:
    role = marked(region)
    return role | {"from_name": f"refcut_role{form.tag.get('n', '')}"}


def annotated(form: Form, *result: dict[str, Any], annotation: int = 5) -> dict[str, Any]:
    return {
        "action": "ANNOTATION_CREATED",
        "project": {"id": 7, "label_config": xml_of(form)},
        "task": {"id": 1, "data": form.data},
        "annotation": {"id": annotation, "result": list(result), "updated_at": "2026-01-01T00:00:00Z"},
    }


@pytest.fixture
def registry(tmp_path) -> Iterator[Registry]:
    with open_registry(tmp_path) as opened:
        yield opened


@pytest.fixture
def queue() -> SquareQueue:
    return SquareQueue()


def editor_of(form: Form, engine: Engine, registry: Registry, queue: SquareQueue) -> Editor:
    service = ClickService(
        queue, registry.references, OneVersion("s14-test"), AnswerRules(), ClickHistory(engine, 600)
    )
    return Editor(service, label_config=xml_of(form), data=form.data)


@EVERY
def test_nothing_is_to_be_corrected(form):
    assert problems(read_label_config(xml_of(form))) == []


@EVERY
def test_a_click_gives_a_mask_on_the_picture_that_the_editor_shows(form, registry, queue):
    editor = editor_of(form, registry.engine, registry, queue)
    reply = editor.send(placed(click_result("c", 30, 50, "Wheel"), form))
    assert reply.reason is None
    assert queue.jobs[-1].image_address == form.address
    (region,) = reply.prediction["result"]
    expected = placed({"from_name": "brush", "to_name": "image"}, form)
    assert {key: region.get(key) for key in expected} == expected
    assert ("item_index" in region) == ("item_index" in expected)


@EVERY
def test_a_marked_region_becomes_a_reference_of_later_clicks(form, registry, queue):
    registry.follow(annotated(form, door(form), as_reference(door(form), form)))
    (known,) = registry.references.of_label(7, "Door")
    stored = registry.references.load(known.id)
    assert stored is not None
    assert stored.image_address == form.address
    editor_of(form, registry.engine, registry, queue).send(placed(click_result("c", 30, 50, "Door"), form))
    assert queue.jobs[-1].reference_ids == (known.id,)


@EVERY
def test_masks_are_trained_on_and_exported(form):
    controls = read_label_config(xml_of(form), form.data)
    region = door(form)
    ((place, (found,)),) = read_training_masks([region], controls).items()
    assert found.label == "Door"
    (control,) = [control for control in controls.masks if control.to_name == place]
    assert control.image_address(form.data) == form.address
    task = ListedTask(id=1, data=form.data)
    exported = read_task(task, [AnnotationPayload(id=5, result=[region])], controls, lambda *_: (20, 60))
    assert exported.problems == []
    assert [(image.address, len(image.objects)) for image in exported.images if image.objects] == [
        (form.address, 1)
    ]
    assert len(exported.images) == len({control.to_name for control in controls.masks})


def test_dots_on_another_page_belong_to_another_object(registry, queue):
    form = FORMS["second page"]
    editor = editor_of(form, registry.engine, registry, queue)
    first = click_result("a", 20, 50, "Door") | {"item_index": 0}
    second = click_result("b", 70, 50, "Door") | {"item_index": 1}
    editor.send(first)
    reply = editor.send(first, second)
    assert [click.id for click in queue.jobs[-1].clicks] == ["b"]
    assert queue.jobs[-1].image_address == "/data/1.png"
    (region,) = reply.prediction["result"]
    assert (region["id"], region["item_index"]) == ("rc-b", 1)


def test_with_auto_accept_a_click_at_the_same_place_of_the_next_page_begins_an_object(registry, queue):
    form = FORMS["second page"]
    editor = editor_of(form, registry.engine, registry, queue)
    editor.send(click_result("a", 20, 50, "Door") | {"item_index": 0})
    reply = editor.send(click_result("b", 20, 50, "Door") | {"item_index": 1})
    assert [region["id"] for region in reply.prediction["result"]] == ["rc-b"]


def test_pages_of_one_annotation_give_a_reference_each(registry):
    form = FORMS["second page"]
    items = []
    for page in (0, 1):
        region = brush_result(f"d{page}", "Door", square(5 + 10 * page)) | {"item_index": page}
        items += [region, marked(region)]
    registry.follow(annotated(form, *items))
    stored = [registry.references.load(c.id) for c in registry.references.of_label(7, "Door")]
    assert {one.image_address for one in stored if one} == {"/data/0.png", "/data/1.png"}


class Finds:
    """A worker that finds one mask of every label that it is asked for."""

    def workers(self) -> list[str]:
        return []

    def ask(self, job: PrelabelJob, *_arguments: object, is_continuation: bool) -> PrelabelAnswer:
        mask = FoundMask(brush_rle.encode(square(5)), 0.9)
        return PrelabelAnswer(
            tuple(FoundLabel(one.label, one.to_name, 60, 20, (mask,), ("v",)) for one in job.labels), "s14"
        )


def test_every_page_is_searched_for_the_labels_with_references(registry):
    form = FORMS["second page"]
    registry.follow(annotated(form, door(form), as_reference(door(form), form)))
    prelabeller = TaskPrelabeller(Finds(), registry.references, Addresses(registry.engine), AnswerRules())
    found = prelabeller.prelabel(TaskToPrelabel(7, 1, form.data, xml_of(form)), 10)
    assert [
        (region["to_name"], region["item_index"], region["value"]["brushlabels"])
        for region in found.prediction["result"]
    ] == [("image", 0, ["Door"]), ("image", 1, ["Door"])]


def test_labels_that_only_tasks_know_keep_their_references(registry, caplog):
    form = FORMS["labels from the task"]
    registry.follow(annotated(form, door(form), as_reference(door(form), form)))
    registry.follower.report_lost_labels(7, xml_of(form))
    assert "no longer" not in caplog.text


@pytest.mark.parametrize("index", [None, 0, -1, "1", [1], 1.5, {}])
def test_an_item_without_a_page_that_exists_lies_on_the_first(index):
    assert image_of_item({"to_name": "image", "item_index": index}) == "image"


@pytest.mark.parametrize("index", [2, 2**70, 10**5000], ids=["next", "large", "huge"])
def test_a_click_on_a_page_that_the_task_has_not_is_refused_with_a_reason(index, registry, queue):
    editor = editor_of(FORMS["second page"], registry.engine, registry, queue)
    reply = editor.send(click_result("c", 30, 50, "Wheel") | {"item_index": index})
    assert reply.reason == "label_config"
