"""The images of a project's trainings: PNG files named by their pixels, which all runs of the project share.

An index maps each image of a task to its file and to the stamp by which its source recognises that state. So a later
training decodes and stores only the images that have changed.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from model.files import atomic_write
from refcut_backend import __version__
from refcut_backend.errors import ImageError
from refcut_backend.images.address import TaskImage
from refcut_backend.images.cache import FetchedImage, working_copy
from refcut_backend.images.decode import pixels_digest
from refcut_backend.images.fetch import UNKNOWN, Stamp

log = logging.getLogger("refcut.training")

SUFFIX = ".png"
QUICK_PNG = (cv2.IMWRITE_PNG_COMPRESSION, 1)
INDEX_FILE = "images.json"
"""Name of the index, beside the folder of images."""


@dataclass(frozen=True)
class StoredImage:
    """An image of a project in its training folder.

    Attributes:
        content: SHA-256 of the stored pixels, which is also the file's name.
        height: Height of the stored image in pixels.
        width: Width of the stored image in pixels.
        full_height: Height of the image in the browser, in pixels.
        full_width: Width of the image in the browser, in pixels.
    """

    content: str
    height: int
    width: int
    full_height: int
    full_width: int

    @property
    def file_name(self) -> str:
        """Name of the file in the folder of images."""
        return f"{self.content}{SUFFIX}"


def content_of(file_name: str) -> str:
    """SHA-256 of the pixels of a stored image, from its file name."""
    return file_name.removesuffix(SUFFIX)


FetchImage = Callable[[TaskImage, Stamp], FetchedImage]
"""Fetches an image at full size unless it has not changed since the stamp. Raises RefCutError."""


class ProjectImages:
    """The PNG files of a project's images. Large images are stored at the size at which clicks are computed on them."""

    def __init__(self, folder: Path) -> None:
        """Open the images.

        Args:
            folder: Folder of the files; the index is beside it.
        """
        self._folder = folder
        self._index_path = folder.parent / INDEX_FILE
        self._index = _read_index(self._index_path)

    def known_content(self, where: TaskImage) -> str | None:
        """Return the content of an image when a training last read it; None if this folder does not know it."""
        image, _ = self._index.get(_key(where), (None, UNKNOWN))
        return None if image is None else image.content

    def read(self, where: TaskImage, fetch: FetchImage) -> StoredImage:
        """Return an image of a task as a stored file. Fetches it only if its source says that it has changed.

        Args:
            where: The image.
            fetch: Fetches it.

        Raises:
            RefCutError: The image cannot be fetched or decoded.
            OSError: If the disk is full.
        """
        key = _key(where)
        image, stamp = self._index.get(key, (None, UNKNOWN))
        if image is None or not (self._folder / image.file_name).exists():
            image, stamp = None, UNKNOWN
        fetched = fetch(where, stamp)
        if fetched.pixels is not None:
            image = self.add(fetched.pixels)
        assert image is not None, "without a stamp there are always pixels"
        self._index[key] = image, fetched.stamp
        return image

    def add(self, image: NDArray[np.uint8]) -> StoredImage:
        """Store an image unless an image with the same pixels is there.

        Args:
            image: RGB (H, W, 3) uint8, at full size.

        Raises:
            OSError: If the disk is full.
        """
        working = working_copy("", image)
        pixels = np.ascontiguousarray(working.pixels)
        height, width = pixels.shape[:2]
        content = pixels_digest(pixels)
        stored = StoredImage(content, height, width, working.height, working.width)
        path = self._folder / stored.file_name
        if not path.exists():
            ok, png = cv2.imencode(".png", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), QUICK_PNG)
            if not ok:
                raise ImageError("the image cannot be written as PNG")
            # A run may be killed at any time, and two runs of one project may share the folder.
            with atomic_write(path, shared=True) as temporary:
                temporary.write_bytes(png.tobytes())
        return stored

    def put_into(self, folder: Path, file_name: str) -> None:
        """Put a stored file into another folder too: as a hard link if the file system allows it, else as a copy."""
        target = folder / file_name
        try:
            os.link(self._folder / file_name, target)
        except OSError:
            shutil.copyfile(self._folder / file_name, target)

    def save_index(self) -> None:
        """Write the index for later trainings. Raises OSError if the disk is full."""
        images = {
            key: {"image": asdict(image), "stamp": asdict(stamp)}
            for key, (image, stamp) in self._index.items()
        }
        with atomic_write(self._index_path, shared=True) as temporary:
            temporary.write_text(json.dumps({"code_version": __version__, "images": images}))


def _key(where: TaskImage) -> str:
    """Names an image without its address, which may be a signed URL."""
    return hashlib.sha256(f"{where.task_id} {where.address}".encode()).hexdigest()


def _read_index(path: Path) -> dict[str, tuple[StoredImage, Stamp]]:
    """Empty if it is missing, damaged, or of another version, which may decode images differently."""
    try:
        stored = json.loads(path.read_text())
        if stored["code_version"] != __version__:
            return {}
        return {
            key: (StoredImage(**one["image"]), Stamp(**one["stamp"])) for key, one in stored["images"].items()
        }
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        log.warning("a damaged index of images is replaced", extra={"problem": type(error).__name__})
        return {}
