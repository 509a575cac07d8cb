from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from refcut_backend.database.tables import HiddenAddress
from refcut_backend.errors import ImageError
from refcut_backend.images.hidden_urls import STORED_FOR, Addresses, holds_secret

SIGNED = "https://bucket.s3.amazonaws.com/a.png?X-Amz-Signature=canary"


@pytest.mark.parametrize(
    "address",
    [
        SIGNED,
        "http://user:canary@host/a.png",
        "https://box.blob.core.windows.net/a?sig=canary",
        "http://[?canary",
    ],
)
def test_an_address_with_a_secret_gets_a_name_without_it(engine, address):
    addresses = Addresses(engine)
    name = addresses.hide(address)
    assert "canary" not in name
    assert Addresses(engine).read(name) == address
    assert addresses.hide(address) == name


@pytest.mark.parametrize(
    "address",
    [
        "/data/upload/2/a.png",
        "/data/local-files/?d=a.png",
        "/storage-data/uploaded/?filepath=upload/2/a.png",
        "s3://bucket/a.png",
        "https://host/a.png",
    ],
)
def test_an_address_without_a_secret_stays_as_it_is(engine, address):
    assert not holds_secret(address)
    assert Addresses(engine).hide(address) == address
    assert Addresses(engine).read(address) == address


@pytest.mark.parametrize("name", ["kept:999", "kept:", "kept:x", "kept:²", "kept:-1"])
def test_a_name_that_stands_for_nothing_says_what_to_do(engine, name):
    with pytest.raises(ImageError, match="open the task again"):
        Addresses(engine).read(name)


def test_requests_at_once_give_one_name(engine):
    addresses = Addresses(engine)
    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(lambda _: addresses.hide(SIGNED), range(16)))) == 1


def test_old_addresses_go_and_those_in_use_stay(engine):
    addresses = Addresses(engine)
    unused, used = addresses.hide(SIGNED + "1"), addresses.hide(SIGNED + "2")
    with Session(engine) as session:
        session.execute(
            update(HiddenAddress).values(seen_at=datetime.now(UTC) - STORED_FOR - timedelta(hours=1))
        )
        session.commit()
    assert addresses.hide(SIGNED + "2") == used
    addresses.hide(SIGNED + "3")
    assert addresses.read(used) == SIGNED + "2"
    with pytest.raises(ImageError):
        addresses.read(unused)
    with Session(engine) as session:
        assert session.scalar(select(func.count()).select_from(HiddenAddress)) == 2
