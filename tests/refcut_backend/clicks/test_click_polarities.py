from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from refcut_backend.clicks.history import ClickPolarities
from refcut_backend.database.engine import open_database
from refcut_backend.label_studio.prompts import Dot


def dots(**said: bool | None) -> list[Dot]:
    return [Dot(name, 1, 2, positive) for name, positive in said.items()]


def test_what_a_dot_said_is_known_when_label_studio_has_forgotten_it(engine):
    polarities = ClickPolarities(engine)
    assert polarities.resolve(1, dots(a=True, b=False)) == {}
    assert polarities.resolve(1, dots(a=None, b=None, c=None, d=True)) == {"a": True, "b": False}


def test_polarities_survive_a_restart(tmp_path):
    url = f"sqlite:///{tmp_path / 'refcut.db'}"
    before = open_database(url)
    ClickPolarities(before).resolve(1, dots(b=False))
    before.dispose()
    after = open_database(url)
    assert ClickPolarities(after).resolve(1, dots(b=None)) == {"b": False}
    after.dispose()


def test_the_newest_word_about_a_dot_counts(engine):
    polarities = ClickPolarities(engine)
    polarities.resolve(1, dots(a=False))
    polarities.resolve(1, dots(a=True))
    assert polarities.resolve(1, dots(a=None)) == {"a": True}


def test_dots_of_another_project_are_unknown(engine):
    polarities = ClickPolarities(engine)
    polarities.resolve(1, dots(a=False))
    assert polarities.resolve(2, dots(a=None)) == {}


def test_the_same_dots_from_many_requests_at_once_are_remembered_once(engine):
    polarities = ClickPolarities(engine)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: polarities.resolve(1, dots(a=False, b=True)), range(16)))
    assert polarities.resolve(1, dots(a=None, b=None)) == {"a": False, "b": True}
