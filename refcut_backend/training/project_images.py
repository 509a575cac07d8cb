"""A project's images as its trainings see them: one file for the same pixels, shared by all runs."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from refcut_backend.errors import ImageError
from refcut_backend.images.cache import shrunk

SUFFIX = ".png"
QUICK_PNG = (cv2.IMWRITE_PNG_COMPRESSION, 1)


@dataclass(frozen=True)
class StoredImage:
    """content: SHA-256 of the pixels as they are stored, which names the file. height, width: of those.

    full_height, full_width: of the image as the browser shows it.
    """

    content: str
    height: int
    width: int
    full_height: int
    full_width: int

    @property
    def file_name(self) -> str:
        return f"{self.content}{SUFFIX}"


def content_of(file_name: str) -> str:
    """The hash that names a stored image's file."""
    return file_name.removesuffix(SUFFIX)


class ProjectImages:
    """PNG files in one folder. Larger images are kept at the size at which clicks are computed on them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def keep(self, image: NDArray[np.uint8]) -> StoredImage:
        """Stores an image, RGB (H, W, 3), unless its pixels are there. Raises OSError when the disk is full."""
        working = shrunk("", image)
        pixels = np.ascontiguousarray(working.pixels)
        height, width = pixels.shape[:2]
        content = hashlib.sha256(f"{height}x{width} ".encode() + pixels.tobytes()).hexdigest()
        stored = StoredImage(content, height, width, working.height, working.width)
        path = self._folder / stored.file_name
        if not path.exists():
            ok, data = cv2.imencode(".png", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), QUICK_PNG)
            if not ok:
                raise ImageError("the image cannot be written as PNG")
            self._write(path, data.tobytes())
        return stored

    def put_into(self, folder: Path, file_name: str) -> None:
        """The stored file in another folder too, without a copy where the file system can do that."""
        target = folder / file_name
        try:
            os.link(self._folder / file_name, target)
        except OSError:
            shutil.copyfile(self._folder / file_name, target)

    def _write(self, path: Path, data: bytes) -> None:
        """Whole or not at all: a run may be killed at any time."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=self._folder, prefix=".", delete=False) as file:
            temporary = Path(file.name)
            try:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
                temporary.replace(path)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
