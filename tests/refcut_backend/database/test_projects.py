from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from refcut_backend.database.projects import Projects
from refcut_backend.errors import NotConnectedError
from refcut_backend.label_studio.connection import Connection


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


def test_the_engineer_s_token_and_address_win_over_what_label_studio_hands_over(engine):
    Projects(engine).remember(1, Connection("http://localhost:8080", "handed over"), "<View/>")
    set_by_hand = Projects(engine, own_token="mine", own_url="http://label-studio:8080/")
    assert set_by_hand.connection(1) == Connection(
        "http://label-studio:8080", "mine", known_as="http://localhost:8080"
    )
    assert Projects(engine).connection(1) == Connection("http://localhost:8080", "handed over")


def test_a_label_studio_without_an_address_says_which_setting_helps(engine):
    Projects(engine).remember(1, Connection("", "token"), "<View/>")
    with pytest.raises(NotConnectedError, match="REFCUT_LABEL_STUDIO_URL"):
        Projects(engine).connection(1)
