"""Whether dots in Label Studio add or take away, by their ids."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Engine, select

from refcut_backend.database.engine import upsert
from refcut_backend.database.tables import ClickPolarity
from refcut_backend.label_studio.prompts import Dot


class ClickPolarities:
    """Label Studio forgets them when its page is loaded again (contract, section 3, rule 9); ids survive."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def resolve(self, project_id: int, dots: Sequence[Dot]) -> dict[str, bool]:
        """Remembers what dots say; returns by id what is known of those that say nothing."""
        said = {dot.id: dot.positive for dot in dots if dot.positive is not None}
        silent = [dot.id for dot in dots if dot.positive is None]
        if said:
            self._remember(project_id, said)
        return self._known(project_id, silent) if silent else {}

    def _known(self, project_id: int, ids: Sequence[str]) -> dict[str, bool]:
        query = select(ClickPolarity.click_id, ClickPolarity.positive).where(
            ClickPolarity.project_id == project_id, ClickPolarity.click_id.in_(ids)
        )
        with self._engine.connect() as connection:
            return {id: positive for id, positive in connection.execute(query)}

    def _remember(self, project_id: int, said: dict[str, bool]) -> None:
        # In one order always: PostgreSQL lets nobody wait in a circle for rows that others have just written.
        rows = [{"project_id": project_id, "click_id": id, "positive": said[id]} for id in sorted(said)]
        with self._engine.begin() as connection:
            connection.execute(upsert(self._engine, ClickPolarity, ["positive"]), rows)
