"""What of a project gets into a snapshot."""

from __future__ import annotations

import io
import itertools
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coco_mask

from model.data.snapshot import read_snapshot
from refcut_backend import __version__
from refcut_backend.clicks.log import ClickLog
from refcut_backend.clicks.session import ClickedObject
from refcut_backend.images.cache import WORKING_PX
from refcut_backend.label_studio.prompts import PercentClick
from refcut_backend.training.holdout import Split, SplitStore
from refcut_backend.training.runs import Outcome, TrainingRuns
from refcut_backend.training.snapshot import remove_old_runs
from refcut_backend.training.stored_images import ProjectImages
from tests.support.odd_annotations import ODD_ITEMS, ODD_REGIONS
from tests.support.recorded import brush_result
from tests.support.registry import marked
from tests.support.statements import recorded_statements
from tests.support.training_world import World, mask, open_world, parts, photograph, png


def objects_of(snapshot) -> dict[str, list]:
    return {"train": snapshot.train, "holdout": snapshot.holdout}


def all_objects(snapshot) -> list:
    return [*snapshot.train, *snapshot.holdout]


def names(annotated_objects) -> set[str]:
    return {annotated_object.file_name for annotated_object in annotated_objects}


def test_each_label_of_an_annotation_is_a_part_with_its_mask(world):
    world.annotate_many(4)
    annotated_object = all_objects(world.snapshot(world.train()))[0]
    assert [part.label for part in annotated_object.masks] == ["Door", "Wheel"]
    assert (annotated_object.width, annotated_object.height) == (60, 20)
    assert np.array_equal(coco_mask.decode(annotated_object.masks[0].rle).astype(bool), mask(5))


def test_the_image_is_stored_by_the_hash_of_its_pixels_and_reads_as_it_was(world):
    world.annotate_many(1)
    (annotated_object,) = all_objects(world.snapshot(run := world.train()))
    stored = cv2.imread(str(world.snapshot(run).image_dir / annotated_object.file_name))
    assert np.array_equal(stored, photograph(1))


def test_skipped_and_deleted_annotations_teach_nothing(world):
    world.annotate_many(6)
    world.api.annotations[2]["was_cancelled"] = True
    world.api.delete_annotation(3)
    world.api.delete_task(4)
    snapshot = world.snapshot(world.train())
    assert {annotated_object.annotation for annotated_object in all_objects(snapshot)} == {
        "1-image",
        "5-image",
        "6-image",
    }


def test_one_damaged_image_or_annotation_is_named_and_left_out(world):
    world.annotate_many(14)
    world.api.images["2.png"] = b"no image"
    world.api.images["3.png"] = png(photograph(3, (30, 30)))
    broken = brush_result("b", "Door", mask(5))
    broken["value"]["rle"] = [1, 2, 3]
    world.annotate(4, broken)
    run = world.train()
    assert run.outcome is Outcome.PROMOTED
    problems = "\n".join(run.left_out)
    assert len(run.left_out) == 3
    for task in (2, 3, 4):
        assert f"task {task}, annotation {task}: " in problems
    assert len(all_objects(world.snapshot(run))) == 11


def test_a_snapshot_reads_pages_of_tasks_and_the_clicks_of_a_page_at_once(world):
    world.annotate_many(24)
    world.api.requests.clear()
    with recorded_statements(world.registry.engine) as statements:
        snapshot = world.snapshot(world.train())
    assert len(all_objects(snapshot)) == 24
    assert world.api.requests.count("/api/tasks/") == 3
    assert [path for path in world.api.requests if path.endswith("/annotations/")] == []
    assert len([text for text, _ in statements if "click_events" in text]) == 3


def test_annotations_that_are_too_many_for_a_page_are_read_task_by_task(world):
    world.annotate_many(24)
    world.api.longest_page = 5
    world.api.requests.clear()
    snapshot = world.snapshot(world.train())
    assert len(all_objects(snapshot)) == 24
    assert len([path for path in world.api.requests if path.endswith("/annotations/")]) == 20


@pytest.mark.parametrize("path", ["/api/tasks/", "/api/tasks/7/annotations/"])
def test_a_label_studio_that_is_away_fails_the_training_instead_of_shrinking_its_data(world, path):
    world.annotate_many(12)
    world.api.longest_page = 5
    world.api.fails_on = path
    run = world.train()
    assert run.outcome is Outcome.FAILED
    assert "Label Studio" in (run.message or "")
    assert world.counts().new == 12


def test_logged_clicks_come_along_with_the_mask_that_they_gave(world):
    log = ClickLog(world.registry.engine)
    clicks = (PercentClick(20.0, 50.0, True, "k"), PercentClick(90.0, 50.0, False, "m"))
    for count in (1, 2):
        clicked = ClickedObject("Door", "image", "rc-k", clicks[:count])
        log.add(7, 1, clicked, model_version="v", reference_versions=[], milliseconds=1.0)
    world.annotate(1, brush_result("rc-k", "Door", mask(5)))
    (annotated_object,) = all_objects(world.snapshot(world.train()))
    assert annotated_object.masks[0].sessions == [[[10.0, 12.0, 1.0], [10.0, 54.0, 0.0]]]


