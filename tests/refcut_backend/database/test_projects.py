from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from refcut_backend.database.projects import Projects, SetupResult
from refcut_backend.errors import ConfigError, NotConnectedError, UnclearProjectError
from refcut_backend.label_studio.connection import Connection
from refcut_backend.label_studio.project_ids import (
    MAX_PLACES,
    ProjectChoice,
    ProjectRef,
    project_id_of,
    project_name,
)
from refcut_backend.references.owner_rules import OwnerRules
from refcut_backend.references.selection import Action, OwnerRule

FIRST = Connection("http://a", "token a")
SECOND = Connection("http://b", "token b")


def connections(projects: Projects) -> list[tuple[int, str, str]]:
    """Project id, address and token of all projects."""
    found = [(one, projects.connection(one)) for one in projects.known()]
    return [(one, connection.label_studio, connection.access_token) for one, connection in found]


def test_a_project_is_remembered_with_its_latest_token_and_label_config(engine):
    projects = Projects(engine)
    projects.remember(1, Connection("http://a", "one"), "<View/>", "111")
    assert projects.remember(1, Connection("http://a", "two"), "<View> </View>", "111").has_changed
    assert projects.connection(1) == Connection("http://a", "two", project_created="111")
    assert projects.label_config(1) == "<View> </View>"
    assert "two" not in repr(projects.connection(1))


def test_a_label_studio_that_has_another_address_is_known_by_its_token(engine):
    projects = Projects(engine)
    projects.remember(7, FIRST, "<View/>", "111")
    moved = Connection("http://moved", FIRST.access_token)
    assert projects.remember(7, moved, "<View/>", "111") == SetupResult(7, has_changed=True)
    assert connections(projects) == [(7, "http://moved", "token a")]


@pytest.mark.parametrize("created", ["111", None])
def test_a_project_without_an_address_is_not_given_to_another_label_studio(engine, created):
    projects = Projects(engine, own_url="http://inside")
    no_address = Connection("", FIRST.access_token)
    projects.remember(7, no_address, "<View/>", "111")
    assert projects.remember(7, SECOND, "<View/>", created).project_id != 7
    assert projects.connection(7).access_token == FIRST.access_token
    assert projects.remember(7, FIRST, "<View/>", "111").project_id == 7, "now it knows its address"


def test_a_forgotten_project_is_not_given_to_another_label_studio_because_its_versions_stay(engine):
    projects = Projects(engine)
    projects.remember(7, Connection("", "token a"), "<View/>", "111")
    projects.forget(7)
    assert projects.remember(7, SECOND, "<View/>", "111").project_id != 7


@pytest.mark.parametrize(
    ("other", "created"),
    [(SECOND, "222"), (FIRST, "222"), (SECOND, "111"), (SECOND, None)],
    ids=["another Label Studio", "installed anew", "created in the same second", "no creation"],
)
def test_another_project_of_a_number_gets_an_id_of_its_own_and_changes_nothing(engine, other, created):
    projects = Projects(engine)
    assert projects.remember(7, FIRST, "<View/>", "111").project_id == 7
    for _ in range(2):
        assert projects.remember(7, other, "<Other/>", created).project_id == 1_000_000_000_007
        assert connections(projects) == [
            (7, "http://a", "token a"),
            (1_000_000_000_007, other.label_studio, other.access_token),
        ]
        assert projects.label_config(7) == "<View/>"


def test_many_projects_of_one_number_are_kept_apart(engine):
    projects = Projects(engine)
    ids = [projects.remember(7, FIRST, "<View/>", str(created)).project_id for created in range(20)]
    assert ids == [7 + place * 10**12 for place in range(20)]
    assert [projects.resolve(ProjectRef(7, str(created))) for created in range(20)] == ids
    assert [projects.find(f"7#{place}") for place in range(1, 21)] == ids


def test_the_command_line_takes_the_names_of_all_projects_of_a_number():
    assert ProjectChoice.read(project_name(project_id_of(7, MAX_PLACES))) == ProjectChoice(
        7, place=MAX_PLACES
    )


