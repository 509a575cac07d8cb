"""What the playground page can ask for, independent of HTTP: photographs, references, clicks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Engine

from refcut_backend.clicks.preload import PreloadSender
from refcut_backend.clicks.service import ClickSender
from refcut_backend.errors import BadRequestError
from refcut_backend.images.decode import decode_image
from refcut_backend.images.uploads import Uploads
from refcut_backend.label_studio.label_config import NEGATIVE_REFERENCE_CHOICE, REFERENCE_CHOICE
from refcut_backend.label_studio.regions import BrushRegion, prediction
from refcut_backend.playground import demo
from refcut_backend.playground.clicks import PlaygroundClicks
from refcut_backend.playground.references import PlaygroundReferences, outline_png
from refcut_backend.references.parse import read_mask_png
from refcut_backend.settings import Settings


@dataclass(frozen=True)
class Photograph:
    """A photograph on the playground; height and width in pixels as the browser shows it."""

    key: str
    height: int
    width: int


@dataclass(frozen=True)
class MarkedReference:
    """A stored reference and its picture: a PNG to lay over the photograph."""

    name: str
    outline_png: bytes


@dataclass(frozen=True)
class KeptReference:
    """A reference that goes with a mask: its name on the playground, and the name of its photograph."""

    name: str
    image_name: str


@dataclass(frozen=True)
class KeptMask:
    """A mask that somebody takes along as a task for Label Studio.

    Attributes:
        image_key: The photograph.
        image_name: What the task calls it.
        region_id: Region id.
        label: Label of the mask and of its references.
        mask_png: The mask, also as corrected by hand: white on black, in the size of the photograph.
        score: IoU that the mask can be expected to have, 0..1.
        model_version: Weights that computed it.
        references: The references that it was made with.
    """

    image_key: str
    image_name: str
    region_id: str
    label: str
    mask_png: bytes
    score: float
    model_version: str
    references: tuple[KeptReference, ...] = ()


class Playground:
    """Everything on the playground.

    Attributes:
        uploads: The photographs.
        references: What is marked on them.
        clicks: Answers clicks, and prepares what they need.
    """

    def __init__(
        self, engine: Engine, sender: ClickSender, preloads: PreloadSender, settings: Settings
    ) -> None:
        """Opens the playground.

        Args:
            engine: The database.
            sender: Sends clicks to the workers.
            preloads: Sends them what to prepare.
            settings: Gives the limits for images.
        """
        self._settings = settings
        self.uploads = Uploads(engine)
        self.references = PlaygroundReferences(engine)
        self.clicks = PlaygroundClicks(sender, preloads, self.references)

    def add(self, data: bytes, key: str | None = None) -> Photograph:
        """Stores a photograph after the same checks as for an image of a task.

        Args:
            data: The file.
            key: Key for a file that is always the same; None for a random one.

        Raises:
            ImageError: If it is no image of an allowed format, too large or damaged.
        """
        pixels = decode_image(data, self._settings.image_max_pixels, self._settings.image_max_memory_bytes)
        return Photograph(self.uploads.add(data, key), *pixels.shape[:2])

    def demo_photograph(self, name: str) -> Photograph:
        """Puts a photograph of the demo on the playground. Raises BadRequestError for an unknown name."""
        for photograph in demo.photographs():
            if photograph.name == name:
                return self.add(photograph.data, photograph.key)
        raise BadRequestError("there is no such demo photograph", hint="choose one from the list")

    def demo_reference(self, name: str, label: str) -> MarkedReference:
        """Makes a part of a demo photograph a reference. Raises BadRequestError for an unknown part."""
        part = demo.part(name, label)
        return self._marked(self.demo_photograph(name).key, part.positive_hw, part.negative_hw)

    def mark(self, key: str, positive_png: bytes, negative_png: bytes | None) -> MarkedReference:
        """Makes masks on a photograph a reference.

        Args:
            key: The photograph.
            positive_png: What is meant: white on black, in the size of the photograph.
            negative_png: What must stay out; None for nothing.

        Raises:
            RefCutError: If the photograph is gone, or a mask is no PNG of its size.
        """
        size_hw = self._size_hw(key)
        positive_hw = read_mask_png(positive_png, size_hw)
        return self._marked(
            key, positive_hw, None if negative_png is None else read_mask_png(negative_png, size_hw)
        )

    def tasks(self, kept: KeptMask) -> list[dict[str, Any]]:
        """Writes a mask and the references that it was made with as tasks for Label Studio.

        Args:
            kept: The mask, and what to call everything.

        Raises:
            RefCutError: If the photograph or a reference is gone, or the mask is no PNG of its size.
        """
        mask_hw = read_mask_png(kept.mask_png, self._size_hw(kept.image_key))
        references = [(one, *self.references.masks(one.name)) for one in kept.references]
        result = BrushRegion(kept.region_id, kept.label, mask_hw).results()
        return [
            {
                "data": {"image": kept.image_name},
                "predictions": [prediction(kept.model_version, result, kept.score)],
            },
            *(
                _annotated(one.image_name, kept.label, positive_hw, negative_hw)
                for one, positive_hw, negative_hw in references
            ),
        ]

    def _size_hw(self, key: str) -> tuple[int, int]:
        data = self.uploads.read(key)
        pixels = decode_image(data, self._settings.image_max_pixels, self._settings.image_max_memory_bytes)
        return pixels.shape[0], pixels.shape[1]

    def _marked(
        self, key: str, positive_hw: NDArray[np.bool_], negative_hw: NDArray[np.bool_] | None
    ) -> MarkedReference:
        if negative_hw is not None:
            negative_hw = negative_hw & ~positive_hw
        name = self.references.add(key, positive_hw, negative_hw)
        return MarkedReference(name, outline_png(positive_hw, negative_hw))


def _annotated(
    image_name: str, label: str, positive_hw: NDArray[np.bool_], negative_hw: NDArray[np.bool_] | None
) -> dict[str, Any]:
    """A task that Label Studio imports with an annotation whose regions are a reference."""
    regions = [BrushRegion("positive", label, positive_hw, REFERENCE_CHOICE)] if positive_hw.any() else []
    if negative_hw is not None:
        regions.append(BrushRegion("negative", label, negative_hw, NEGATIVE_REFERENCE_CHOICE))
    result = [item for region in regions for item in region.results()]
    return {"data": {"image": image_name}, "annotations": [{"result": result}]}
