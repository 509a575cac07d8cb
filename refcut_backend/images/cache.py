"""The images a worker has at hand, known by their content: a changed file at the same address is another image."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Generic, TypeVar

import cv2
import numpy as np
from cachetools import LRUCache
from numpy.typing import NDArray

from refcut_backend.database.projects import Projects
from refcut_backend.errors import RefCutError
from refcut_backend.images.address import TaskImage
from refcut_backend.images.decode import decode_image
from refcut_backend.images.fetch import UNKNOWN, Fetched, ImageFetcher, Stamp, is_withdrawn
from refcut_backend.images.hidden_urls import Addresses
from refcut_backend.images.mounted_files import MountedFolders
from refcut_backend.images.prefetch import Fetch, Prefetcher
from refcut_backend.label_studio.allowed_hosts import AllowedHosts
from refcut_backend.settings import Settings

Key = TypeVar("Key")
Value = TypeVar("Value")


class ByteCache(Generic[Key, Value]):
    """size_of: bytes of a value. Values may grow: `keep` one again, and it is measured again."""

    def __init__(self, max_bytes: int, size_of: Callable[[Value], int]) -> None:
        self._cache: LRUCache[Key, Value] = LRUCache(max_bytes, getsizeof=size_of)

    def keep(self, key: Key, value: Value) -> None:
        """Stores a value, in the place of older ones; one that is larger than the whole cache is not kept."""
        try:
            self._cache[key] = value
        except ValueError:
            self._cache.pop(key, None)

    def get(self, key: Key) -> Value | None:
        """A value, which now counts as used."""
        value: Value | None = self._cache.get(key)
        return value

    def __getitem__(self, key: Key) -> Value:
        return self._cache[key]

    def __contains__(self, key: Key) -> bool:
        return key in self._cache

    def __len__(self) -> int:
        return len(self._cache)

    def keep_only(self, wanted: Callable[[Key], bool]) -> None:
        """Drops every value whose key is not wanted."""
        for key in [key for key in self._cache if not wanted(key)]:
            del self._cache[key]

    def clear(self) -> None:
        """Drops everything."""
        self._cache.clear()

    @property
    def nbytes(self) -> int:
        """Bytes of all values together, as last measured."""
        return int(self._cache.currsize)


log = logging.getLogger("refcut.worker")

WORKING_PX = 1280
"""Larger images are worked on at this longest side: the network sees crops of a few hundred pixels either way."""
KNOWN_ADDRESSES = 10_000
RECHECK_LIMIT_S = 2.0
"""A click waits no longer than this to hear whether its image still is the same."""

Image = NDArray[np.uint8]


@dataclass(frozen=True)
class WorkingImage:
    """An image as it is worked on. content: SHA-256 of the file. pixels: RGB (h, w, 3), at most WORKING_PX long.
    height, width: of the image as the browser shows it.
    """

    content: str
    pixels: Image
    height: int
    width: int


@dataclass(frozen=True)
class _Known:
    content: str
    stamp: Stamp
    checked: float


class ImageCache:
    """Fetches an image once, and looks from time to time whether it still is the same. To be used from one thread.

    decode: image file to RGB (H, W, 3), raising RefCutError. limit_s: longest fetch. recheck_s: age at which an image
    is compared with its source at the next use.
    """

    def __init__(
        self,
        fetch: Fetch,
        decode: Callable[[bytes], Image],
        *,
        max_bytes: int,
        limit_s: float,
        recheck_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._prefetcher = Prefetcher(fetch)
        self._decode = decode
        self._limit_s = limit_s
        self._recheck_s = recheck_s
        self._clock = clock
        self._images: ByteCache[str, WorkingImage] = ByteCache(max_bytes, lambda image: image.pixels.nbytes)
        self._known: LRUCache[TaskImage, _Known] = LRUCache(KNOWN_ADDRESSES)
        self._no_recheck_before: dict[int, float] = {}

    def needs_fetching(self, where: TaskImage, *, recheck: bool = False) -> bool:
        """Whether `open` would have to ask for the image, or whether it still is the same."""
        known = self._at_hand(where)
        return known is None or recheck or self._is_due(where, known)

    def begin(self, where: TaskImage) -> Future[Fetched] | None:
        """Begins to ask, for an `open` that follows; None when too much is under way already."""
        known = self._at_hand(where)
        return self._prefetcher.begin(where, UNKNOWN if known is None else known.stamp, self._limit_s)

    def known_content(self, where: TaskImage) -> str | None:
        """The image's hash when it was last asked for, without asking anyone."""
        known = self._known.get(where)
        return None if known is None else known.content

    def open(self, where: TaskImage, *, recheck: bool = False) -> WorkingImage:
        """The image. recheck: compare it with its source whatever its age. Raises RefCutError when it cannot be had."""
        known = self._at_hand(where)
        if known is not None:
            content = self._recheck(where, known) if recheck or self._is_due(where, known) else known.content
            image = self._images.get(content)
            if image is not None:
                return image
        return self._take_in(where, self._prefetcher.fetch(where, UNKNOWN, self._limit_s))

    def content_of(self, where: TaskImage) -> str:
        """What `open` would give, by its hash: fetched or compared only when needed. Raises RefCutError."""
        known = self._known.get(where)
        if known is None:
            return self.open(where).content
        return self._recheck(where, known) if self._is_due(where, known) else known.content

    def forget(self) -> None:
        """Drops everything."""
        self._prefetcher.forget()
        self._images.clear()
        self._known.clear()

    @property
    def nbytes(self) -> int:
        """Memory that the decoded images take."""
        return self._images.nbytes

    def _at_hand(self, where: TaskImage) -> _Known | None:
        known = self._known.get(where)
        return known if known is not None and known.content in self._images else None

    def _is_due(self, where: TaskImage, known: _Known) -> bool:
        now = self._clock()
        return now >= known.checked + self._recheck_s and now >= self._no_recheck_before.get(
            where.project_id, 0.0
        )

    def _recheck(self, where: TaskImage, known: _Known) -> str:
        """The content as it is now."""
        try:
            fetched = self._prefetcher.fetch(where, known.stamp, min(RECHECK_LIMIT_S, self._limit_s))
        except RefCutError as error:
            if is_withdrawn(error):
                del self._known[where]
                raise
            # Clicks go on while Label Studio is away; asking it about every image in turn would only delay them.
            log.warning(
                "image not compared with its source", extra={"task": where.task_id, "problem": str(error)}
            )
            self._no_recheck_before[where.project_id] = self._clock() + self._recheck_s
            return known.content
        if fetched.data is None:
            self._known[where] = _Known(known.content, known.stamp, self._clock())
            return known.content
        return self._take_in(where, fetched).content

    def _take_in(self, where: TaskImage, fetched: Fetched) -> WorkingImage:
        assert fetched.data is not None, "without a stamp there is always a body"
        content = hashlib.sha256(fetched.data).hexdigest()
        image = self._images.get(content)
        if image is None:
            image = shrunk(content, self._decode(fetched.data))
            self._images.keep(content, image)
        self._known[where] = _Known(content, fetched.stamp, self._clock())
        return image


