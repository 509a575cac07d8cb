"""Sets of references: one file that moves them between projects and Label Studios."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import pytest
from sqlalchemy import func, select

from refcut_backend.database.tables import ReferenceImage
from refcut_backend.errors import BadRequestError, LabelConfigError
from refcut_backend.images.address import TaskImage
from refcut_backend.images.cache import open_image_cache, read_image
from refcut_backend.images.hidden_urls import Addresses
from refcut_backend.images.uploads import Uploads
from refcut_backend.label_studio.connection import Connection
from refcut_backend.references.manage import ReferenceManager
from refcut_backend.references.selection import (
    Authors,
    NoSuchReferenceError,
    OwnerRule,
    ReferenceSelector,
    State,
)
from refcut_backend.references.sets import MANIFEST, MAX_FILES, ReferenceSets
from refcut_backend.settings import Settings
from tests.support.label_studio_api import LabelStudioApi
from tests.support.recorded import LABEL_CONFIG, brush_result
from tests.support.registry import Registry, marked

HEIGHT, WIDTH = 900, 1600
OTHER = 8


def part(left: int) -> np.ndarray:
    mask_hw = np.zeros((HEIGHT, WIDTH), bool)
    mask_hw[300:500, left : left + 200] = True
    return mask_hw


DOOR, WHEEL = brush_result("d", "Door", part(100)), brush_result("w", "Wheel", part(900))


@dataclass
class Sets:
    """Project 7 with a reference of Door and one of Wheel, and project 8 with none."""

    registry: Registry
    api: LabelStudioApi
    sets: ReferenceSets
    manager: ReferenceManager

    def versions(self, project_id: int) -> dict[str, list[State]]:
        return {
            found.label: [row.state for row in found.rows]
            for found in self.manager.by_label(project_id)
            if found.total
        }


@pytest.fixture
def world(registry: Registry, label_studio_api: LabelStudioApi) -> Sets:
    ok, file = cv2.imencode(".png", np.tile(np.arange(WIDTH) % 251, (HEIGHT, 1)).astype(np.uint8))
    assert ok
    label_studio_api.images["10.png"] = file.tobytes()
    registry.follow(label_studio_api.annotate(1, 10, DOOR, marked(DOOR), WHEEL, marked(WHEEL)))
    registry.projects.remember(OTHER, Connection("http://other.test", "t"), LABEL_CONFIG)
    uploads, settings = Uploads(registry.engine), Settings()

    def read(where: TaskImage) -> np.ndarray:
        return read_image(settings, registry.projects, Addresses(registry.engine), uploads, where)

    sets = ReferenceSets(registry.engine, registry.references, registry.projects, uploads, read, settings)
    manager = ReferenceManager(registry.references, registry.projects, uploads, registry.reconciler, 4)
    return Sets(registry, label_studio_api, sets, manager)


def changed(data: bytes, change: Callable[[dict[str, bytes]], None]) -> bytes:
    """A set with other files."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    change(files)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return out.getvalue()


def renamed(old: str, new: str) -> Callable[[dict[str, bytes]], None]:
    def change(files: dict[str, bytes]) -> None:
        files[MANIFEST] = files[MANIFEST].replace(f'"{old}"'.encode(), f'"{new}"'.encode())

    return change


def test_a_set_brings_the_references_of_one_project_into_use_in_another(world: Sets) -> None:
    exported = world.sets.export(7)
    assert (exported.references, exported.left_out) == (2, ())
    assert str(world.sets.import_(OTHER, exported.data)) == "2 references added"
    assert world.versions(OTHER) == {"Door": [State.EXPLICITLY_ADDED], "Wheel": [State.EXPLICITLY_ADDED]}
    (door,) = world.registry.references.newest(OTHER, "Door", 4)
    stored = world.registry.references.load(door.id)
    assert stored is not None
    height, width = stored.positive_hw.shape
    assert (height, width) == (720, 1280)
    expected = cv2.resize(part(100).astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST)
    overlap = (stored.positive_hw & (expected > 0)).sum() / (stored.positive_hw | (expected > 0)).sum()
    assert overlap > 0.98
    assert stored.negative_hw is not None


def test_a_worker_reads_the_photograph_of_an_imported_reference_in_its_project_alone(world: Sets) -> None:
    world.sets.copy(7, OTHER)
    (door,) = world.registry.references.newest(OTHER, "Door", 4)
    stored = world.registry.references.load(door.id)
    assert stored is not None
    engine = world.registry.engine
    images = open_image_cache(Settings(), world.registry.projects, Addresses(engine), Uploads(engine))
    found = images.open(TaskImage(OTHER, 0, stored.image_address))
    assert found.pixels.shape[:2] == stored.positive_hw.shape
    with pytest.raises(Exception, match="is gone"):
        images.open(TaskImage(7, 0, stored.image_address))


