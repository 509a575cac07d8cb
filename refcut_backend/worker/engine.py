"""The model at work: answers click jobs, keeping images, crops and references ready for the next click."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from model.network.prompts import ReferenceTokens
from model.network.refcut import RefCut
from model.predictor import PredictorSettings, RefCutPredictor, serving_settings
from model.robot_clicker import Click
from refcut_backend.core import brush_rle
from refcut_backend.core.clicks import PercentClick, to_pixel
from refcut_backend.jobs.click_job import ClickAnswer, ClickJob
from refcut_backend.store.references import StoredReference
from refcut_backend.worker.full_size import full_size_mask

WORKING_PX = 1280
"""Larger images are worked on at this longest side: the network sees crops of a few hundred pixels either way."""
KEPT_REFERENCES = 64

Image = NDArray[np.uint8]
LoadImage = Callable[[int, int, str], Image]
LoadReference = Callable[[int], StoredReference | None]


@dataclass
class _OpenImage:
    """An image that clicks may still come to. predictor works on the shrunk image."""

    predictor: RefCutPredictor
    height: int
    width: int
    reference_key: tuple[str, ...] = ()


class ClickEngine:
    """One per worker process; not for several threads at once.

    load_image: (project, task, address) to RGB (H, W, 3). load_reference: row id to masks, None when it is gone.
    """

    def __init__(
        self,
        network: RefCut,
        load_image: LoadImage,
        load_reference: LoadReference,
        cached_images: int,
        settings: PredictorSettings | None = None,
    ) -> None:
        self._network = network
        self._settings = settings or serving_settings(network.config)
        self._load_image = load_image
        self._load_reference = load_reference
        self._cached_images = cached_images
        self._images: OrderedDict[tuple[int, str], _OpenImage] = OrderedDict()
        self._reference_tokens: OrderedDict[str, ReferenceTokens] = OrderedDict()

    def warm_up(self) -> None:
        """One click on a grey picture, so that the first annotator does not wait for lazy initialisation."""
        predictor = RefCutPredictor(self._network, self._settings)
        predictor.set_image(np.full((64, 64, 3), 127, np.uint8))
        predictor.predict([Click(32.0, 32.0)])

    def answer(self, job: ClickJob) -> ClickAnswer:
        """The mask for a job's clicks. Raises RefCutError when the image cannot be had."""
        started = time.monotonic()
        open_image = self._open(job)
        fetched = time.monotonic()
        versions = self._set_references(open_image, job)
        predicted_from = time.monotonic()
        probability = open_image.predictor.predict(_to_working_frame(job.clicks, open_image)).probability_hw
        predicted = time.monotonic()
        threshold = self._settings.threshold
        mask_hw = full_size_mask(probability, open_image.height, open_image.width, threshold)
        rle = brush_rle.encode(mask_hw) if mask_hw.any() else []
        return ClickAnswer(
            width=open_image.width,
            height=open_image.height,
            rle=rle,
            score=float(probability[probability > self._settings.threshold].mean()) if rle else 0.0,
            reference_versions=versions,
            milliseconds={
                "image": _ms(started, fetched),
                "references": _ms(fetched, predicted_from),
                "network": _ms(predicted_from, predicted),
                "encoding": _ms(predicted, time.monotonic()),
            },
        )

    def _open(self, job: ClickJob) -> _OpenImage:
        key = (job.project_id, job.image_address)
        if key not in self._images:
            image = self._load_image(job.project_id, job.task_id, job.image_address)
            predictor = RefCutPredictor(self._network, self._settings)
            predictor.set_image(_shrunk(image))
            self._images[key] = _OpenImage(predictor, image.shape[0], image.shape[1])
            while len(self._images) > self._cached_images:
                self._images.popitem(last=False)
        self._images.move_to_end(key)
        return self._images[key]

    def _set_references(self, open_image: _OpenImage, job: ClickJob) -> tuple[str, ...]:
        stored = [r for r in map(self._load_reference, job.reference_ids) if r is not None]
        stored = [r for r in stored if r.project_id == job.project_id]
        key = tuple(reference.version for reference in stored)
        if key != open_image.reference_key:
            joined = ReferenceTokens.join([self._tokens(r) for r in stored]) if stored else None
            open_image.predictor.set_reference(joined)
            open_image.reference_key = key
        return key

    def _tokens(self, reference: StoredReference) -> ReferenceTokens:
        if reference.version not in self._reference_tokens:
            image = self._load_image(reference.project_id, reference.task_id, reference.image_address)
            predictor = RefCutPredictor(self._network, self._settings)
            self._reference_tokens[reference.version] = predictor.encode_reference(
                _shrunk(image),
                _fitted(reference.positive_hw, image),
                None if reference.negative_hw is None else _fitted(reference.negative_hw, image),
            )
            while len(self._reference_tokens) > KEPT_REFERENCES:
                self._reference_tokens.popitem(last=False)
        self._reference_tokens.move_to_end(reference.version)
        return self._reference_tokens[reference.version]


def _shrunk(image: Image) -> Image:
    scale = WORKING_PX / max(image.shape[:2])
    if scale >= 1:
        return image
    size = (max(round(image.shape[1] * scale), 1), max(round(image.shape[0] * scale), 1))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)  # type: ignore[return-value]


def _fitted(mask_hw: NDArray[np.bool_], image: Image) -> NDArray[np.bool_]:
    """A mask in the frame of the working copy of its image."""
    height, width = _shrunk(image).shape[:2]
    if mask_hw.shape == (height, width):
        return mask_hw
    shares = cv2.resize(mask_hw.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)
    return shares > 0.5


def _to_working_frame(clicks: Sequence[PercentClick], image: _OpenImage) -> list[Click]:
    height, width = image.predictor.image_size
    return [
        Click(to_pixel(click.y_percent, height), to_pixel(click.x_percent, width), click.positive)
        for click in clicks
    ]


def _ms(start: float, end: float) -> float:
    return round(1000 * (end - start), 1)
