"""A worker's cache of decoded images, keyed by content: a changed file at the same address is another image."""

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
from cachetools import Cache, LRUCache
from numpy.typing import NDArray

from refcut_backend.database.projects import Projects
from refcut_backend.errors import ImageError, RefCutError
from refcut_backend.images.address import TaskImage
from refcut_backend.images.decode import decode_image
from refcut_backend.images.fetch import UNKNOWN, Fetched, ImageFetcher, Stamp, is_withdrawn
from refcut_backend.images.hidden_urls import Addresses
from refcut_backend.images.mounted_files import MountedFolders
from refcut_backend.images.prefetch import Fetch, Prefetcher
from refcut_backend.images.uploads import Uploads, key_of
from refcut_backend.label_studio.allowed_hosts import AllowedHosts
from refcut_backend.label_studio.project_ids import NO_PROJECT
from refcut_backend.settings import Settings

Key = TypeVar("Key")
Value = TypeVar("Value")


class ByteCache(Generic[Key, Value]):
    """A cache that drops the least recently used values when their sizes exceed a limit.

    >>> cache = ByteCache(max_bytes=10, size_of=len)
    >>> cache.store("a", b"123456")
    >>> cache.store("b", b"1234567")
    >>> "a" in cache, "b" in cache
    (False, True)
    """

    def __init__(self, max_bytes: int, size_of: Callable[[Value], int]) -> None:
        """Creates an empty cache.

        Args:
            max_bytes: Limit for all values together.
            size_of: Returns the size of a value in bytes. If a value grows, `store` it again to measure it again.
        """
        self._cache: LRUCache[Key, Value] = LRUCache(max_bytes, getsizeof=size_of)

    def store(self, key: Key, value: Value) -> None:
        """Stores a value and drops others as needed. A value larger than the limit is not stored."""
        try:
            self._cache[key] = value
        except ValueError:
            self._cache.pop(key, None)

    def get(self, key: Key) -> Value | None:
        """Returns a value and marks it as used; None if it is not cached."""
        value: Value | None = self._cache.get(key)
        return value

    def __getitem__(self, key: Key) -> Value:
        return self._cache[key]

    def __contains__(self, key: Key) -> bool:
        return key in self._cache

    def __len__(self) -> int:
        return len(self._cache)

    def retain(self, is_needed: Callable[[Key], bool]) -> None:
        """Drops every value for whose key `is_needed` is false."""
        for key in [key for key in self._cache if not is_needed(key)]:
            del self._cache[key]

    def clear(self) -> None:
        """Drops everything."""
        self._cache.clear()

    def repair(self) -> None:
        """Rebuilds the book-keeping from the values, after `store` or `get` was interrupted at any place.

        The order of use is lost; sizes are measured again.
        """
        interrupted = self._cache
        self._cache = LRUCache(interrupted.maxsize, getsizeof=interrupted.getsizeof)
        for key in list(interrupted):
            self.store(key, Cache.__getitem__(interrupted, key))

    @property
    def nbytes(self) -> int:
        """Size of all values together, as last measured."""
        return int(self._cache.currsize)


log = logging.getLogger("refcut.worker")

WORKING_PX = 1280
"""Longest side of working images. The network sees crops of a few hundred pixels anyway."""
JPEG_QUALITY = 95
"""Of files at the working size."""
KNOWN_ADDRESSES = 10_000
"""Number of images whose content hash is remembered after their pixels were dropped."""
RECHECK_LIMIT_S = 2.0
"""Longest wait of a click for the answer whether its image has changed."""

Image = NDArray[np.uint8]


@dataclass(frozen=True)
class WorkingImage:
    """An image at its working size.

    Attributes:
        content: SHA-256 of the file.
        pixels: (h, w, 3) uint8 RGB, with a longest side of at most WORKING_PX.
        height: Height in pixels of the image as the browser shows it.
        width: Width in pixels of the image as the browser shows it.
    """

    content: str
    pixels: Image
    height: int
    width: int


@dataclass(frozen=True)
class _Known:
    """What is known of an address: its content, the server's stamp for it, and when it was checked (monotonic)."""

    content: str
    stamp: Stamp
    checked: float