def test_a_state_that_did_not_store_when_projects_were_created_is_taken_over_by_the_token(engine):
    projects = Projects(engine)
    projects.remember(7, FIRST, "<View/>")
    assert projects.remember(7, Connection("http://a", "forged"), "<View/>", "222").project_id != 7
    assert projects.remember(7, FIRST, "<View/>", "111").project_id == 7
    assert projects.connection(7).project_created == "111"


def test_a_request_is_resolved_by_number_and_creation(engine):
    projects = Projects(engine)
    with pytest.raises(NotConnectedError, match="Settings > Model"):
        projects.resolve(ProjectRef(7, "111"))
    projects.remember(7, FIRST, "<View/>", "111")
    assert projects.resolve(ProjectRef(7, "111")) == projects.resolve(ProjectRef(7)) == 7
    with pytest.raises(NotConnectedError, match="only another one"):
        projects.resolve(ProjectRef(7, "222"))
    second = projects.remember(7, SECOND, "<View/>", "222").project_id
    assert projects.resolve(ProjectRef(7, "222")) == second
    with pytest.raises(UnclearProjectError, match=r"http://a.*http://b"):
        projects.resolve(ProjectRef(7))


def test_a_project_without_a_creation_is_meant_only_as_long_as_no_other_ever_had_its_number(engine):
    projects = Projects(engine)
    projects.remember(7, FIRST, "<View/>")
    assert projects.resolve(ProjectRef(7, "222")) == 7
    second = projects.remember(7, SECOND, "<View/>", "222").project_id
    projects.forget(second)
    with pytest.raises(NotConnectedError):
        projects.resolve(ProjectRef(7, "222"))


def test_two_projects_that_a_request_cannot_distinguish_are_refused_rather_than_mixed(engine):
    projects = Projects(engine)
    projects.remember(7, FIRST, "<View/>", "111")
    projects.remember(7, SECOND, "<View/>", "111")
    with pytest.raises(UnclearProjectError, match=r"7 at http://a.*7#2 at http://b"):
        projects.resolve(ProjectRef(7, "111"))


def test_the_command_line_takes_a_number_as_long_as_it_is_unique_and_lists_the_choices_otherwise(engine):
    projects = Projects(engine)
    projects.remember(7, FIRST, "<View/>", "1795342440")
    assert (
        projects.find("7") == projects.find("7.1795342440") == projects.find("http://a/projects/7/data") == 7
    )
    second = projects.remember(7, SECOND, "<View/>", "1795342441").project_id
    with pytest.raises(ConfigError, match="7 at http://a, created 2026-11-22 10:14:00 UTC; 7#2 at http://b"):
        projects.find("7")
    assert projects.find("7#1") == 7
    for text in ("7#2", "7.1795342441", "http://b/projects/7", "http://b/projects/7/settings/ml"):
        assert projects.find(text) == second
    for text in ("8#1", "7#3", "http://c/projects/7"):
        with pytest.raises(ConfigError, match="refcut projects list"):
            projects.find(text)
    assert projects.find("8") == 8, "the command itself reports that it is not known"


@pytest.mark.parametrize("text", ["", "0", "-1", "seven", "7#0", "7#", "http://a/7", "7.x", "1" * 13])
def test_what_names_no_project_says_what_does(engine, text):
    with pytest.raises(ConfigError, match="7#2"):
        Projects(engine).find(text)


def test_a_forgotten_project_leaves_nothing_and_its_id_is_not_given_to_another(engine):
    projects = Projects(engine)
    projects.remember(7, FIRST, "<View/>", "111")
    second = projects.remember(7, SECOND, "<View/>", "222").project_id
    for one in (7, second):
        OwnerRules(engine).add(one, OwnerRule(Action.DISABLE, "Door"))
    projects.forget(7)
    assert projects.known() == [second]
    assert OwnerRules(engine).of_project(7) == []
    assert len(OwnerRules(engine).of_project(second)) == 1
    assert projects.resolve(ProjectRef(7)) == second
    with pytest.raises(NotConnectedError):
        projects.connection(7)
    assert projects.remember(7, FIRST, "<View/>", "333").project_id == 2_000_000_000_007
    assert projects.remember(7, FIRST, "<View/>", "111") == SetupResult(7, has_changed=True)


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
