"""The reference registry: which masks say what a project's labels mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Engine, delete, select
from sqlalchemy.orm import Session

from refcut_backend.core.references import LabelReference
from refcut_backend.store.tables import Reference


@dataclass(frozen=True)
class ReferenceVersion:
    """A reference by row and content."""

    id: int
    version: str


@dataclass(frozen=True)
class StoredReference:
    """A reference with its masks (H, W)."""

    version: str
    project_id: int
    task_id: int
    image_address: str
    positive_hw: NDArray[np.bool_]
    negative_hw: NDArray[np.bool_] | None


class References:
    """What Label Studio's annotations say, as last seen. An annotation's newest state replaces its older one."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def replace_annotation(
        self,
        project_id: int,
        annotation_id: int,
        annotated_at: str,
        task_id: int,
        found: Sequence[tuple[LabelReference, str]],
    ) -> None:
        """Makes the registry say what an annotation says now: (reference, image address) pairs, or none.

        annotated_at: Label Studio's `updated_at`. An older event that arrives late changes nothing.
        """
        with Session(self._engine) as session, session.begin():
            known = session.scalars(
                select(Reference).where(
                    Reference.project_id == project_id, Reference.annotation_id == annotation_id
                )
            ).all()
            if any(reference.annotated_at > annotated_at for reference in known):
                return
            for reference in known:
                session.delete(reference)
            session.flush()
            for label_reference, address in found:
                session.add(
                    Reference(
                        project_id=project_id,
                        annotation_id=annotation_id,
                        task_id=task_id,
                        label=label_reference.label,
                        to_name=label_reference.to_name,
                        image_address=address,
                        positive_png=mask_to_png(label_reference.positive_hw),
                        negative_png=None
                        if label_reference.negative_hw is None
                        else mask_to_png(label_reference.negative_hw),
                        version=label_reference.version(address),
                        annotated_at=annotated_at,
                    )
                )

    def remove_annotations(self, project_id: int, annotation_ids: Sequence[int]) -> None:
        """Forgets what deleted annotations said."""
        with Session(self._engine) as session, session.begin():
            session.execute(
                delete(Reference).where(
                    Reference.project_id == project_id, Reference.annotation_id.in_(annotation_ids)
                )
            )

    def remove_tasks(self, project_id: int, task_ids: Sequence[int]) -> None:
        """Forgets what annotations of deleted tasks said."""
        with Session(self._engine) as session, session.begin():
            session.execute(
                delete(Reference).where(Reference.project_id == project_id, Reference.task_id.in_(task_ids))
            )

    def newest(self, project_id: int, label: str, limit: int) -> list[ReferenceVersion]:
        """The references of a label, newest annotation first."""
        query = (
            select(Reference.id, Reference.version)
            .where(Reference.project_id == project_id, Reference.label == label)
            .order_by(Reference.annotated_at.desc(), Reference.id.desc())
            .limit(limit)
        )
        with Session(self._engine) as session:
            return [ReferenceVersion(id, version) for id, version in session.execute(query)]

    def load(self, reference_id: int) -> StoredReference | None:
        """A reference with its masks; None when it has been removed meanwhile."""
        with Session(self._engine) as session:
            row = session.get(Reference, reference_id)
            if row is None:
                return None
            return StoredReference(
                version=row.version,
                project_id=row.project_id,
                task_id=row.task_id,
                image_address=row.image_address,
                positive_hw=png_to_mask(row.positive_png),
                negative_hw=None if row.negative_png is None else png_to_mask(row.negative_png),
            )


def mask_to_png(mask_hw: NDArray[np.bool_]) -> bytes:
    """Mask (H, W) as a 1-bit PNG file."""
    ok, data = cv2.imencode(".png", mask_hw.astype(np.uint8) * 255, [cv2.IMWRITE_PNG_BILEVEL, 1])
    assert ok, "OpenCV always writes PNG"
    return data.tobytes()


def png_to_mask(data: bytes) -> NDArray[np.bool_]:
    """What `mask_to_png` wrote, as a mask (H, W)."""
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
    return pixels > 127  # type: ignore[return-value, operator]
