"""Which images of a project are held out, remembered for all later trainings."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from refcut_backend.core.holdout import Side
from refcut_backend.database.tables import ImageSide

Decide = Callable[[Mapping[str, Side]], Mapping[str, Side]]
"""What is known of the project's images to the sides of those of a run."""


class ImageSides:
    """Sides of images, known by the SHA-256 of their pixels."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def known(self, project_id: int) -> dict[str, Side]:
        """Everything that was decided for a project."""
        query = select(ImageSide).where(ImageSide.project_id == project_id)
        with Session(self._engine) as session:
            return {row.content: Side(row.side) for row in session.scalars(query)}

    def settle(self, project_id: int, decide: Decide) -> Mapping[str, Side]:
        """Decides and remembers in one transaction; when this returns, later runs will know. Returns what was decided."""
        query = select(ImageSide).where(ImageSide.project_id == project_id)
        with Session(self._engine) as session, session.begin():
            rows = {row.content: row for row in session.scalars(query)}
            sides = decide({content: Side(row.side) for content, row in rows.items()})
            for content, side in sides.items():
                row = rows.get(content) or ImageSide(project_id=project_id, content=content)
                row.side = side.value
                session.add(row)
        return sides
