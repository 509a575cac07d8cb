"""One click on the playground: the same job, queue and worker as a click in Label Studio, without a project."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from refcut_backend.clicks.preload import PreloadSender
from refcut_backend.clicks.service import ClickSender, WorkerRefusalError
from refcut_backend.errors import BadRequestError, NoPositiveClickError
from refcut_backend.images.uploads import address_of
from refcut_backend.label_studio import brush_rle
from refcut_backend.label_studio.project_ids import NO_PROJECT
from refcut_backend.label_studio.prompts import PercentBox, PercentClick
from refcut_backend.playground.references import PlaygroundReferences
from refcut_backend.queue.messages import ClickJob, PreloadJob

MAX_CLICKS = 100
MAX_REFERENCES = 16


@dataclass(frozen=True)
class PlaygroundMask:
    """The answer to a click.

    Attributes:
        mask_hw: (H, W) in the frame of the photograph.
        expected_iou: IoU that the mask can be expected to have, 0..1.
        model_version: Weights that computed it.
        milliseconds: Time per step in the worker.
        map_png: Probabilities as a small grey PNG in base64; "" if they were not asked for.
    """

    mask_hw: NDArray[np.bool_]
    expected_iou: float
    model_version: str
    milliseconds: dict[str, float]
    map_png: str = ""


class PlaygroundClicks:
    """Answers clicks.

    Args:
        sender: Sends jobs to the workers.
        preloads: Sends them what to prepare.
        references: Knows the references that clicks name.
    """

    def __init__(
        self, sender: ClickSender, preloads: PreloadSender, references: PlaygroundReferences
    ) -> None:
        self._sender = sender
        self._preloads = preloads
        self._references = references

    def preload(self, image_key: str, reference_names: Sequence[str]) -> bool:
        """Lets a worker prepare a photograph and references, so that the first click is fast. Nobody waits for it.

        Args:
            image_key: The photograph (`images.uploads`).
            reference_names: References that clicks will name.

        Returns:
            Whether a worker was asked.

        Raises:
            RefCutError: If there are too many references, or one of them is gone.
        """
        _check_references(reference_names)
        ids = self._references.ids(reference_names)
        return self._preloads.ask(
            PreloadJob(
                NO_PROJECT, zlib.crc32(image_key.encode()), (address_of(image_key),), (ids,) if ids else ()
            )
        )

    def answer(
        self,
        image_key: str,
        session: str,
        clicks: Sequence[PercentClick],
        box: PercentBox | None,
        reference_names: Sequence[str],
        extent: int = 0,
        *,
        wants_map: bool = False,
    ) -> PlaygroundMask:
        """Asks a worker for the mask of some clicks.

        Args:
            image_key: The photograph (`images.uploads`).
            session: Names the object: of two clicks with the same session, the newer one wins.
            clicks: Clicks in percent of the photograph, in the order in which they apply.
            box: The box that the object began with, in percent; None without one.
            reference_names: References that say what is meant; none means clicks alone.
            extent: Steps larger than the network's choice; negative for smaller.
            wants_map: Whether the probabilities shall come along.

        Raises:
            RefCutError: If there is no answer; the message says why, and what helps.
        """
        if len(clicks) > MAX_CLICKS:
            raise BadRequestError(f"at most {MAX_CLICKS} clicks go together", hint="clear some")
        _check_references(reference_names)
        if box is None and not any(click.positive for click in clicks):
            raise NoPositiveClickError("there is no click on the thing yet", hint="click on it")
        answer = self._sender.ask(
            ClickJob(
                project_id=NO_PROJECT,
                task_id=zlib.crc32(f"{image_key} {session}".encode()),
                image_address=address_of(image_key),
                label="playground",
                clicks=tuple(clicks),
                reference_ids=self._references.ids(reference_names),
                click_ids=(session,),
                box=box,
                extent=extent,
                wants_map=wants_map,
            )
        )
        if answer.error_code is not None:
            raise WorkerRefusalError(answer.error_code, answer.error_message or answer.error_code)
        mask_hw = (
            brush_rle.decode(answer.rle, answer.height, answer.width)
            if answer.rle
            else np.zeros((answer.height, answer.width), bool)
        )
        return PlaygroundMask(
            mask_hw,
            answer.score,
            answer.model_version,
            dict(answer.milliseconds),
            answer.map_png,
        )


def _check_references(names: Sequence[str]) -> None:
    if len(names) > MAX_REFERENCES:
        raise BadRequestError(f"at most {MAX_REFERENCES} references go together", hint="remove some")
