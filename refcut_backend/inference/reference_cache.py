"""Encodes references for the network, once per model and content, and caches the result for later clicks."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from model.memory import nbytes
from model.network.prompts import ReferenceTokens
from model.predictor import RefCutPredictor
from refcut_backend.images.address import TaskImage
from refcut_backend.images.cache import WORKING_PX, ByteCache, ImageCache
from refcut_backend.images.decode import DECODING_VERSION, fitted_mask
from refcut_backend.inference.models import ServedModel
from refcut_backend.references.registry import StoredReference

LoadReference = Callable[[int], StoredReference | None]
ContentKey = tuple[str, ...]
"""Model, preprocessing and content. Equal keys mean that the same bytes would be computed in the same way."""


class ReferenceCache:
    """Loads references, encodes them and caches the tokens on the model's device."""

    def __init__(self, images: ImageCache, load: LoadReference, max_bytes: int) -> None:
        """Prepare an empty cache.

        Args:
            images: Fetches the images of the references.
            load: Returns a reference by its row id; None if it was deleted.
            max_bytes: Limit of the cache.
        """
        self._images = images
        self._load = load
        self._tokens: ByteCache[ContentKey, ReferenceTokens] = ByteCache(max_bytes, nbytes)

    @property
    def nbytes(self) -> int:
        """Bytes of memory in the cache."""
        return self._tokens.nbytes

    def clear(self) -> None:
        """Empty the cache."""
        self._tokens.clear()

    def repair(self) -> None:
        """Make the cache consistent after a job was interrupted at any place; complete references are kept."""
        self._tokens.repair()

    def stored(self, project_id: int, ids: Sequence[int]) -> list[StoredReference]:
        """Load references by their row ids; deleted ones and those of other projects are left out."""
        found = [reference for reference in map(self._load, ids) if reference is not None]
        return [reference for reference in found if reference.project_id == project_id]

    def has(self, model: ServedModel, reference: StoredReference) -> bool:
        """Whether a reference is in the cache, as far as is known without fetching its image."""
        content = self._images.known_content(image_of(reference))
        return content is not None and (*made_by(model), reference.version, content) in self._tokens

    def get(self, model: ServedModel, reference: StoredReference) -> tuple[ContentKey, ReferenceTokens]:
        """Encode a reference for a model, or take it from the cache.

        Args:
            model: The model that reads the tokens.
            reference: Its masks are fitted to the size at which clicks are computed on the image.

        Returns:
            Key of the content, and the tokens for `RefCutPredictor.set_reference`.

        Raises:
            RefCutError: If the image of the reference cannot be read.
        """
        where = image_of(reference)
        key = (*made_by(model), reference.version, self._images.content_of(where))
        tokens = self._tokens.get(key)
        if tokens is None:
            image = self._images.open(where)
            key = (*made_by(model), reference.version, image.content)
            size_hw = image.pixels.shape[:2]
            tokens = RefCutPredictor(model.network, model.settings).encode_reference(
                image.pixels,
                fitted_mask(reference.positive_hw, *size_hw),
                None if reference.negative_hw is None else fitted_mask(reference.negative_hw, *size_hw),
            )
            self._tokens.store(key, tokens)
        return key, tokens


def made_by(model: ServedModel) -> ContentKey:
    """First part of a content key: the model, and how images are prepared for it."""
    return (*model.computes_as, f"{DECODING_VERSION}-{WORKING_PX}")


def image_of(reference: StoredReference) -> TaskImage:
    """The image that a reference is on."""
    return TaskImage(reference.project_id, reference.task_id, reference.image_address)