class ImageCache:
    """Fetches and decodes images, caches them, and checks from time to time whether they changed. Not thread-safe.

    An image is compared with its source when it is used and its last check is older than `recheck_s`. If the source does
    not answer, the cached image is used, and no other image of the project is checked for `recheck_s`.
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
        """Creates an empty cache.

        Args:
            fetch: Fetches a file's bytes.
            decode: Decodes a file to (H, W, 3) uint8 RGB; raises RefCutError.
            max_bytes: Limit for the decoded images.
            limit_s: Longest time for one fetch, in seconds.
            recheck_s: Age in seconds at which an image is compared with its source.
            clock: Monotonic clock in seconds.
        """
        self._prefetcher = Prefetcher(fetch)
        self._decode = decode
        self._limit_s = limit_s
        self._recheck_s = recheck_s
        self._clock = clock
        self._images: ByteCache[str, WorkingImage] = ByteCache(max_bytes, lambda image: image.pixels.nbytes)
        self._known: LRUCache[TaskImage, _Known] = LRUCache(KNOWN_ADDRESSES)
        self._no_recheck_before: dict[int, float] = {}

    def needs_fetching(self, where: TaskImage, *, recheck: bool = False) -> bool:
        """Whether `open` would send a request, for the image or for the check whether it changed."""
        known = self._cached(where)
        return known is None or recheck or self._is_due(where, known)

    def begin(self, where: TaskImage) -> Future[Fetched] | None:
        """Begins the request of a later `open` in the background; returns None if too many are in progress."""
        known = self._cached(where)
        return self._prefetcher.begin(where, UNKNOWN if known is None else known.stamp, self._limit_s)

    def known_content(self, where: TaskImage) -> str | None:
        """Returns the image's content hash at the last check, without a request; None if it was never fetched."""
        known = self._known.get(where)
        return None if known is None else known.content

    def open(self, where: TaskImage, *, recheck: bool = False) -> WorkingImage:
        """Returns an image, fetched or compared with its source only if needed.

        Args:
            where: The image.
            recheck: Compares it with its source whatever its age.

        Raises:
            RefCutError: The image cannot be fetched or decoded.
        """
        known = self._cached(where)
        if known is not None:
            content = self._recheck(where, known) if recheck or self._is_due(where, known) else known.content
            image = self._images.get(content)
            if image is not None:
                return image
        return self._store(where, self._prefetcher.fetch(where, UNKNOWN, self._limit_s))

    def content_of(self, where: TaskImage) -> str:
        """Returns the content hash of the image that `open` would return. Raises RefCutError."""
        known = self._known.get(where)
        if known is None:
            return self.open(where).content
        return self._recheck(where, known) if self._is_due(where, known) else known.content

    def forget(self) -> None:
        """Drops everything."""
        self._prefetcher.forget()
        self._images.clear()
        self._known.clear()

    def repair(self) -> None:
        """Makes the cache consistent after a job was interrupted at any place; complete images are kept."""
        self._images.repair()
        known = self._known
        self._known = LRUCache(known.maxsize)
        self._known.update({where: Cache.__getitem__(known, where) for where in list(known)})

    @property
    def nbytes(self) -> int:
        """Size of the decoded images in bytes."""
        return self._images.nbytes

    def _cached(self, where: TaskImage) -> _Known | None:
        known = self._known.get(where)
        return known if known is not None and known.content in self._images else None

    def _is_due(self, where: TaskImage, known: _Known) -> bool:
        now = self._clock()
        return now >= known.checked + self._recheck_s and now >= self._no_recheck_before.get(
            where.project_id, 0.0
        )

    def _recheck(self, where: TaskImage, known: _Known) -> str:
        """Compares an image with its source; returns its current content hash."""
        try:
            fetched = self._prefetcher.fetch(where, known.stamp, min(RECHECK_LIMIT_S, self._limit_s))
        except RefCutError as error:
            if is_withdrawn(error):
                del self._known[where]
                raise
            # Clicks continue while Label Studio is unreachable. A check of every further image would only delay them.
            log.warning(
                "image not compared with its source", extra={"task": where.task_id, "problem": str(error)}
            )
            self._no_recheck_before[where.project_id] = self._clock() + self._recheck_s
            return known.content
        if fetched.data is None:
            self._known[where] = _Known(known.content, known.stamp, self._clock())
            return known.content
        return self._store(where, fetched).content

    def _store(self, where: TaskImage, fetched: Fetched) -> WorkingImage:
        assert fetched.data is not None, "without a stamp there is always a body"
        content = hashlib.sha256(fetched.data).hexdigest()
        image = self._images.get(content)
        if image is None:
            image = working_copy(content, self._decode(fetched.data))
            self._images.store(content, image)
        self._known[where] = _Known(content, fetched.stamp, self._clock())
        return image