def test_importing_a_set_again_adds_nothing_also_after_it_went_through_another_project(world: Sets) -> None:
    world.sets.copy(7, OTHER)
    assert str(world.sets.copy(7, OTHER)) == "0 references added, 2 were there already"
    back = world.sets.export(OTHER)
    assert world.sets.import_(OTHER, back.data).known == 2


def test_a_set_has_the_order_that_the_owner_chose(world: Sets) -> None:
    for number in (2, 3):
        world.api.images[f"{10 * number}.png"] = world.api.images["10.png"]
        door = brush_result("d", "Door", part(100 * number))
        world.registry.follow(world.api.annotate(number, 10 * number, door, marked(door)))
    world.manager.move(7, ReferenceSelector("Door", 10), 1)

    def lefts(project_id: int) -> list[int]:
        """Where the doors are, as shares of the width, in the order of use."""
        found = world.registry.references.newest(project_id, "Door", 4)
        stored = [world.registry.references.load(one.id) for one in found]
        columns = [one.positive_hw.any(axis=0) for one in stored if one is not None]
        return [round(WIDTH * int(shown.argmax()) / len(shown) / 100) for shown in columns]

    assert lefts(7) == [1, 3, 2]
    world.sets.copy(7, OTHER)
    assert lefts(OTHER) == [1, 3, 2]


def test_imported_references_survive_comparisons_and_restricted_authors(world: Sets) -> None:
    world.sets.import_(7, world.sets.export(7).data)
    before = world.registry.state()
    world.registry.references.authors = Authors.read("99")
    world.registry.later(3600)
    world.registry.reconciler.compare(7)
    world.registry.reconciler.compare(7)
    assert world.registry.state() == before
    assert State.EXPLICITLY_ADDED in world.versions(7)["Door"]


def test_an_imported_reference_is_disabled_pinned_and_removed_as_any_other(world: Sets) -> None:
    world.sets.copy(7, OTHER)
    (door,) = world.registry.references.of_label(OTHER, "Door")
    one = ReferenceSelector("Door", None, door.annotation_id)
    world.manager.disable(OTHER, one)
    assert world.versions(OTHER)["Door"] == [State.DISABLED]
    world.manager.enable(OTHER, one)
    world.manager.pin(OTHER, one)
    assert world.versions(OTHER)["Door"] == [State.PINNED]
    world.manager.unpin(OTHER, one)
    world.manager.remove(OTHER, one)
    assert "Door" not in world.versions(OTHER)
    assert world.manager.rules_without_reference(OTHER) == []


def test_the_photograph_goes_with_the_last_reference_on_it(world: Sets) -> None:
    world.sets.copy(7, OTHER)
    uploads = Uploads(world.registry.engine)
    numbers = {}
    for label in ("Door", "Wheel"):
        (found,) = world.registry.references.of_label(OTHER, label)
        numbers[label] = found.annotation_id
    stored = world.registry.references.load(world.registry.references.of_label(OTHER, "Wheel")[0].id)
    assert stored is not None
    world.manager.remove(OTHER, ReferenceSelector("Door", None, numbers["Door"]))
    assert uploads.of_reference(OTHER, stored.image_address)
    world.manager.remove(OTHER, ReferenceSelector("Wheel", None, numbers["Wheel"]))
    with pytest.raises(Exception, match="is gone"):
        uploads.of_reference(OTHER, stored.image_address)


def test_a_removal_during_an_import_takes_no_photograph_of_it(world: Sets, monkeypatch) -> None:
    uploads, rules = Uploads(world.registry.engine), world.registry.references.rules
    add = rules.add

    def add_while_another_request_removes(project_id: int, rule: OwnerRule) -> bool:
        uploads.drop_unused(OTHER)
        return add(project_id, rule)

    world.manager.disable(7, ReferenceSelector("Wheel"))
    monkeypatch.setattr(rules, "add", add_while_another_request_removes)
    assert world.sets.copy(7, OTHER).added == 1
    (found,) = world.registry.references.of_label(OTHER, "Door")
    stored = world.registry.references.load(found.id)
    assert stored is not None
    assert uploads.of_reference(OTHER, stored.image_address)


def test_a_set_that_a_full_project_refuses_leaves_nothing_in_the_database(world: Sets, monkeypatch) -> None:
    monkeypatch.setattr("refcut_backend.references.sets.MAX_IMPORTED", 0)
    with pytest.raises(BadRequestError, match="references from sets"):
        world.sets.copy(7, OTHER)
    with world.registry.engine.connect() as connection:
        assert connection.scalar(select(func.count()).select_from(ReferenceImage)) == 0
    assert world.manager.rules_without_reference(OTHER) == []