def test_an_image_is_turned_as_the_browser_shows_it(world):
    upright = photograph(1)
    turned = np.ascontiguousarray(np.rot90(upright, 1))
    exif = Image.Exif()
    exif[0x0112] = 6
    file = io.BytesIO()
    Image.fromarray(turned[:, :, ::-1]).save(file, "PNG", exif=exif)
    world.api.images["1.png"] = file.getvalue()
    world.annotate(1)
    (annotated_object,) = all_objects(world.snapshot(run := world.train()))
    assert (run.left_out, annotated_object.width, annotated_object.height) == ((), 60, 20)
    assert np.array_equal(
        cv2.imread(str(world.snapshot(run).image_dir / annotated_object.file_name)), upright
    )


def test_a_large_image_is_kept_at_the_size_that_clicks_are_computed_on_and_its_masks_with_it(world):
    size_hw = (400, 2 * WORKING_PX)
    world.api.images["1.png"] = png(photograph(1, size_hw))
    mask_hw = np.zeros(size_hw, bool)
    mask_hw[100:300, 400:800] = True
    world.annotate(1, brush_result("a", "Door", mask_hw))
    (annotated_object,) = all_objects(world.snapshot(world.train()))
    assert (annotated_object.width, annotated_object.height) == (WORKING_PX, 200)
    small_hw = coco_mask.decode(annotated_object.masks[0].rle).astype(bool)
    assert small_hw[50:150, 200:400].all()
    assert small_hw.sum() == 100 * 200


def test_chosen_references_come_along_and_their_images_are_not_held_out(world):
    world.annotate_many(20)
    for task in range(1, 6):
        door, wheel = parts()
        world.registry.follow(world.annotate(task, door, marked(door), wheel))
    snapshot = world.snapshot(world.train())
    assert {reference.label for reference in snapshot.references} == {"Door"}
    assert len(snapshot.references) == world.settings.max_references_per_label
    assert not names(snapshot.references) & names(snapshot.holdout)
    newest = world.registry.references.newest(7, "Door", 4)
    assert [reference.version for reference in snapshot.references] == [found.version for found in newest]


def test_the_same_photograph_under_two_addresses_is_on_one_side(world):
    world.annotate_many(20)
    for task in range(21, 41):
        world.annotate(task, photo=task - 20)
    snapshot = world.snapshot(world.train())
    assert len(all_objects(snapshot)) == 40
    assert not names(snapshot.train) & names(snapshot.holdout)


def test_references_of_another_project_never_come_along(tmp_path, world):
    world.annotate_many(4)
    door, _ = parts()
    webhook = world.api.annotate(99, 1, door, marked(door))
    world.registry.follow(webhook | {"project": webhook["project"] | {"id": 8}})
    world.api.delete_annotation(99)
    assert world.snapshot(world.train()).references == []


@pytest.fixture(scope="module")
def long_lived(tmp_path_factory):
    with open_world(tmp_path_factory.mktemp("long")) as opened:
        opened.compared, opened.trained = set(), set()
        yield opened


DAY = st.tuples(st.sets(st.integers(1, 30), max_size=12), st.sets(st.integers(1, 30), max_size=2))


@pytest.mark.slow
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(DAY)
def test_no_order_or_number_of_retrains_puts_a_holdout_image_into_a_train_set(long_lived, day):
    """Row 17, on one project over all examples: photographs come, are deleted, come under another address, are marked
    as references; images and snapshots are real."""
    photos, references = day
    world = long_lived
    world.api.tasks.clear()
    world.api.annotations.clear()
    start = 1000 * (1 + len(world.runs.latest(7, 1000)))
    for photo in photos:
        door, wheel = parts()
        results = [door, marked(door), wheel] if photo in references else [door, wheel]
        world.registry.follow(world.annotate(start + photo, *results, photo=photo))
    run = world.train()
    assert run.outcome is not Outcome.FAILED, run.message
    snapshot = world.snapshot(run)
    world.compared |= names(snapshot.holdout)
    world.trained |= names(snapshot.train)
    assert not world.compared & world.trained
    assert not names(snapshot.references) & names(snapshot.holdout)


def test_what_is_held_out_is_remembered_when_annotations_are_gone_for_a_while(world):
    world.annotate_many(20)
    first = world.snapshot(world.train())
    splits = SplitStore(world.registry.engine).known(7)
    held_out = {f"{content}.png" for content, split in splits.items() if split is Split.HOLDOUT}
    assert held_out == names(first.holdout)
    kept = dict(world.api.annotations)
    world.api.annotations.clear()
    world.train()
    world.api.annotations.update(kept)
    assert names(world.snapshot(world.train()).holdout) == held_out


