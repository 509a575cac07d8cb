"""Encodes references for the network, once per model and content, and caches the result for later clicks."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import wait
from dataclasses import dataclass
from weakref import WeakValueDictionary

from cachetools import TTLCache

from model.errors import ModelError
from model.masks import count_pieces
from model.memory import nbytes
from model.network.prompts import ReferenceTokens
from model.predictor import RefCutPredictor
from refcut_backend.errors import ImageError, RefCutError
from refcut_backend.images.address import TaskImage
from refcut_backend.images.cache import WORKING_PX, ByteCache, ImageCache
from refcut_backend.images.decode import DECODING_VERSION, fitted_mask
from refcut_backend.inference.models import ServedModel
from refcut_backend.queue.messages import LeftOutReference, Pieces
from refcut_backend.references.registry import StoredReference

MAX_FAILED = 1000
MAX_PROBLEM = 500
"""Longest text about a reference that cannot be used."""
LOOK_EVERY_S = 0.05
"""Seconds between two looks whether a download can begin."""

LoadReference = Callable[[int], StoredReference | None]
ContentKey = tuple[str, ...]
"""Model, preprocessing and content. Equal keys mean that the same bytes would be computed in the same way."""


WAIT_S = 3.0
"""How long a click waits for all images of its references together. One that comes later is used by the next click."""
RETRY_AFTER_S = 60.0
"""A reference that could not be used is not tried again for this time, so that it does not delay every click."""


@dataclass(frozen=True)
class UsableReferences:
    """References of a click, with what can be used of them.

    Attributes:
        keys: Keys of the contents.
        encoded: The references, one by one.
        versions: Versions of the references that are used.
        left_out: References that cannot be used.
        in_one_piece: Whether there is a reference, and the positive mask of each is a single piece (`count_pieces`).
    """

    keys: tuple[ContentKey, ...] = ()
    encoded: tuple[ReferenceTokens, ...] = ()
    versions: tuple[str, ...] = ()
    left_out: tuple[LeftOutReference, ...] = ()
    in_one_piece: bool = False

    def drops_specks(self, pieces: Pieces) -> bool:
        """Whether a click drops the specks that nobody clicked on. `pieces` is that of its job."""
        return pieces == "clicked" or (pieces == "auto" and self.in_one_piece)


@dataclass(frozen=True)
class _Encoded:
    """A cached reference: its tokens, and the number of pieces of its positive mask."""

    tokens: ReferenceTokens
    pieces: int


class ReferenceCache:
    """Loads references, encodes them, joins those of a label, and caches the tokens on the model's device."""

    def __init__(
        self,
        images: ImageCache,
        load: LoadReference,
        max_bytes: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare an empty cache.

        Args:
            images: Fetches the images of the references.
            load: Returns a reference by its row id; None if it was deleted.
            max_bytes: Limit of the cache.
            clock: Monotonic clock in seconds.
        """
        self._images = images
        self._load = load
        self._clock = clock
        self._encoded: ByteCache[ContentKey, _Encoded] = ByteCache(max_bytes, nbytes)
        self._joined: WeakValueDictionary[tuple[ContentKey, ...], ReferenceTokens] = WeakValueDictionary()
        self._failed = self._none_failed()

    @property
    def nbytes(self) -> int:
        """Bytes of memory in the cache."""
        return self._encoded.nbytes

    def clear(self) -> None:
        """Empty the cache."""
        self._encoded.clear()
        self._joined = WeakValueDictionary()
        self._failed = self._none_failed()

    def repair(self) -> None:
        """Make the cache consistent after a job was interrupted at any place; complete references are kept."""
        self._encoded.repair()
        self._joined = WeakValueDictionary()
        self._failed = self._none_failed()

    def _none_failed(self) -> TTLCache[tuple[TaskImage, str], LeftOutReference]:
        return TTLCache(MAX_FAILED, RETRY_AFTER_S, self._clock)

    def stored(self, project_id: int, ids: Sequence[int]) -> list[StoredReference]:
        """Load references by their row ids; deleted ones and those of other projects are left out."""
        found = [reference for reference in map(self._load, ids) if reference is not None]
        return [reference for reference in found if reference.project_id == project_id]

    def needs_image(self, model: ServedModel, reference: StoredReference) -> bool:
        """Whether `usable` needs the image of a reference: it is not cached, and has not failed a moment ago."""
        has_failed = (image_of(reference), reference.version) in self._failed
        return not (has_failed or self._is_encoded(model, reference))

    def usable(
        self, model: ServedModel, references: Sequence[StoredReference], wait_s: float = WAIT_S
    ) -> UsableReferences:
        """Encode references, and leave out those that cannot be used.

        Args:
            model: The model that reads the tokens.
            references: The references, in the order in which they are used.
            wait_s: Longest time for the downloads of all their images together.
        """
        deadline = self._clock() + wait_s
        keys, found, versions, left_out = [], [], [], []
        for reference in references:
            failed = self._failed.get((image_of(reference), reference.version))
            if failed is None:
                try:
                    self._wait_for_image(model, reference, deadline)
                    key, encoded = self._get(model, reference)
                except (RefCutError, ModelError) as error:
                    failed = _failed(reference, error)
                    if not isinstance(error, NotYetError):
                        self._failed[image_of(reference), reference.version] = failed
            if failed is not None:
                left_out.append(failed)
                continue
            keys.append(key)
            found.append(encoded)
            versions.append(reference.version)
        return UsableReferences(
            tuple(keys),
            tuple(one.tokens for one in found),
            tuple(versions),
            tuple(left_out),
            in_one_piece=bool(found) and all(one.pieces == 1 for one in found),
        )

    def joined(self, usable: UsableReferences) -> ReferenceTokens | None:
        """Usable references joined into one, for `RefCutPredictor.set_reference`; None if there is none.

        All photographs that are open share it. It is kept as long as one of them is, and takes as much memory as the
        references themselves.
        """
        if len(usable.encoded) < 2:
            return next(iter(usable.encoded), None)
        found = self._joined.get(usable.keys)
        if found is None:
            found = self._joined[usable.keys] = ReferenceTokens.join(usable.encoded)
        return found

    def _is_encoded(self, model: ServedModel, reference: StoredReference) -> bool:
        """Whether a reference is in the cache, as far as is known without fetching its image."""
        content = self._images.known_content(image_of(reference))
        return content is not None and (*made_by(model), reference.version, content) in self._encoded

    def _wait_for_image(self, model: ServedModel, reference: StoredReference, deadline: float) -> None:
        """Waits for a download. Raises NotYetError if it takes too long; it goes on, and the next click uses it."""
        where = image_of(reference)
        if self._is_encoded(model, reference) or not self._images.needs_fetching(where):
            return
        download = self._images.begin(where)
        while download is None and self._clock() < deadline:
            time.sleep(LOOK_EVERY_S)
            download = self._images.begin(where)
        if download is not None:
            wait([download], timeout=max(deadline - self._clock(), 0.0))
        if download is None or not download.done():
            raise NotYetError("its image has not arrived yet", hint="a click uses it as soon as it has")

    def _get(self, model: ServedModel, reference: StoredReference) -> tuple[ContentKey, _Encoded]:
        """Encodes a reference, or takes it from the cache. Raises RefCutError if its image cannot be read."""
        where = image_of(reference)
        key = (*made_by(model), reference.version, self._images.content_of(where))
        encoded = self._encoded.get(key)
        if encoded is None:
            image = self._images.open(where)
            key = (*made_by(model), reference.version, image.content)
            size_hw = image.pixels.shape[:2]
            # The masks are fitted to the size at which clicks are computed on the image.
            positive_hw = fitted_mask(reference.positive_hw, *size_hw)
            tokens = RefCutPredictor(model.network, model.settings).encode_reference(
                image.pixels,
                positive_hw,
                None if reference.negative_hw is None else fitted_mask(reference.negative_hw, *size_hw),
            )
            encoded = _Encoded(tokens, count_pieces(positive_hw))
            self._encoded.store(key, encoded)
        return key, encoded


class NotYetError(ImageError):
    """The image of a reference is still being downloaded."""


def _failed(reference: StoredReference, error: RefCutError | ModelError) -> LeftOutReference:
    code = error.code if isinstance(error, RefCutError) else RefCutError.code
    problem = f"its image cannot be used: {error}"[:MAX_PROBLEM]
    return LeftOutReference(reference.id, reference.version, reference.task_id, code, problem)


def made_by(model: ServedModel) -> ContentKey:
    """First part of a content key: the model, and how images are prepared for it."""
    return (*model.computes_as, f"{DECODING_VERSION}-{WORKING_PX}")


def image_of(reference: StoredReference) -> TaskImage:
    """The image that a reference is on."""
    return TaskImage(reference.project_id, reference.task_id, reference.image_address)