def test_labels_are_found_by_name_and_others_are_named(world: Sets) -> None:
    data = changed(world.sets.export(7).data, renamed("Door", "DOOR "))
    found = world.sets.import_(OTHER, changed(data, renamed("Wheel", "<b>Tyre")))
    assert found.added == 1
    assert set(world.versions(OTHER)) == {"Door"}
    assert found.left_out == ("the label config has no label '<b>Tyre' for masks",)


def mask_file(height: int, width: int, value: int) -> bytes:
    ok, data = cv2.imencode(".png", np.full((height, width), value, np.uint8))
    assert ok
    return data.tobytes()


@pytest.mark.parametrize(
    ("which", "content", "reason"),
    [
        ("positive", mask_file(720, 1280, 0), "marks nothing"),
        ("positive", mask_file(10, 10, 255), "photograph's size"),
        ("positive", mask_file(720, 1280, 255)[:60], "photograph's size"),
        ("negative", b"GIF89a", "photograph's size"),
        ("image", b"<svg onload=alert(1)>", "not an image"),
        ("image", None, "no readable file"),
    ],
)
def test_a_damaged_reference_is_left_out_and_the_others_are_added(
    world: Sets, which: str, content: bytes | None, reason: str
) -> None:
    def damage(files: dict[str, bytes]) -> None:
        manifest = json.loads(files[MANIFEST])
        manifest["references"][0][which] = "another file"
        files[MANIFEST] = json.dumps(manifest).encode()
        if content is not None:
            files["another file"] = content

    found = world.sets.import_(OTHER, changed(world.sets.export(7).data, damage))
    assert (found.added, len(found.left_out)) == (1, 1)
    assert reason in found.left_out[0]
    assert set(world.versions(OTHER)) == {"Wheel"}
    assert world.manager.rules_without_reference(OTHER) == []


def test_a_file_that_cannot_be_unpacked_is_a_damaged_reference(world: Sets) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(world.sets.export(7).data)) as archive:
        first = json.loads(archive.read(MANIFEST))["references"][0]["positive"]
        with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as packed:
            for name in archive.namelist():
                packed.writestr(name, archive.read(name))
            begin = packed.getinfo(first).header_offset + 30 + len(first)
    data = bytearray(out.getvalue())
    data[begin] = 0b111  # no type of block that Deflate has
    found = world.sets.import_(OTHER, bytes(data))
    # What is meant in one of the references must stay out in the other.
    assert found.added == 0
    assert len(found.left_out) == 2
    assert all("no readable file" in one for one in found.left_out)


@pytest.mark.parametrize("packing", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_a_packing_that_may_take_any_amount_of_memory_is_refused(world: Sets, packing: int) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", packing) as archive:
        archive.writestr(MANIFEST, b'{"references": []}')
    with pytest.raises(BadRequestError, match="unknown way"):
        world.sets.import_(OTHER, out.getvalue())


def test_a_set_of_very_many_files_is_refused_before_they_are_listed(world: Sets, monkeypatch) -> None:
    data = changed(
        world.sets.export(7).data, lambda files: files.update({str(at): b"" for at in range(MAX_FILES)})
    )
    monkeypatch.setattr(zipfile, "ZipFile", None)
    with pytest.raises(BadRequestError, match="too many files"):
        world.sets.import_(OTHER, data)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"PK\x03\x04 no zip",
        changed(zip_of := b"PK\x05\x06" + bytes(18), lambda files: files.update({MANIFEST: b"{"})),
        changed(zip_of, lambda files: files.update({MANIFEST: b'{"format": 2, "references": []}'})),
        changed(zip_of, lambda files: files.update({"other.txt": b"x"})),
        changed(
            zip_of,
            lambda files: files.update(
                {MANIFEST: b'{"references": [{"label": "a\\u0000", "image": "i", "positive": "p"}]}'}
            ),
        ),
    ],
)
def test_a_file_that_is_no_set_is_refused(world: Sets, data: bytes) -> None:
    with pytest.raises(BadRequestError):
        world.sets.import_(OTHER, data)


def test_a_set_that_unpacks_to_more_than_the_limit_is_refused_before_it_is_unpacked(world: Sets) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(MANIFEST, bytes(9 * 2**20))
    with pytest.raises(BadRequestError, match="too large"):
        world.sets.import_(OTHER, out.getvalue())


def test_a_project_without_references_or_labels_says_so(world: Sets) -> None:
    data = world.sets.export(7).data
    with pytest.raises(NoSuchReferenceError, match="no reference that could be exported"):
        world.sets.export(OTHER)
    with pytest.raises(BadRequestError, match="own references"):
        world.sets.copy(7, 7)
    world.registry.projects.remember(9, Connection("http://other.test", "t"), "<View/>")
    with pytest.raises(LabelConfigError):
        world.sets.import_(9, data)
