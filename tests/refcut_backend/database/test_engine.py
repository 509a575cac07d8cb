from __future__ import annotations

import stat

import pytest

from refcut_backend.database.engine import open_database
from refcut_backend.errors import ConfigError


def test_the_database_with_the_tokens_is_readable_by_its_owner_only(engine, tmp_path):
    mode = (tmp_path / "state" / "refcut.db").stat().st_mode
    assert stat.S_IMODE(mode) == 0o600


def test_a_database_that_cannot_be_opened_is_a_clear_error_without_the_password():
    with pytest.raises(ConfigError) as error:
        open_database("sqlite:////proc/no/such/folder/secret.db")
    assert "REFCUT_DATABASE_URL" in str(error.value)


def test_a_driver_that_is_not_installed_is_named():
    with pytest.raises(ConfigError, match="pg8000") as error:
        open_database("postgresql+pg8000://user:canary@127.0.0.1/refcut")
    assert "canary" not in str(error.value)
