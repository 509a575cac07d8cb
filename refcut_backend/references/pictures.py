"""Pictures of references: their photographs with the outlines of their masks, in full and as thumbnails of pages."""

from __future__ import annotations

import threading
from collections.abc import Callable
from enum import IntEnum

import cv2
import numpy as np
from cachetools import TTLCache
from numpy.typing import NDArray

from refcut_backend.errors import RefCutError
from refcut_backend.images.address import TaskImage
from refcut_backend.images.cache import ByteCache, Image
from refcut_backend.images.decode import fitted_mask
from refcut_backend.references.registry import References, StoredReference
from refcut_backend.references.selection import NoSuchReferenceError

GREEN, RED, WHITE = (40, 200, 60), (230, 50, 40), (255, 255, 255)


def draw_reference(
    image_rgb: NDArray[np.uint8],
    positive_hw: NDArray[np.bool_],
    negative_hw: NDArray[np.bool_] | None,
    thinnest_px: int = 1,
) -> NDArray[np.uint8]:
    """Draws the outlines of a reference onto a copy of its image.

    Masks of another size than the image are scaled to it: the image was replaced after it was annotated.

    Args:
        image_rgb: The image, (H, W, 3) uint8 RGB.
        positive_hw: Pixels that belong to the label, (H, W); outlined in green.
        negative_hw: Pixels that do not, (H, W); outlined in red. None if unknown.
        thinnest_px: Smallest width of the outlines in pixels.

    Returns:
        The drawing, (H, W, 3) uint8 RGB.
    """
    out = image_rgb.copy()
    thickness = max(thinnest_px, round(max(out.shape[:2]) / 400))
    for mask_hw, colour in ((negative_hw, RED), (positive_hw, GREEN)):
        if mask_hw is None:
            continue
        size = (out.shape[1], out.shape[0])
        on_image = cv2.resize(mask_hw.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
        outlines, _ = cv2.findContours(on_image, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(out, outlines, -1, WHITE, thickness + 2)
        cv2.drawContours(out, outlines, -1, colour, thickness)
    return out


def as_png(image_rgb: NDArray[np.uint8]) -> bytes:
    """Encodes an image, (H, W, 3) uint8 RGB, as a PNG file."""
    ok, data = cv2.imencode(".png", cv2.cvtColor(image_rgb, cv2.COLOR_RGB2BGR))
    assert ok, "OpenCV always writes PNG"
    return data.tobytes()


class Size(IntEnum):
    """Longest side of a picture in pixels."""

    SMALL = 480
    LARGE = 1600


MAX_BYTES = 48 * 2**20
"""Limit of all pictures that a process keeps."""
RETRY_AFTER_S = 60.0
"""A photograph that could not be read is not fetched again for this time."""
MAX_FAILED = 1000
MARGIN = 0.7
"""A thumbnail shows the masks with this share of their size around them."""
JPEG_QUALITY = 85


class ReferencePictures:
    """Draws references as JPEG files, and keeps them. Thread-safe."""

    def __init__(self, references: References, read_image: Callable[[TaskImage], Image]) -> None:
        """Prepares an empty cache.

        Args:
            references: The references.
            read_image: Returns a photograph at full size, (H, W, 3) uint8 RGB; raises RefCutError.
        """
        self._references = references
        self._read_image = read_image
        self._lock = threading.Lock()
        self._known: ByteCache[tuple[int, str, Size], bytes] = ByteCache(MAX_BYTES, len)
        self._failed: TTLCache[tuple[int, str], RefCutError] = TTLCache(MAX_FAILED, RETRY_AFTER_S)

    def jpeg(self, project_id: int, reference_id: int, size: Size) -> bytes:
        """Draws a reference, or takes the picture from the cache.

        Args:
            project_id: Only references of this project are drawn.
            reference_id: Row of the reference.
            size: A small picture shows the surroundings of the masks, a large one the whole photograph.

        Returns:
            A JPEG file.

        Raises:
            NoSuchReferenceError: The project has no such reference.
            RefCutError: The photograph cannot be read.
        """
        stored = self._references.load(reference_id)
        if stored is None or stored.project_id != project_id:
            raise NoSuchReferenceError("there is no such reference", hint="reload the page")
        with self._lock:
            known = self._known.get((reference_id, stored.version, size))
            failed = self._failed.get((reference_id, stored.version))
        if failed is not None:
            raise _without_frames(failed)
        if known is not None:
            return known
        try:
            picture = self._draw(stored, size)
        except RefCutError as error:
            with self._lock:
                self._failed[reference_id, stored.version] = _without_frames(error)
            raise
        with self._lock:
            self._known.store((reference_id, stored.version, size), picture)
        return picture

    def _draw(self, stored: StoredReference, size: Size) -> bytes:
        where = TaskImage(stored.project_id, stored.task_id, stored.image_address)
        image = self._read_image(where)
        full_hw = image.shape[:2]
        positive_hw, negative_hw = fitted_mask(stored.positive_hw, *full_hw), stored.negative_hw
        negative_hw = None if negative_hw is None else fitted_mask(negative_hw, *full_hw)
        if size is Size.SMALL:
            rows, columns = _surroundings(positive_hw)
            image, positive_hw = image[rows, columns], positive_hw[rows, columns]
            negative_hw = None if negative_hw is None else negative_hw[rows, columns]
        scale = min(size / max(image.shape[:2]), 1.0)
        height, width = (max(round(side * scale), 1) for side in image.shape[:2])
        small = np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
        drawn = draw_reference(
            small,
            fitted_mask(positive_hw, height, width),
            None if negative_hw is None else fitted_mask(negative_hw, height, width),
            thinnest_px=3,
        )
        ok, data = cv2.imencode(
            ".jpg", cv2.cvtColor(drawn, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
        )
        assert ok, "OpenCV always writes JPEG"
        return data.tobytes()


def _without_frames(error: RefCutError) -> RefCutError:
    """A copy without the traceback, which would keep the file and the decoded photograph in memory."""
    copied = type(error).__new__(type(error), *error.args)
    vars(copied).update(vars(error))
    return copied


def _surroundings(mask_hw: NDArray[np.bool_]) -> tuple[slice, slice]:
    """Rows and columns of a mask (H, W) with a margin; everything for an empty mask."""
    found = [np.flatnonzero(mask_hw.any(axis=axis)) for axis in (1, 0)]
    if not len(found[0]):
        return slice(None), slice(None)
    margin_px = round(MARGIN * max(int(places[-1] - places[0]) + 1 for places in found))
    rows, columns = (slice(max(int(p[0]) - margin_px, 0), int(p[-1]) + margin_px + 1) for p in found)
    return rows, columns