def shrunk(content: str, image: Image) -> WorkingImage:
    """The working copy of an image (H, W, 3)."""
    height, width = image.shape[:2]
    scale = WORKING_PX / max(height, width)
    if scale < 1:
        size = (max(round(width * scale), 1), max(round(height * scale), 1))
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
    return WorkingImage(content, image, height, width)


def open_image_cache(settings: Settings, projects: Projects, addresses: Addresses) -> ImageCache:
    """Raises ConfigError for hosts in the settings that are none."""
    fetcher = _fetcher(settings)

    def fetch(where: TaskImage, known: Stamp, limit_s: float) -> Fetched:
        connection = projects.connection(where.project_id)
        return fetcher.fetch(addresses.read(where.address), where.task_id, connection, known, limit_s)

    return ImageCache(
        fetch,
        lambda data: decode_image(data, settings.image_max_pixels),
        max_bytes=settings.image_cache_max_bytes,
        limit_s=settings.image_timeout_s,
        recheck_s=settings.image_recheck_s,
    )


def read_image(settings: Settings, projects: Projects, addresses: Addresses, where: TaskImage) -> Image:
    """One image at full size, RGB (H, W, 3). Raises RefCutError that says what to do."""
    connection = projects.connection(where.project_id)
    fetched = _fetcher(settings).fetch(addresses.read(where.address), where.task_id, connection)
    return decode_image(fetched.data or b"", settings.image_max_pixels)


def _fetcher(settings: Settings) -> ImageFetcher:
    AllowedHosts.of([], settings.allowed_image_hosts)
    return ImageFetcher(
        max_bytes=settings.image_max_bytes,
        limit_s=settings.image_timeout_s,
        trusted_hosts=settings.allowed_image_hosts,
        folders=MountedFolders(settings.local_files_dir, settings.upload_dir),
    )
