"""Photographs of the playground."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine

from refcut_backend.errors import ImageError, TooLargeError
from refcut_backend.images import uploads
from refcut_backend.images.uploads import KEPT_FOR, Uploads, address_of, key_of


class Clock:
    """A present time that tests move."""

    def __init__(self) -> None:
        self.now = datetime(2026, 11, 29, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


def test_an_upload_is_read_back_under_a_key_that_nobody_guesses(engine: Engine) -> None:
    stored = Uploads(engine)
    first, second = stored.add(b"one"), stored.add(b"one")
    assert first != second
    assert len(first) >= 22
    assert stored.read(first) == b"one"
    assert key_of(address_of(first)) == first
    assert key_of("/data/upload/1/a.png") is None


def test_an_upload_is_gone_after_a_day(engine: Engine) -> None:
    clock = Clock()
    stored = Uploads(engine, clock)
    key = stored.add(b"one")
    clock.now += KEPT_FOR - timedelta(minutes=1)
    assert stored.read(key) == b"one"
    clock.now += timedelta(minutes=2)
    with pytest.raises(ImageError, match="no longer on the playground"):
        stored.read(key)
    stored.add(b"another")
    with pytest.raises(ImageError):
        Uploads(engine, lambda: clock.now - timedelta(hours=2)).read(key)


def test_a_file_with_a_key_of_its_own_is_stored_once_and_kept_for_longer(engine: Engine) -> None:
    clock = Clock()
    stored = Uploads(engine, clock)
    assert stored.add(b"demo", "demo-1") == stored.add(b"demo", "demo-1") == "demo-1"
    clock.now += timedelta(hours=20)
    stored.add(b"demo", "demo-1")
    clock.now += timedelta(hours=20)
    assert stored.read("demo-1") == b"demo"


def test_the_oldest_uploads_make_room(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "MAX_TOTAL_BYTES", 10)
    clock = Clock()
    stored = Uploads(engine, clock)
    keys = []
    for number in range(3):
        clock.now += timedelta(minutes=1)
        keys.append(stored.add(bytes([number]) * 4))
    with pytest.raises(ImageError):
        stored.read(keys[0])
    assert stored.read(keys[1]) == b"\x01" * 4
    assert stored.read(keys[2]) == b"\x02" * 4


def test_a_file_that_is_too_large_is_refused(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "MAX_UPLOAD_BYTES", 10)
    with pytest.raises(TooLargeError, match="up to 0 MB"):
        Uploads(engine).add(b"x" * 11)
