"""What references mean to the network: each is encoded once for a model, and kept for later clicks."""

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
"""Model, preprocessing and content: what has the same key would be computed from the same bytes in the same way."""


class ReferenceCache:
    """load: row id to masks, None when it is gone. images: where the photographs come from.

    max_bytes: of all that is kept, on the model's device.
    """

    def __init__(self, images: ImageCache, load: LoadReference, max_bytes: int) -> None:
        self._images = images
        self._load = load
        self._tokens: ByteCache[ContentKey, ReferenceTokens] = ByteCache(max_bytes, nbytes)

    @property
    def nbytes(self) -> int:
        """Memory that is kept for later clicks."""
        return self._tokens.nbytes

    def clear(self) -> None:
        """Drops everything."""
        self._tokens.clear()

    def stored(self, project_id: int, ids: Sequence[int]) -> list[StoredReference]:
        """Those of the ids that are still there, and the project's own."""
        found = [reference for reference in map(self._load, ids) if reference is not None]
        return [reference for reference in found if reference.project_id == project_id]

    def has(self, model: ServedModel, reference: StoredReference) -> bool:
        """Whether a reference is encoded, as far as is known without fetching its photograph."""
        content = self._images.known_content(image_of(reference))
        return content is not None and (*made_by(model), reference.version, content) in self._tokens

    def get(self, model: ServedModel, reference: StoredReference) -> tuple[ContentKey, ReferenceTokens]:
        """A reference as the model reads it, and what that was made of. Raises RefCutError when its photograph cannot be
        had.
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
    """The beginning of a content key: what the model computes with, on images that were prepared in this way."""
    return (*model.computes_as, f"{DECODING_VERSION}-{WORKING_PX}")


def image_of(reference: StoredReference) -> TaskImage:
    """The photograph that a reference was drawn on."""
    return TaskImage(reference.project_id, reference.task_id, reference.image_address)
