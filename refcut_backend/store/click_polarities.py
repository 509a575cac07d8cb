"""Whether dots in Label Studio add or take away, by their ids."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import Engine, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from refcut_backend.core.clicks import Dot
from refcut_backend.store.tables import ClickPolarity


class ClickPolarities:
    """Label Studio forgets them when its page is loaded again (contract, section 3, rule 9); ids survive."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def resolve(self, project_id: int, dots: Iterable[Dot]) -> dict[str, bool]:
        """Remembers what dots say; returns by id what is known of those that say nothing."""
        said = {dot.id: dot.positive for dot in dots}
        known = self._known(project_id, said.keys())
        news = {
            id: positive
            for id, positive in said.items()
            if positive is not None and known.get(id) != positive
        }
        if news:
            try:
                self._remember(project_id, news)
            except IntegrityError:
                # The same click twice at once: the other request has just stored a dot.
                self._remember(project_id, news)
        return {id: known[id] for id, positive in said.items() if positive is None and id in known}

    def _known(self, project_id: int, ids: Iterable[str]) -> dict[str, bool]:
        query = select(ClickPolarity.click_id, ClickPolarity.positive).where(
            ClickPolarity.project_id == project_id, ClickPolarity.click_id.in_(list(ids))
        )
        with Session(self._engine) as session:
            return {id: positive for id, positive in session.execute(query)}

    def _remember(self, project_id: int, news: dict[str, bool]) -> None:
        with Session(self._engine) as session, session.begin():
            for click_id, positive in news.items():
                session.merge(ClickPolarity(project_id=project_id, click_id=click_id, positive=positive))
