"""Pictures of references."""

from __future__ import annotations

import gc
import weakref

import cv2
import numpy as np
import pytest

from refcut_backend.errors import ImageError
from refcut_backend.images.address import TaskImage
from refcut_backend.references.pictures import ReferencePictures, Size
from refcut_backend.references.selection import NoSuchReferenceError
from tests.support.label_studio_api import LabelStudioApi
from tests.support.registry import DOOR, WHEEL, Registry, marked


class Photographs:
    """Gives a grey photograph, and counts how often."""

    def __init__(self, height: int = 2000, width: int = 6000) -> None:
        self.read: list[TaskImage] = []
        self.fails_with: Exception | None = None
        self._size = (height, width, 3)

    def __call__(self, where: TaskImage) -> np.ndarray:
        self.read.append(where)
        if self.fails_with is not None:
            raise self.fails_with
        return np.full(self._size, 120, np.uint8)


@pytest.fixture
def reference_id(registry: Registry) -> int:
    registry.connect(LabelStudioApi())
    registry.follow(LabelStudioApi().annotate(1, 10, DOOR, marked(DOOR), WHEEL))
    (found,) = registry.references.of_label(7, "Door")
    return found.id


def shown(data: bytes) -> np.ndarray:
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert pixels is not None
    return pixels.astype(int)


def test_a_thumbnail_shows_the_surroundings_and_a_large_picture_the_photograph(
    registry: Registry, reference_id: int
) -> None:
    pictures = ReferencePictures(registry.references, Photographs())
    small, large = (shown(pictures.jpeg(7, reference_id, size)) for size in Size)
    assert max(small.shape[:2]) <= Size.SMALL
    assert large.shape[:2] == (533, Size.LARGE)
    green, red = large[..., 1] - large[..., 2] > 80, large[..., 2] - large[..., 1] > 80
    assert green[:, :800].any()
    assert not green[:, 800:].any()
    assert red[:, 800:].any()
    assert (small[..., 1] - small[..., 2] > 80).mean() > 3 * green.mean()


def test_a_photograph_is_read_once_for_a_picture_however_often_it_is_shown(
    registry: Registry, reference_id: int
) -> None:
    photographs = Photographs()
    pictures = ReferencePictures(registry.references, photographs)
    assert len({pictures.jpeg(7, reference_id, Size.SMALL) for _ in range(3)}) == 1
    assert len(photographs.read) == 1


def test_a_photograph_that_cannot_be_read_is_not_fetched_for_every_look(
    registry: Registry, reference_id: int
) -> None:
    photographs = Photographs()
    photographs.fails_with = ImageError("it is gone", hint="restore it")
    pictures = ReferencePictures(registry.references, photographs)
    for _ in range(3):
        with pytest.raises(ImageError, match="it is gone"):
            pictures.jpeg(7, reference_id, Size.SMALL)
    assert len(photographs.read) == 1


def test_a_failure_that_is_kept_keeps_nothing_of_the_photograph_in_memory(
    registry: Registry, reference_id: int
) -> None:
    files: list[weakref.ref[np.ndarray]] = []

    def read(where: TaskImage) -> np.ndarray:
        file = np.zeros(10, np.uint8)
        files.append(weakref.ref(file))
        raise ImageError("it is damaged", hint="restore it")

    pictures = ReferencePictures(registry.references, read)
    for _ in range(2):
        with pytest.raises(ImageError, match="it is damaged; restore it") as found:
            pictures.jpeg(7, reference_id, Size.SMALL)
        assert (found.value.code, found.value.hint) == ("image", "restore it")
        del found
        gc.collect()
        assert files[0]() is None


def test_a_reference_of_another_project_is_not_drawn(registry: Registry, reference_id: int) -> None:
    with pytest.raises(NoSuchReferenceError):
        ReferencePictures(registry.references, Photographs()).jpeg(8, reference_id, Size.SMALL)
