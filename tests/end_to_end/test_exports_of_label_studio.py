"""Label Studio's own exports of the shipped label configs: the table in docs/exporting.md."""

from __future__ import annotations

import io
import json
import os
import subprocess
import zipfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Protocol

import httpx
import numpy as np
import pytest

from refcut_backend.cli.demo import demo_mask
from refcut_backend.cli.demo_label_studio import LabelStudioProject
from refcut_backend.playground.demo import PHOTOGRAPHS
from tests.end_to_end.click_on import click_in_the_middle
from tests.end_to_end.world import World
from tests.support import label_studio_converter
from tests.support.recorded import REPOSITORY, box_result, brush_result, click_result, role_result

DOT = click_result("dot", 5, 5, "Door")
BOX = box_result("box", 10, 10, 20, 20, "Door", size=(60, 40))
PHOTOGRAPH = "car_parts_te66"
JSON_FORMATS = ("JSON", "JSON_MIN", "CSV")


def config_of(name: str) -> str:
    return (REPOSITORY / "label_config" / f"{name}.xml").read_text()


def masks_of(name: str, label: str = "Door") -> list[dict[str, Any]]:
    """A mask of the kind that the config takes, marked as a reference."""
    mask_hw = np.zeros((40, 60), bool)
    mask_hw[4:30, 6:40] = True
    region = brush_result("mask", label, mask_hw)
    if name == "clicks_polygon":
        points = [[10.0, 10.0], [50.0, 10.0], [50.0, 60.0]]
        value = {"points": points, "closed": True}
        region |= {"type": "polygonlabels", "from_name": "polygon"}
        choice = {"type": "choices", "from_name": "refcut_role", "value": value | {"choices": ["Reference"]}}
        return [region | {"value": value | {"polygonlabels": [label]}}, region | choice]
    return [region, role_result(region, "Reference")]


class Exported(Protocol):
    """What Label Studio's converter makes of an annotation: `failed` and `files`."""

    def __call__(
        self, name: str, form: str, *more: dict[str, Any], label: str = "Door"
    ) -> dict[str, Any]: ...


@pytest.fixture(scope="module")
def exported() -> Iterator[Exported]:
    executable = os.environ.get("REFCUT_LABEL_STUDIO")
    if executable is None:
        pytest.skip("REFCUT_LABEL_STUDIO names the label-studio command; `make test` sets it")
    command = [Path(executable).with_name("python"), label_studio_converter.__file__]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        questions, answers = process.stdin, process.stdout
        assert questions is not None
        assert answers is not None

        def ask(name: str, form: str, *more: dict[str, Any], label: str = "Door") -> dict[str, Any]:
            asked = {"config": config_of(name), "result": [*masks_of(name, label), *more], "format": form}
            print(json.dumps(asked), file=questions, flush=True)
            answer: dict[str, Any] = json.loads(answers.readline())
            return answer

        yield ask


def coco(files: dict[str, str]) -> dict[str, Any]:
    """The one JSON file of a COCO export."""
    (text,) = files.values()
    return json.loads(text)


def labels(found: dict[str, Any]) -> list[str]:
    """The categories of the annotations of a COCO file."""
    names = {category["id"]: category["name"] for category in found["categories"]}
    return [names[annotation["category_id"]] for annotation in found["annotations"]]


def test_polygons_keep_their_labels_in_coco_and_yolo(exported):
    assert labels(coco(exported("clicks_polygon", "COCO")["files"])) == ["Door"]
    for dots in ([], [DOT]):
        files = exported("clicks_polygon", "YOLO", *dots)["files"]
        classes = files["classes.txt"].split("\n")
        assert files["labels/car.txt"].split()[0] == str(classes.index("Door"))


def test_boxes_keep_their_labels_in_coco_yolo_and_voc(exported):
    assert labels(coco(exported("clicks_box_brush", "COCO", BOX)["files"])) == ["Door"]
    files = exported("clicks_box_brush", "YOLO", BOX, DOT)["files"]
    assert files["labels/car.txt"].split() == ["0", "0.2", "0.2", "0.2", "0.2"]
    assert (
        "<name>Door</name>" in exported("clicks_box_brush", "VOC", BOX, DOT)["files"]["Annotations/car.xml"]
    )


@pytest.mark.parametrize("name", ["clicks_brush", "clicks_box_brush", "object_parts"])
def test_brush_masks_keep_their_labels_in_brush_to_coco_and_brush_to_png_whatever_dots_there_are(
    exported, name
):
    label = "Head" if name == "object_parts" else "Door"
    assert labels(coco(exported(name, "BRUSH_TO_COCO", DOT, label=label)["files"])) == [label]
    for form, ending in (("BRUSH_TO_PNG", "png"), ("BRUSH_TO_NUMPY", "npy")):
        (path,) = exported(name, form, DOT, label=label)["files"]
        assert path.endswith(f"brush-{label}-0.{ending}")


@pytest.mark.parametrize("name", ["clicks_brush", "object_parts"])
def test_a_dot_does_not_break_coco_where_masks_are_brush_masks(exported, name):
    label = "Head" if name == "object_parts" else "Door"
    assert (
        exported(name, "COCO", DOT | {"value": DOT["value"] | {"keypointlabels": [label]}})["failed"] is None
    )


@pytest.mark.parametrize("name", ["clicks_polygon", "clicks_box_brush"])
def test_a_dot_breaks_coco_where_the_docs_say_so(exported, name):
    assert "No keypoint order" in exported(name, "COCO", DOT)["failed"]


def test_every_config_can_be_exported_as_json_and_csv(exported):
    for name in ("clicks_brush", "clicks_polygon"):
        for form in JSON_FORMATS:
            answer = exported(name, form, DOT)
            assert (answer["failed"], len(answer["files"])) == (None, 1)


def test_in_the_editor_a_click_gives_polygons_and_label_studio_exports_them_with_their_label(world: World):
    with closing(
        LabelStudioProject.create(world.label_studio, "Polygons", config_of("clicks_polygon"), world.token)
    ) as project:
        (task_id,) = project.upload_images([PHOTOGRAPHS / f"{PHOTOGRAPH}.jpg"])
        project.connect_backend(world.backend)
    editor = world.editor
    editor.open_task(project.id, task_id)
    editor.enable_auto_annotation()
    editor.choose_label("Hood")
    regions = click_in_the_middle(editor, demo_mask(PHOTOGRAPH, "hood"))
    assert {region["type"] for region in regions} == {"polygonlabels"}
    editor.accept_suggestion()
    editor.submit()
    editor.leave()
    with httpx.Client(headers={"Authorization": f"Token {world.token}"}, timeout=120) as http:
        address = f"{world.label_studio}/api/projects/{project.id}/export"
        answer = http.get(address, params={"exportType": "COCO", "download_resources": "false"})
    assert answer.status_code == 200
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert set(labels(json.loads(archive.read("result.json")))) == {"Hood"}