def working_copy(content: str, image: Image) -> WorkingImage:
    """Scales an image down to its working size.

    Args:
        content: SHA-256 of the file.
        image: (H, W, 3) uint8 RGB.
    """
    height, width = image.shape[:2]
    scale = WORKING_PX / max(height, width)
    if scale < 1:
        size = (max(round(width * scale), 1), max(round(height * scale), 1))
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
    return WorkingImage(content, image, height, width)


def working_file(image: Image) -> tuple[bytes, tuple[int, int]]:
    """Encodes an image, (H, W, 3) uint8 RGB, at its working size.

    Returns:
        A JPEG file, and its height and width.
    """
    pixels = working_copy("", image).pixels
    ok, data = cv2.imencode(
        ".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    )
    assert ok, "OpenCV always writes JPEG"
    return data.tobytes(), (pixels.shape[0], pixels.shape[1])


def open_image_cache(
    settings: Settings, projects: Projects, addresses: Addresses, uploads: Uploads
) -> ImageCache:
    """Builds the image cache of a worker. Raises ConfigError for invalid hosts in the settings."""
    fetcher = _fetcher(settings)

    def fetch(where: TaskImage, known: Stamp, limit_s: float) -> Fetched:
        if where.project_id == NO_PROJECT:
            key = key_of(where.address)
            if key is None:
                raise ImageError("clicks without a project take uploads only", hint="drop the photograph in")
            return Fetched(uploads.read(key), Stamp(file=key))
        stored = uploads.of_reference(where.project_id, where.address)
        if stored is not None:
            return Fetched(stored, Stamp(file=where.address))
        connection = projects.connection(where.project_id)
        return fetcher.fetch(addresses.read(where.address), where.task_id, connection, known, limit_s)

    return ImageCache(
        fetch,
        lambda data: decode_image(data, settings.image_max_pixels, settings.image_max_memory_bytes),
        max_bytes=settings.image_cache_max_bytes,
        limit_s=settings.image_timeout_s,
        recheck_s=settings.image_recheck_s,
    )


@dataclass(frozen=True)
class FetchedImage:
    """An image at full size, (H, W, 3) uint8 RGB, and its stamp. `pixels` is None if it has not changed."""

    pixels: Image | None
    stamp: Stamp


def fetch_image(
    settings: Settings,
    projects: Projects,
    addresses: Addresses,
    uploads: Uploads,
    where: TaskImage,
    known: Stamp,
) -> FetchedImage:
    """Fetches one image at full size, without the cache, unless it has not changed since a known state.

    Raises:
        RefCutError: The image cannot be fetched or decoded; the message says what to do.
    """
    stored = uploads.of_reference(where.project_id, where.address)
    if stored is not None:
        fetched = Fetched(stored, Stamp(file=where.address))
    else:
        connection = projects.connection(where.project_id)
        fetched = _fetcher(settings).fetch(addresses.read(where.address), where.task_id, connection, known)
    if fetched.data is None:
        return FetchedImage(None, fetched.stamp)
    pixels = decode_image(fetched.data, settings.image_max_pixels, settings.image_max_memory_bytes)
    return FetchedImage(pixels, fetched.stamp)


def read_image(
    settings: Settings, projects: Projects, addresses: Addresses, uploads: Uploads, where: TaskImage
) -> Image:
    """Fetches one image at full size, without the cache.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        RefCutError: The image cannot be fetched or decoded; the message says what to do.
    """
    pixels = fetch_image(settings, projects, addresses, uploads, where, UNKNOWN).pixels
    assert pixels is not None, "without a stamp there is always a body"
    return pixels


def _fetcher(settings: Settings) -> ImageFetcher:
    AllowedHosts.of([], settings.allowed_image_hosts)  # raises early for invalid hosts
    return ImageFetcher(
        max_bytes=settings.image_max_bytes,
        limit_s=settings.image_timeout_s,
        trusted_hosts=settings.allowed_image_hosts,
        aliases=settings.aliases,
        folders=MountedFolders(settings.local_files_dir, settings.upload_dir),
    )
