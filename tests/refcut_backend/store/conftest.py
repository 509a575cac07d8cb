"""A fresh database a test."""

from __future__ import annotations

import pytest

from refcut_backend.store.database import open_database


@pytest.fixture
def engine(tmp_path):
    opened = open_database(f"sqlite:///{tmp_path / 'state' / 'refcut.db'}")
    yield opened
    opened.dispose()