def test_a_later_training_fetches_only_the_images_that_have_changed(world):
    world.annotate_many(6)
    world.train()
    world.api.images["2.png"] = png(photograph(20))
    stored = world.settings.training_dir / "7" / "images"
    (lost,) = [path for path in stored.iterdir() if np.array_equal(cv2.imread(str(path)), photograph(3))]
    lost.unlink()
    world.api.sent_images.clear()
    snapshot = world.snapshot(run := world.train())
    assert sorted(world.api.sent_images) == ["2.png", "3.png"]
    pixels = [cv2.imread(str(snapshot.image_dir / name)) for name in names(all_objects(snapshot))]
    assert run.left_out == ()
    assert len(pixels) == 6
    for number in (1, 20, 3, 4, 5, 6):
        assert any(np.array_equal(image, photograph(number)) for image in pixels)


@pytest.mark.parametrize("change", ["damaged", "of another version"])
def test_an_index_of_images_that_cannot_be_trusted_is_not_used(world, change):
    world.annotate_many(6)
    world.train()
    index = world.settings.training_dir / "7" / "images.json"
    text = index.read_text()
    assert "/data/" not in text, "an address may be a signed URL"
    index.write_text(text[:-9] if change == "damaged" else text.replace(__version__, "0.0.1"))
    world.api.sent_images.clear()
    assert len(all_objects(world.snapshot(world.train()))) == 6
    assert len(world.api.sent_images) == 6


def run_folder(project: Path, day: int, *photographs: int) -> Path:
    """A run with a snapshot of these images."""
    images = ProjectImages(project / "images")
    folder = project / f"202601{day:02d}-120000-abcdef"
    (folder / "snapshot" / "images").mkdir(parents=True)
    for number in photographs:
        images.put_into(folder / "snapshot" / "images", images.add(photograph(number)).file_name)
    return folder


def run_names(project: Path) -> set[str]:
    return {path.name for path in project.iterdir()}


def test_the_newest_runs_and_the_needed_ones_stay(tmp_path):
    runs = [run_folder(tmp_path, day, 1).name for day in range(1, 7)]
    (tmp_path / "not-a-run").mkdir()
    assert set(remove_old_runs(tmp_path, 2, {runs[1]})) == {runs[0], runs[2], runs[3]}
    assert run_names(tmp_path) == {runs[1], runs[4], runs[5], "images", "not-a-run"}


def test_images_go_with_the_last_snapshot_that_names_them(tmp_path):
    images = tmp_path / "images"
    run_folder(tmp_path, 1, 1, 2)
    kept = run_folder(tmp_path, 2, 2, 3)
    (images / ".half-of-a-killed-worker").write_bytes(b"half")
    assert len(list(images.iterdir())) == 4
    remove_old_runs(tmp_path, 1, frozenset())
    stay = {path.name for path in images.iterdir()}
    assert stay == {path.name for path in (kept / "snapshot" / "images").iterdir()}
    assert len(stay) == 2


def test_a_snapshot_that_stays_can_still_be_read_and_trained_on(world: World):
    world.settings = world.settings.model_copy(update={"train_keep_runs": 2})
    minutes = itertools.count(1)
    world.runs = TrainingRuns(world.registry.engine, lambda: 60.0 * next(minutes))
    world.annotate_many(20)
    runs = [world.train()]
    world.learner.promote_it = False
    for _ in range(3):
        world.registry.follow(world.annotate(1))
        runs.append(world.train())
    assert runs[0].outcome is Outcome.PROMOTED
    folder = world.settings.training_dir / str(world.project)
    assert {run.id for run in runs} & run_names(folder) == {runs[0].id, *(run.id for run in runs[2:])}
    for run in (runs[0], *runs[2:]):
        assert read_snapshot(world.snapshot(run).folder).digest == world.snapshot(run).digest


def test_a_training_is_done_even_if_old_ones_cannot_be_removed(world: World, monkeypatch):
    def fail(*_: object) -> None:
        raise OSError("read-only")

    monkeypatch.setattr("refcut_backend.training.pipeline.remove_old_runs", fail)
    world.annotate_many(20)
    assert world.train().outcome is Outcome.PROMOTED


OF_OTHER_TOOLS = {"a rectangle of 400 digits", "a rotation of 400 digits", "a polygon of 400 digits"}
"""The label config has no such tools, so these regions are not read."""


@pytest.mark.parametrize("name", [*ODD_ITEMS, *ODD_REGIONS])
def test_one_odd_annotation_is_left_out_by_name_and_the_others_train(world, name):
    odd = (ODD_ITEMS | ODD_REGIONS)[name]
    world.annotate_many(6)
    world.annotate(7, *odd)
    run = world.train()
    assert run.outcome is not Outcome.FAILED, run.message
    if name not in OF_OTHER_TOOLS:
        (problem,) = run.left_out
        assert problem.startswith("task 7, annotation 7: ")
        assert len(problem) < 300
    assert len(all_objects(world.snapshot(run))) == 6
