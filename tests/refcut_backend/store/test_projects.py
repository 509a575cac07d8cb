from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from refcut_backend.errors import NotConnectedError
from refcut_backend.store.projects import Connection, Projects


def test_a_project_is_remembered_with_its_latest_connection(engine):
    projects = Projects(engine)
    projects.remember(1, Connection("http://a", "one"), "<View/>")
    projects.remember(1, Connection("http://b", "two"), "<View/>")
    assert projects.connection(1) == Connection("http://b", "two")
    assert "two" not in repr(projects.connection(1))


def test_a_project_connected_by_many_pages_at_once_is_remembered_once(engine):
    projects = Projects(engine)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: projects.remember(1, Connection("http://a", "one"), "<View/>"), range(16)))
    assert projects.connection(1) == Connection("http://a", "one")


def test_an_unknown_project_says_how_to_connect_it(engine):
    with pytest.raises(NotConnectedError, match="Settings > Model"):
        Projects(engine).connection(9)
