"""`refcut export` against a Label Studio in memory: what is in the files is what is in the editor."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco_mask
from typer.testing import CliRunner, Result

from refcut_backend.cli.main import app
from refcut_backend.label_studio import brush_rle
from refcut_backend.label_studio.regions import read_region
from tests.support.label_studio_api import LabelStudioApi, serving
from tests.support.odd_annotations import ODD_ITEMS, ODD_REGIONS
from tests.support.recorded import (
    LABEL_CONFIG,
    REPOSITORY,
    box_result,
    brush_result,
    click_result,
    role_result,
)
from tests.support.registry import open_registry

BOX_CONFIG = (REPOSITORY / "label_config" / "clicks_box_brush.xml").read_text()
BRUSH_AND_POLYGON = LABEL_CONFIG.replace(
    "<Image ",
    '<PolygonLabels name="polygon" toName="image" smart="false"><Label value="Hood"/></PolygonLabels><Image ',
)
EVERY = ["coco-rle", "coco-polygons", "yolo", "label-maps", "masks"]


def frame() -> NDArray[np.bool_]:
    """A square with a hole (40, 60)."""
    mask_hw = np.zeros((40, 60), bool)
    mask_hw[4:30, 6:40] = True
    mask_hw[10:20, 12:30] = False
    return mask_hw


def patch(left: int) -> NDArray[np.bool_]:
    mask_hw = np.zeros((40, 60), bool)
    mask_hw[12:18, left : left + 8] = True
    return mask_hw


def png(width: int, height: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height)).save(file, "PNG")
    return file.getvalue()


def polygon(region_id: str, *points: tuple[float, float]) -> dict[str, Any]:
    """A polygon of Hood with corners in percent."""
    return {
        "id": region_id,
        "type": "polygonlabels",
        "from_name": "polygon",
        "to_name": "image",
        "original_width": 60,
        "original_height": 40,
        "value": {"points": [list(p) for p in points], "closed": True, "polygonlabels": ["Hood"]},
    }


DOOR, WHEEL = brush_result("d", "Door", frame()), brush_result("w", "Wheel", patch(14))
DAMAGED = DOOR | {"id": "broken", "value": DOOR["value"] | {"rle": [1, 2, 3]}}


@pytest.fixture
def api() -> Iterator[LabelStudioApi]:
    with serving(LabelStudioApi()) as api:
        yield api


@pytest.fixture
def connect(api: LabelStudioApi, tmp_path, monkeypatch):
    monkeypatch.setenv("REFCUT_STATE_DIR", str(tmp_path))

    def connected(config: str = LABEL_CONFIG) -> LabelStudioApi:
        with open_registry(tmp_path) as registry:
            registry.connect(api, config)
        return api

    return connected


def export(out: Path, *arguments: str, formats: list[str] | None = None) -> Result:
    chosen = [word for name in formats or [] for word in ("--format", name)]
    command = ["export", "--project", "7", "--out", str(out), *chosen, *arguments]
    return CliRunner().invoke(app, command, catch_exceptions=False)


def coco(out: Path, name: str = "coco-rle") -> dict[str, Any]:
    return json.loads((out / f"{name}.json").read_text())


def mask_of(annotation: dict[str, Any], image: dict[str, Any]) -> NDArray[np.bool_]:
    """The mask that pycocotools reads from a COCO annotation."""
    rle = annotation["segmentation"]
    if isinstance(rle, list):
        rle = coco_mask.merge(coco_mask.frPyObjects(rle, image["height"], image["width"]))
    return coco_mask.decode(rle).astype(bool)


@pytest.mark.parametrize("name", ["coco-rle", "coco-polygons"])
def test_coco_holds_the_masks_of_the_editor_to_the_pixel_with_holes_labels_and_references(
    connect, tmp_path, name
):
    connect().annotate(1, 1, DOOR, role_result(DOOR, "Reference"), WHEEL)
    assert export(tmp_path / "out", formats=[name]).exit_code == 0
    found = coco(tmp_path / "out", name)
    names = {category["id"]: category["name"] for category in found["categories"]}
    assert list(names.values()) == ["Door", "Wheel", "Hood", "Light"]
    (image,) = found["images"]
    assert (image["file_name"], image["width"], image["height"], image["task_id"]) == ("1.png", 60, 40, 1)
    door, wheel = found["annotations"]
    assert np.array_equal(mask_of(door, image), frame())
    assert np.array_equal(mask_of(wheel, image), patch(14))
    assert [names[one["category_id"]] for one in (door, wheel)] == ["Door", "Wheel"]
    assert [one["attributes"]["reference"] for one in (door, wheel)] == [True, False]
    assert (door["area"], door["bbox"]) == (frame().sum(), [6, 4, 34, 26])


def test_a_polygon_keeps_its_corners_and_its_mask_and_the_pieces_of_one_answer_are_one_object(
    connect, tmp_path
):
    first = polygon("rc-1", (10, 10), (50, 10), (50, 60), (10, 60))
    second = polygon("rc-1-2", (70, 10), (90, 10), (80, 55.5))
    other = polygon("rc-2", (5, 70), (30, 70), (30, 95))
    connect(BRUSH_AND_POLYGON).annotate(1, 1, first, second, other)
    assert export(tmp_path / "out", formats=["coco-rle", "coco-polygons"]).exit_code == 0
    whole, alone = coco(tmp_path / "out", "coco-polygons")["annotations"]
    assert whole["segmentation"] == [
        [6.0, 4.0, 30.0, 4.0, 30.0, 24.0, 6.0, 24.0],
        [42.0, 4.0, 54.0, 4.0, 48.0, 22.2],
    ]
    assert len(alone["segmentation"]) == 1
    found = coco(tmp_path / "out")
    drawn = [read_region(region, None) for region in (first, second)]
    assert np.array_equal(
        mask_of(found["annotations"][0], found["images"][0]), drawn[0].mask_hw() | drawn[1].mask_hw()
    )


def test_yolo_names_the_class_and_draws_around_the_hole(connect, tmp_path):
    connect().annotate(1, 1, DOOR, WHEEL)
    export(tmp_path / "out", formats=["yolo"])
    yolo = tmp_path / "out" / "yolo"
    assert (yolo / "classes.txt").read_text().split() == ["Door", "Wheel", "Hood", "Light"]
    assert '0: "Door"' in (yolo / "data.yaml").read_text()
    lines = (yolo / "labels" / "1.txt").read_text().splitlines()
    assert [line.split()[0] for line in lines] == ["0", "1"]
    corners = np.array(lines[0].split()[1:], float).reshape(-1, 2) * (60, 40)
    polygons = coco_mask.frPyObjects([corners.round(3).reshape(-1).tolist()], 40, 60)
    assert np.array_equal(coco_mask.decode(coco_mask.merge(polygons)).astype(bool), frame())


def test_label_maps_show_the_smaller_object_on_top_and_masks_are_the_union_of_a_label(connect, tmp_path):
    whole = brush_result("whole", "Door", np.ones((40, 60), bool))
    connect().annotate(1, 1, WHEEL, whole, brush_result("w2", "Wheel", patch(40)))
    export(tmp_path / "out", formats=["label-maps", "masks"])
    pixels = np.asarray(Image.open(tmp_path / "out" / "label-maps" / "1.png"))
    wheels = patch(14) | patch(40)
    assert np.array_equal(pixels, np.where(wheels, 2, 1))
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out" / "masks" / "Wheel" / "1.png")) > 0, wheels)
    assert json.loads((tmp_path / "out" / "categories.json").read_text())[1] == {"id": 2, "name": "Wheel"}


def test_dots_prompt_boxes_and_negative_references_are_left_out_and_counted(connect, tmp_path):
    dot, box = click_result("dot", 5, 5, "Door"), box_result("box", 1, 1, 5, 5, "Door", size=(60, 40))
    connect(BOX_CONFIG).annotate(1, 1, DOOR, dot, box, WHEEL, role_result(WHEEL, "Negative reference"))
    result = export(tmp_path / "out", formats=EVERY)
    assert result.exit_code == 0
    assert len(coco(tmp_path / "out")["annotations"]) == 1
    assert "left out: 1 boxes that were prompts, 1 dots, 1 negative references" in result.output


def test_a_damaged_region_is_left_out_by_name_and_the_rest_is_exported(connect, tmp_path):
    gone = WHEEL | {"id": "old", "from_name": "former"}
    connect().annotate(1, 1, DAMAGED, gone, WHEEL)
    connect().annotate(2, 2, DOOR)
    result = export(tmp_path / "out")
    assert result.exit_code == 1
    assert len(coco(tmp_path / "out")["annotations"]) == 2
    old, broken = (tmp_path / "out" / "left-out.txt").read_text().splitlines()
    assert old == "task 1, annotation 1: region old: its tool 'former' is no longer in the label config"
    assert broken.startswith("task 1, annotation 1: region broken (Door): ")


def test_odd_annotations_are_left_out_by_name_and_stop_nothing(connect, tmp_path):
    api = connect()
    odd = ODD_ITEMS | ODD_REGIONS
    for number, result in enumerate(odd.values(), start=1):
        api.annotate(number, number, *result)
        api.annotations[number]["result"] = result
        api.images[f"{number}.png"] = b"no image"
    last = len(odd) + 1
    api.annotate(last, last, WHEEL)
    result = export(tmp_path / "out", formats=EVERY)
    assert result.exit_code == 1
    left_out = (tmp_path / "out" / "left-out.txt").read_text()
    assert all(f"task {number}, annotation {number}: " in left_out for number in range(1, last))
    assert [one["image_id"] for one in coco(tmp_path / "out")["annotations"]]
    assert coco(tmp_path / "out")["images"][-1]["task_id"] == last


def test_a_task_that_label_studio_cannot_show_does_not_end_the_export(connect, tmp_path):
    api = connect()
    api.annotate(1, 1, DOOR)
    api.annotate(2, 2, WHEEL)
    api.fails_on = "/api/tasks/1/annotations/"
    result = export(tmp_path / "out")
    assert result.exit_code == 1
    assert "task 1: Label Studio answers 500" in result.output
    assert [image["task_id"] for image in coco(tmp_path / "out")["images"]] == [2]


def test_what_could_not_be_read_is_tried_again_by_the_next_run_although_the_task_has_not_changed(
    connect, tmp_path
):
    api = connect()
    api.annotate(1, 1, DOOR)
    api.annotate(2, 2)
    api.fails_on = "/api/tasks/1/annotations/"
    assert export(tmp_path / "out", formats=["masks"]).exit_code == 1, (
        "an API that fails, an image that is away"
    )
    api.fails_on = ""
    api.images["2.png"] = png(33, 22)
    assert export(tmp_path / "out", formats=["masks", "coco-rle"]).exit_code == 0
    assert [image["task_id"] for image in coco(tmp_path / "out")["images"]] == [1, 2]
    assert (tmp_path / "out" / "masks" / "Door" / "1.png").exists()
    assert (tmp_path / "out" / "left-out.txt").read_text() == ""


def test_of_several_annotations_the_one_saved_last_is_exported_or_all_but_never_a_skipped_one(
    connect, tmp_path
):
    api = connect()
    for annotation_id, region in ((1, DOOR), (2, WHEEL), (3, DOOR)):
        api.annotate(annotation_id, 1, region)
    api.annotations[3]["was_cancelled"] = True
    export(tmp_path / "newest", formats=["coco-rle", "yolo"])
    assert [image["annotation_id"] for image in coco(tmp_path / "newest")["images"]] == [2]
    export(tmp_path / "all", "--annotations", "all", formats=["coco-rle", "yolo"])
    assert [image["annotation_id"] for image in coco(tmp_path / "all")["images"]] == [1, 2]
    names = sorted(path.name for path in (tmp_path / "all" / "yolo" / "labels").iterdir())
    assert names == ["1-task-1-annotation-1.txt", "1-task-1-annotation-2.txt"]


def test_an_image_without_a_region_is_background_with_the_size_of_its_file(connect, tmp_path):
    api = connect()
    api.annotate(1, 1)
    api.images["1.png"] = png(33, 22)
    assert export(tmp_path / "out", formats=["coco-rle", "yolo"]).exit_code == 0
    (image,) = coco(tmp_path / "out")["images"]
    assert (image["width"], image["height"]) == (33, 22)
    assert (tmp_path / "out" / "yolo" / "labels" / "1.txt").read_text() == ""


def test_a_second_run_reads_only_what_has_changed_and_removes_what_is_gone(connect, tmp_path):
    api = connect()
    for task in (1, 2, 3):
        api.annotate(task, task, DOOR)
    export(tmp_path / "out", formats=["masks"])
    masks = tmp_path / "out" / "masks"
    untouched = (masks / "Door" / "1.png").stat().st_mtime_ns
    api.annotate(2, 2, WHEEL)
    api.delete_task(3)
    api.requests.clear()
    export(tmp_path / "out", formats=["masks"])
    assert [path for path in api.requests if path.endswith("/annotations/")] == ["/api/tasks/2/annotations/"]
    assert (masks / "Door" / "1.png").stat().st_mtime_ns == untouched
    assert sorted(str(path.relative_to(masks)) for path in masks.rglob("*.png")) == [
        "Door/1.png",
        "Wheel/2.png",
    ]


def test_an_interrupted_run_is_resumed_where_it_ended(connect, tmp_path):
    api = connect()
    for task in (1, 2):
        api.annotate(task, task, DOOR)
    api.fails_on = "/api/tasks/2/annotations/"
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(
            "refcut_backend.label_studio.tasks.ApiAnnotations.overview",
            lambda _self: (_ for _ in ()).throw(KeyboardInterrupt),
        )
        result = export(tmp_path / "out")
    assert (result.exit_code, "to resume" in result.output) == (130, True)
    api.fails_on = ""
    api.requests.clear()
    assert export(tmp_path / "out").exit_code == 0
    assert "/api/tasks/1/annotations/" not in api.requests
    assert len(coco(tmp_path / "out")["images"]) == 2


def test_the_folder_of_another_project_is_refused(connect, tmp_path):
    connect().annotate(1, 1, DOOR)
    export(tmp_path / "out")
    (tmp_path / "out" / ".refcut-export" / "project").write_text("another")
    assert "another project" in export(tmp_path / "out").output


def test_images_of_one_name_get_files_of_their_own_and_no_secret_of_an_address_is_written(connect, tmp_path):
    api = connect()
    for task, folder in ((1, "a"), (2, "b")):
        api.add_task(task, f"https://user:pass@example.com/{folder}/car.png?token=secret")
        api.annotate(task, task, DOOR)
    export(tmp_path / "out", formats=EVERY)
    assert sorted(path.name for path in (tmp_path / "out" / "label-maps").iterdir()) == [
        "car-task-1-annotation-1.png",
        "car-task-2-annotation-2.png",
    ]
    written = (tmp_path / "out" / "coco-rle.json").read_text()
    assert "https://example.com/a/car.png" in written
    assert "secret" not in written
    assert "pass@" not in written


def test_the_rle_of_the_editor_survives_the_round_trip(connect, tmp_path):
    """Drawn by hand, the editor's own literals and all: the mask is the same, whoever decodes it."""
    ragged = np.random.default_rng(3).random((40, 60)) < 0.5
    connect().annotate(1, 1, brush_result("r", "Light", ragged))
    export(tmp_path / "out", formats=["coco-rle", "coco-polygons"])
    for name in ("coco-rle", "coco-polygons"):
        found = coco(tmp_path / "out", name)
        again = mask_of(found["annotations"][0], found["images"][0])
        assert np.array_equal(brush_rle.decode(brush_rle.encode(again), 40, 60), ragged)
