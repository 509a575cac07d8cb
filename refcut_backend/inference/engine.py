"""Computes clicks: fetches the image and the references, runs the network, encodes the mask, and caches all of it.

Caches of one worker process, each with a limit in bytes:

    images          decoded images                                  images/cache.py
    open images     network features of images that were clicked on  CacheLimits.features
    references      encoded references                              reference_cache.py, CacheLimits.references

Cache keys include model and preprocessing, so nothing that other weights have computed is ever used.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import wait
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from model.network.prompts import ReferenceTokens
from model.predictor import RefCutPredictor
from model.types import Click, MaskResult
from refcut_backend.errors import ModelOutputError
from refcut_backend.images.address import TaskImage
from refcut_backend.images.cache import ByteCache, ImageCache, WorkingImage
from refcut_backend.inference.frames import box_in_pixels, clicks_in_pixels, map_png, mask_of_click
from refcut_backend.inference.models import ServedModel, ServedModels
from refcut_backend.inference.reference_cache import (
    ContentKey,
    LoadReference,
    ReferenceCache,
    UsableReferences,
    image_of,
    made_by,
)
from refcut_backend.label_studio import brush_rle
from refcut_backend.label_studio.project_ids import NO_PROJECT
from refcut_backend.queue.messages import ClickAnswer, ClickJob, PreloadJob

LOOK_EVERY_S = 0.05
"""Seconds between two checks whether a more urgent job waits, while an image is downloaded."""
CLOSER_LABELS = 2
"""Labels of a task, the likeliest first, for which the crops of second looks are encoded when it is opened.
`model.crop_features.CACHED_CROPS` has room for them."""


@dataclass(frozen=True)
class CacheLimits:
    """Limits of a worker's caches in bytes of memory on the model's device.

    Attributes:
        features: Network features of images that were clicked on.
        references: Encoded references.
    """

    features: int
    references: int


@dataclass(frozen=True)
class PreparedImage:
    """An image with references set, to be searched without a click.

    Attributes:
        predictor: Has the image at the size at which clicks are computed, and the references.
        height: Height of the full image in pixels.
        width: Width of the full image in pixels.
        model: The model that computes.
        references: The references, and those that cannot be used.
        image: The image at the size at which clicks are computed.
    """

    predictor: RefCutPredictor
    height: int
    width: int
    model: ServedModel
    references: UsableReferences
    image: WorkingImage

    @property
    def reference_versions(self) -> tuple[str, ...]:
        """Versions of the references that are used."""
        return self.references.versions

    @property
    def shows_itself(self) -> bool:
        """Whether one of the references is on the very same photograph."""
        return any(key[-1] == self.image.content for key in self.references.keys)


@dataclass
class _OpenImage:
    """A cached image: `predictor` has it at the size at which clicks are computed, height and width are full size."""

    predictor: RefCutPredictor
    height: int
    width: int
    reference_keys: tuple[ContentKey, ...] = ()

    def repair(self) -> None:
        """Reset what an interrupted job may have left half changed; the features of the image stay."""
        self.reference_keys = ()
        self.predictor.forget_clicks()


class ClickEngine:
    """Answers clicks of one worker process. Not thread-safe."""

    def __init__(
        self,
        models: ServedModels,
        images: ImageCache,
        load_reference: LoadReference,
        limits: CacheLimits,
    ) -> None:
        """Prepare an engine.

        Args:
            models: Gives the network of each project.
            images: Fetches, decodes and caches images.
            load_reference: Returns a reference by its row id; None if it was deleted.
            limits: Limits of the caches.
        """
        self._models = models
        self._loaded = models.loaded()
        self._images = images
        self._references = ReferenceCache(images, load_reference, limits.references)
        self._open_images: ByteCache[tuple[int, ContentKey], _OpenImage] = ByteCache(
            limits.features, lambda opened: opened.predictor.nbytes
        )
        self._prepared: tuple[tuple[int, ContentKey], RefCutPredictor] | None = None
        self._in_work: _OpenImage | None = None

    def stop(self) -> None:
        """Load no further versions, before the process ends."""
        self._models.stop()

    @property
    def device(self) -> str:
        """Device of the model, such as "cpu" or "cuda:0"."""
        return str(self.shared.network.device)

    @property
    def shared(self) -> ServedModel:
        """The model of projects without a version of their own."""
        return self._models.of(NO_PROJECT)

    def warm_up(self) -> None:
        """Compute one click on a grey image, so that the first annotator does not wait for lazy initialisation."""
        model = self.shared
        predictor = RefCutPredictor(model.network, model.settings)
        predictor.set_image(np.full((64, 64, 3), 127, np.uint8))
        predictor.predict([Click(32.0, 32.0)])

    def forget(self) -> None:
        """Empty all caches. Called too after a failure, which may have left them half changed."""
        self._images.forget()
        self._open_images.clear()
        self._references.clear()
        self._prepared = self._in_work = None
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def repair(self) -> None:
        """Make the caches consistent after a job was interrupted at any place.

        Images, references and features of crops are kept as far as they are complete: each is computed before it is
        stored, and nothing changes it afterwards. Only the image in work loses its clicks and its references.
        """
        if self._in_work is not None:
            self._in_work.repair()
        self._images.repair()
        self._references.repair()
        self._open_images.repair()
        self._prepared = None

    @property
    def nbytes(self) -> int:
        """Bytes of memory in the caches."""
        prepared = 0 if self._prepared is None else self._prepared[1].nbytes
        caches = (self._images, self._open_images, self._references)
        return prepared + sum(cache.nbytes for cache in caches)

    def preload(self, job: PreloadJob, must_stop: Callable[[], bool]) -> bool:
        """Prepare a task for its first click.

        First what every click needs; then the crops of second looks (`model.expected_crops`), which take longest.

        Args:
            job: The task's images and references.
            must_stop: Asked between the steps and during downloads; true leaves the rest undone.

        Returns:
            Whether everything was prepared.

        Raises:
            RefCutError: If an image cannot be read.
        """
        model = self._model_of(job.project_id)
        opened_images = {}
        for address in job.image_addresses:
            where = TaskImage(job.project_id, job.task_id, address)
            if not self._wait_for_image(where, must_stop, recheck=True):
                return False
            key, opened = self._open(model, where, recheck=True)
            if must_stop():
                return False
            opened.predictor.preload()
            self._open_images.store(key, opened)
            opened_images[key] = opened
        likely: list[ReferenceTokens | None] = []
        for of_label in job.reference_ids_by_label:
            stored = self._references.stored(job.project_id, of_label)
            for reference in stored:
                # Without this, a click would also wait while cached references are compared with their sources.
                if must_stop():
                    return False
                needs_image = self._references.needs_image(model, reference)
                if needs_image and not self._wait_for_image(image_of(reference), must_stop):
                    return False
                self._references.usable(model, [reference])
            likely.append(self._references.joined(self._references.usable(model, stored)))
            for key, opened in opened_images.items():
                if must_stop():
                    return False
                opened.predictor.preload(likely[-1], closer=False)
                self._open_images.store(key, opened)
        for tokens in likely[:CLOSER_LABELS]:
            for key, opened in opened_images.items():
                complete = opened.predictor.preload(tokens, must_stop=must_stop)
                self._open_images.store(key, opened)
                if not complete:
                    return False
        return True

    def prepare(
        self, where: TaskImage, reference_ids: Sequence[int], must_stop: Callable[[], bool]
    ) -> PreparedImage | None:
        """Prepare an image and references for a search without a click.

        The image is cached apart from those that are clicked on; only one is kept, for the references of its next label.

        Args:
            where: The image.
            reference_ids: Row ids of the references; deleted ones are skipped.
            must_stop: Asked during downloads.

        Returns:
            The prepared image; None if `must_stop` was true.

        Raises:
            RefCutError: If an image cannot be read.
        """
        model = self._model_of(where.project_id)
        stored = self._references.stored(where.project_id, reference_ids)
        needed = [image_of(one) for one in stored if self._references.needs_image(model, one)]
        if not all(self._wait_for_image(image, must_stop) for image in (where, *needed)):
            return None
        image = self._images.open(where)
        key = (where.project_id, (*made_by(model), image.content))
        if self._prepared is None or self._prepared[0] != key:
            fresh = RefCutPredictor(model.network, model.settings)
            fresh.set_image(image.pixels)
            self._prepared = key, fresh
        predictor = self._prepared[1]
        usable = self._references.usable(model, stored)
        predictor.set_reference(self._references.joined(usable))
        return PreparedImage(predictor, image.height, image.width, model, usable, image)

    def _wait_for_image(
        self, where: TaskImage, must_stop: Callable[[], bool], *, recheck: bool = False
    ) -> bool:
        """Waits until an image can be opened without a download; returns False if `must_stop` was true."""
        if self._images.needs_fetching(where, recheck=recheck):
            download = self._images.begin(where)
            while download is not None and not download.done() and not must_stop():
                wait([download], timeout=LOOK_EVERY_S)
            if download is None or not download.done():
                return False
        return not must_stop()

    def _model_of(self, project_id: int) -> ServedModel:
        """The model of a project's next click; cached features of models that are no longer loaded are dropped."""
        model = self._models.of(project_id)
        if (loaded := self._models.loaded()) != self._loaded:
            self._open_images.retain(lambda key: key[1][:2] in loaded)
            self._prepared = None
            self._loaded = loaded
        return model

    def answer(self, job: ClickJob) -> ClickAnswer:
        """Compute the mask of a click.

        Args:
            job: All clicks and the box of an object, the image and the references.

        Returns:
            The mask as RLE in the full image, its score, and the time of each phase in milliseconds.

        Raises:
            RefCutError: If the image cannot be read, or the network's output is not finite.
        """
        started = time.monotonic()
        model = self._model_of(job.project_id)
        key, open_image = self._open(model, TaskImage(job.project_id, job.task_id, job.image_address))
        fetched = time.monotonic()
        usable = self._set_references(model, open_image, job)
        predicted_from = time.monotonic()
        size_hw = open_image.predictor.image_size
        box = None if job.box is None else box_in_pixels(job.box, *size_hw)
        clicks = clicks_in_pixels(job.clicks, *size_hw)
        network_choice = open_image.predictor.predict(clicks, box)
        result = network_choice.stepped(job.extent)
        self.check_output(result.probability_hw)
        self._open_images.store(key, open_image)
        predicted = time.monotonic()
        whole = box is not None or not usable.drops_specks(job.pieces)
        size_hw = open_image.height, open_image.width
        mask_hw = mask_of_click(result, None if whole else clicks, size_hw, model.settings.threshold)
        rle = brush_rle.encode(mask_hw) if mask_hw.any() else []
        return ClickAnswer(
            width=open_image.width,
            height=open_image.height,
            rle=rle,
            score=_score(result) if rle else 0.0,
            reference_versions=usable.versions,
            references_left_out=usable.left_out,
            extent=result.chosen - network_choice.chosen,
            map_png=map_png(result.probability_hw) if job.wants_map else "",
            model_version=model.version,
            milliseconds={
                "image": _ms(started, fetched),
                "references": _ms(fetched, predicted_from),
                "network": _ms(predicted_from, predicted),
                "encoding": _ms(predicted, time.monotonic()),
            },
        )

    def check_output(self, probability_hw: NDArray[np.float32]) -> None:
        """Raise ModelOutputError if the network's output (H, W) is not finite; the caches are emptied then."""
        if not np.isfinite(probability_hw).all():
            self.forget()
            raise ModelOutputError(
                "the network's output is not a number",
                hint="check the model's weights, or roll back to another version",
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
            self._open_images.store(
                key, opened
            )  # before it is complete, so that a cut-off keeps its features
        self._in_work = opened
        return key, opened

    def _set_references(self, model: ServedModel, open_image: _OpenImage, job: ClickJob) -> UsableReferences:
        """References that cannot be used are left out: the click is answered with what there is."""
        usable = self._references.usable(model, self._references.stored(job.project_id, job.reference_ids))
        if usable.keys != open_image.reference_keys:
            open_image.predictor.set_reference(self._references.joined(usable))
            open_image.reference_keys = usable.keys
        return usable


def _score(result: MaskResult) -> float:
    """The IoU that a mask can be expected to have; its mean probability if the network does not predict it."""
    if result.expected_iou is not None:
        return result.expected_iou
    return float(result.probability_hw[result.mask_hw].mean()) if result.mask_hw.any() else 0.0


def _ms(start: float, end: float) -> float:
    return round(1000 * (end - start), 1)
