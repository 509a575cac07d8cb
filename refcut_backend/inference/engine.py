"""The model at work: answers click jobs, keeping images, crops and references ready for the next click."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import wait
from dataclasses import dataclass

import numpy as np
import torch

from model.network.prompts import ReferenceTokens
from model.predictor import RefCutPredictor
from model.types import Box, Click
from refcut_backend.errors import ModelOutputError
from refcut_backend.images.address import TaskImage
from refcut_backend.images.cache import ByteCache, ImageCache
from refcut_backend.images.decode import full_size_mask
from refcut_backend.inference.models import ServedModel, ServedModels
from refcut_backend.inference.reference_cache import (
    ContentKey,
    LoadReference,
    ReferenceCache,
    image_of,
    made_by,
)
from refcut_backend.label_studio import brush_rle
from refcut_backend.label_studio.prompts import PercentBox, PercentClick, to_pixel
from refcut_backend.queue.messages import ClickAnswer, ClickJob, PreloadJob


def clicks_in_pixels(clicks: Sequence[PercentClick], height: int, width: int) -> list[Click]:
    """Clicks on an image of that size."""
    return [
        Click(to_pixel(click.y_percent, height), to_pixel(click.x_percent, width), click.positive)
        for click in clicks
    ]


def box_in_pixels(box: PercentBox, height: int, width: int) -> Box:
    """All pixels that a box covers half or more of; at least the one under its middle."""
    row, col = (
        int(to_pixel((start + end) / 2, length))
        for start, end, length in ((box.top, box.bottom, height), (box.left, box.right, width))
    )
    return Box(
        min(row, round(box.top / 100 * height)),
        max(row, round(box.bottom / 100 * height) - 1),
        min(col, round(box.left / 100 * width)),
        max(col, round(box.right / 100 * width) - 1),
    )


LOOK_EVERY_S = 0.05
"""How often preparing an image looks whether a click waits."""

NO_PROJECT = 0
"""Label Studio's ids begin at 1: what the shared model answers."""


@dataclass(frozen=True)
class CacheLimits:
    """Bytes that a worker keeps, on the model's device."""

    features: int
    references: int


@dataclass(frozen=True)
class View:
    """An image with references set, for looking at it without a click.

    predictor works on the shrunk image; height, width: of the image itself.
    """

    predictor: RefCutPredictor
    height: int
    width: int
    model: ServedModel
    reference_versions: tuple[str, ...]


@dataclass
class _OpenImage:
    """An image that clicks may still come to. predictor works on the shrunk image."""

    predictor: RefCutPredictor
    height: int
    width: int
    reference_keys: tuple[ContentKey, ...] = ()


