"""References of the playground: rows of the reference table that belong to no project, and the demo's parts."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import cv2
import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Engine, delete, select
from sqlalchemy.orm import Session

from refcut_backend.database.tables import Reference
from refcut_backend.errors import BadRequestError
from refcut_backend.images.uploads import KEPT_FOR, address_of
from refcut_backend.label_studio.project_ids import NO_PROJECT
from refcut_backend.references.parse import mask_to_png, png_to_mask

MAX_REFERENCES = 500
"""Stored at once; the oldest ones are deleted for new ones."""


class PlaygroundReferences:
    """Stores what people mark on the playground, for a day.

    Args:
        engine: The database.
        now: The present time, with a time zone.
    """

    def __init__(self, engine: Engine, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._engine = engine
        self._now = now

    def add(
        self, image_key: str, positive_hw: NDArray[np.bool_], negative_hw: NDArray[np.bool_] | None
    ) -> str:
        """Stores a reference.

        Args:
            image_key: The photograph (`images.uploads`).
            positive_hw: Pixels that are meant, (H, W) in the frame of the photograph.
            negative_hw: Pixels that must stay out; None if nothing is said about them.

        Returns:
            An unguessable name, with which a click names the reference.

        Raises:
            BadRequestError: If nothing is marked.
        """
        if not positive_hw.any() and (negative_hw is None or not negative_hw.any()):
            raise BadRequestError("the reference marks nothing", hint="mark what is meant first")
        name = secrets.token_urlsafe(16)
        png = mask_to_png(positive_hw)
        negative_png = None if negative_hw is None or not negative_hw.any() else mask_to_png(negative_hw)
        digest = hashlib.sha256(image_key.encode() + b"\0" + png + b"\0" + (negative_png or b"")).hexdigest()
        now = self._now()
        with Session(self._engine) as session, session.begin():
            self._drop_old(session, now)
            session.add(
                Reference(
                    project_id=NO_PROJECT,
                    annotation_id=secrets.randbelow(2**62),
                    task_id=0,
                    label=name,
                    to_name="",
                    image_address=address_of(image_key),
                    positive_png=png,
                    negative_png=negative_png,
                    version=digest[:12],
                    annotated_at=now.isoformat(),
                    seen_at=now,
                )
            )
        return name

    def ids(self, names: Sequence[str]) -> tuple[int, ...]:
        """Returns the row ids of references, in the order of their names.

        Raises:
            BadRequestError: If one of them is not stored (any more).
        """
        with Session(self._engine) as session:
            query = select(Reference.label, Reference.id).where(
                Reference.project_id == NO_PROJECT, Reference.label.in_(names)
            )
            found = {label: number for label, number in session.execute(query)}
        if missing := [name for name in names if name not in found]:
            raise _gone(len(missing))
        return tuple(found[name] for name in names)

    def masks(self, name: str) -> tuple[NDArray[np.bool_], NDArray[np.bool_] | None]:
        """Returns what a reference marks: what is meant, and what must stay out or None, both (H, W).

        Raises:
            BadRequestError: If it is not stored (any more).
        """
        (number,) = self.ids([name])
        with Session(self._engine) as session:
            row = session.get(Reference, number)
            if row is None:
                raise _gone(1)
            negative_png = row.negative_png
            return png_to_mask(row.positive_png), None if negative_png is None else png_to_mask(negative_png)

    def _drop_old(self, session: Session, now: datetime) -> None:
        of_playground = Reference.project_id == NO_PROJECT
        session.execute(delete(Reference).where(of_playground, Reference.seen_at < now - KEPT_FOR))
        rest = (
            select(Reference.id).where(of_playground).order_by(Reference.id.desc()).offset(MAX_REFERENCES - 1)
        )
        surplus = session.scalars(rest).all()
        if surplus:
            session.execute(delete(Reference).where(Reference.id.in_(surplus)))


def _gone(number: int) -> BadRequestError:
    return BadRequestError(
        f"{number} of the references are no longer on the playground",
        hint="choose or mark them again: they are kept for a day",
    )


def outline_png(positive_hw: NDArray[np.bool_], negative_hw: NDArray[np.bool_] | None) -> bytes:
    """A picture of masks to lay over a photograph: green = meant, red = must stay out, the rest transparent.

    Args:
        positive_hw: (H, W).
        negative_hw: (H, W); None for nothing.

    Returns:
        A PNG file (H, W, 4).
    """
    pixels = np.zeros((*positive_hw.shape, 4), np.uint8)
    for mask_hw, colour_bgr in ((negative_hw, (60, 60, 220)), (positive_hw, (80, 175, 40))):
        if mask_hw is None:
            continue
        width_px = max(1, round(max(mask_hw.shape) / 250))
        inner = cv2.erode(mask_hw.astype(np.uint8), np.ones((2 * width_px + 1,) * 2, np.uint8))
        pixels[mask_hw] = (*colour_bgr, 70)
        pixels[mask_hw & ~inner.astype(bool)] = (*colour_bgr, 255)
    ok, data = cv2.imencode(".png", pixels)
    assert ok, "OpenCV always writes PNG"
    return data.tobytes()
