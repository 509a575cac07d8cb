from __future__ import annotations

import pytest

from refcut_backend.cli.common import checked_settings, settings_table
from refcut_backend.errors import ConfigError
from refcut_backend.settings import Settings, read_settings
from tests.support.recorded import REPOSITORY


def test_the_documented_settings_are_the_ones_in_the_code():
    assert settings_table() in (REPOSITORY / "docs" / "settings.md").read_text()


def test_every_setting_is_described():
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []


def test_a_wrong_setting_is_named_without_its_value(monkeypatch):
    monkeypatch.setenv("REFCUT_CLICK_TIMEOUT_S", "canary")
    with pytest.raises(ConfigError, match="REFCUT_CLICK_TIMEOUT_S") as error:
        read_settings()
    assert "canary" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "aliases"),
    [
        ("", ()),
        ("http://localhost:8080", ("http://localhost:8080",)),
        (" http://a , https://b/labeling", ("http://a", "https://b/labeling")),
    ],
)
def test_aliases_of_label_studio_are_urls_comma_separated(text, aliases):
    assert Settings(label_studio_aliases=text).aliases == aliases


@pytest.mark.parametrize("text", ["localhost:8080", "http://user@host", "http://a http://b", "ftp://a"])
def test_an_alias_that_is_no_url_is_refused(monkeypatch, text):
    monkeypatch.setenv("REFCUT_LABEL_STUDIO_ALIASES", text)
    with pytest.raises(ConfigError, match="REFCUT_LABEL_STUDIO_ALIASES"):
        read_settings()


def test_a_token_never_shows():
    settings = Settings(access_token="canary", label_studio_url="http://label-studio")
    assert settings.own_token == "canary"
    assert "canary" not in repr(settings)


def test_a_token_is_not_sent_wherever_setup_says(monkeypatch):
    monkeypatch.setenv("REFCUT_ACCESS_TOKEN", "canary")
    with pytest.raises(ConfigError, match="REFCUT_LABEL_STUDIO_URL") as error:
        read_settings()
    assert "canary" not in str(error.value)


def test_an_empty_token_is_none(monkeypatch):
    monkeypatch.setenv("REFCUT_ACCESS_TOKEN", "")
    monkeypatch.setenv("REFCUT_LABEL_STUDIO_URL", "")
    assert read_settings().own_token is None


@pytest.mark.parametrize(
    ("variable", "value"), [("REFCUT_REFERENCE_AUTHORS", "somebody"), ("REFCUT_TRAIN_CRON", "at night")]
)
def test_a_setting_with_a_syntax_of_its_own_is_checked_at_the_start_of_every_command(
    monkeypatch, variable, value
):
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigError, match=variable):
        checked_settings()


def test_image_hosts_are_a_list_in_any_case():
    assert Settings(image_hosts="A.example, b.example,").allowed_image_hosts == {"a.example", "b.example"}


@pytest.mark.parametrize(
    ("host", "address", "everywhere"),
    [
        ("127.0.0.1", "http://127.0.0.1:9090", False),
        ("refcut.example", "http://refcut.example:9090", False),
        ("0.0.0.0", "http://127.0.0.1:9090", True),
        ("::", "http://[::1]:9090", True),
        ("fd00::7", "http://[fd00::7]:9090", False),
    ],
)
def test_the_address_for_programs_on_this_machine_is_one_that_can_be_connected_to(host, address, everywhere):
    settings = Settings(host=host)
    assert (settings.local_address, settings.listens_everywhere) == (address, everywhere)