class ClickEngine:
    """One per worker process; not for several threads at once.

    models: the network of each project. images: where images come from. load_reference: row id to masks, None when it
    is gone. Images stay at hand when a project gets another model; nothing computed with other weights is used.
    """

    def __init__(
        self,
        models: ServedModels,
        images: ImageCache,
        load_reference: LoadReference,
        limits: CacheLimits,
    ) -> None:
        self._models = models
        self._loaded = models.loaded()
        self._images = images
        self._references = ReferenceCache(images, load_reference, limits.references)
        self._open_images: ByteCache[tuple[int, ContentKey], _OpenImage] = ByteCache(
            limits.features, lambda opened: opened.predictor.nbytes
        )
        self._viewed: tuple[tuple[int, ContentKey], RefCutPredictor] | None = None

    @property
    def device(self) -> str:
        """Where the model computes, as torch names it."""
        return str(self._models.of(NO_PROJECT).network.device)

    def warm_up(self) -> None:
        """One click on a grey picture, so that the first annotator does not wait for lazy initialisation."""
        model = self._models.of(NO_PROJECT)
        predictor = RefCutPredictor(model.network, model.settings)
        predictor.set_image(np.full((64, 64, 3), 127, np.uint8))
        predictor.predict([Click(32.0, 32.0)])

    def forget(self) -> None:
        """Drops everything that is kept for later clicks: also after a failure, when it may be half changed."""
        self._images.forget()
        self._open_images.clear()
        self._references.clear()
        self._viewed = None
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    @property
    def nbytes(self) -> int:
        """Memory that is kept for later clicks."""
        viewed = 0 if self._viewed is None else self._viewed[1].nbytes
        kept = (self._images, self._open_images, self._references)
        return viewed + sum(cache.nbytes for cache in kept)

    def preload(self, job: PreloadJob, must_stop: Callable[[], bool]) -> bool:
        """Gets ready what the first click on a task needs. Returns whether it came to its end.

        must_stop: asked between the steps, and all through a download; true leaves the rest undone. Raises RefCutError
        when an image cannot be had.
        """
        model = self._model_of(job.project_id)
        for address in job.image_addresses:
            where = TaskImage(job.project_id, job.task_id, address)
            if not self._arrives(where, must_stop, recheck=True):
                return False
            key, opened = self._open(model, where, recheck=True)
            if must_stop():
                return False
            opened.predictor.preload()
            self._open_images.store(key, opened)
        for reference_id in job.reference_ids:
            for reference in self._references.stored(job.project_id, [reference_id]):
                is_encoded = self._references.has(model, reference)
                if not (is_encoded or self._arrives(image_of(reference), must_stop)):
                    return False
                self._references.get(model, reference)
        return True

    def view(
        self, where: TaskImage, reference_ids: Sequence[int], must_stop: Callable[[], bool]
    ) -> View | None:
        """An image with references, apart from the images that are clicked on: one is kept, for the next references.

        must_stop: asked all through downloads; true gives None. Raises RefCutError when an image cannot be had.
        """
        model = self._model_of(where.project_id)
        stored = self._references.stored(where.project_id, reference_ids)
        needed = [image_of(reference) for reference in stored if not self._references.has(model, reference)]
        if not all(self._arrives(image, must_stop) for image in (where, *needed)):
            return None
        image = self._images.open(where)
        key = (where.project_id, (*made_by(model), image.content))
        if self._viewed is None or self._viewed[0] != key:
            self._viewed = key, RefCutPredictor(model.network, model.settings)
            self._viewed[1].set_image(image.pixels)
        predictor = self._viewed[1]
        tokens = [self._references.get(model, reference)[1] for reference in stored]
        predictor.set_reference(ReferenceTokens.join(tokens) if tokens else None)
        return View(predictor, image.height, image.width, model, tuple(one.version for one in stored))

    def _arrives(self, where: TaskImage, must_stop: Callable[[], bool], *, recheck: bool = False) -> bool:
        """Waits until an image can be opened at once; False when it must not be waited for."""
        if self._images.needs_fetching(where, recheck=recheck):
            coming = self._images.begin(where)
            while coming is not None and not coming.done() and not must_stop():
                wait([coming], timeout=LOOK_EVERY_S)
            if coming is None or not coming.done():
                return False
        return not must_stop()

    def _model_of(self, project_id: int) -> ServedModel:
        """The network of a project's next click. Opened images hold on to theirs: those of others are closed."""
        model = self._models.of(project_id)
        if (loaded := self._models.loaded()) != self._loaded:
            self._loaded = loaded
            self._open_images.retain(lambda key: key[1][:2] in loaded)
            self._viewed = None
        return model

    def answer(self, job: ClickJob) -> ClickAnswer:
        """The mask for a job's clicks. Raises RefCutError when the image cannot be had, or the network's output is
        no mask.
        """
        started = time.monotonic()
        model = self._model_of(job.project_id)
        key, open_image = self._open(model, TaskImage(job.project_id, job.task_id, job.image_address))
        fetched = time.monotonic()
        versions = self._set_references(model, open_image, job)
        predicted_from = time.monotonic()
        size_hw = open_image.predictor.image_size
        box = None if job.box is None else box_in_pixels(job.box, *size_hw)
        probability = open_image.predictor.predict(clicks_in_pixels(job.clicks, *size_hw), box).probability_hw
        if not np.isfinite(probability).all():
            self.forget()
            raise ModelOutputError(
                "the network's output is not a number",
                hint="check the model's weights, or go back to another",
            )
        self._open_images.store(key, open_image)
        predicted = time.monotonic()
        threshold = model.settings.threshold
        mask_hw = full_size_mask(probability, open_image.height, open_image.width, threshold)
        rle = brush_rle.encode(mask_hw) if mask_hw.any() else []
        return ClickAnswer(
            width=open_image.width,
            height=open_image.height,
            rle=rle,
            score=float(probability[probability > threshold].mean()) if rle else 0.0,
            reference_versions=versions,
            model_version=model.version,
            milliseconds={
                "image": _ms(started, fetched),
                "references": _ms(fetched, predicted_from),
                "network": _ms(predicted_from, predicted),
                "encoding": _ms(predicted, time.monotonic()),
            },
        )

    def _open(
        self, model: ServedModel, where: TaskImage, *, recheck: bool = False
    ) -> tuple[tuple[int, ContentKey], _OpenImage]:
        image = self._images.open(where, recheck=recheck)
        key = (where.project_id, (*made_by(model), image.content))
        opened = self._open_images.get(key)
        if opened is None:
            predictor = RefCutPredictor(model.network, model.settings)
            predictor.set_image(image.pixels)
            opened = _OpenImage(predictor, image.height, image.width)
        return key, opened

    def _set_references(self, model: ServedModel, open_image: _OpenImage, job: ClickJob) -> tuple[str, ...]:
        stored = self._references.stored(job.project_id, job.reference_ids)
        encoded = [self._references.get(model, reference) for reference in stored]
        keys = tuple(key for key, _ in encoded)
        if keys != open_image.reference_keys:
            joined = ReferenceTokens.join([tokens for _, tokens in encoded]) if encoded else None
            open_image.predictor.set_reference(joined)
            open_image.reference_keys = keys
        return tuple(reference.version for reference in stored)


def _ms(start: float, end: float) -> float:
    return round(1000 * (end - start), 1)
