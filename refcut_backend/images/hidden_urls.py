"""Keeps image addresses that contain a secret out of Redis: a job contains a number, the database the address.

Everyone who reads a link with a signature in its query can open the image, for hours or forever.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

from sqlalchemy import Engine, delete, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from refcut_backend.database.tables import HiddenAddress
from refcut_backend.errors import ImageError

PREFIX = "kept:"
STORED_FOR = timedelta(days=30)
REFRESH_AFTER = timedelta(days=1)
_OPEN_QUERIES = ("/data/local-files", "/storage-data/uploaded", "/tasks/")


class Addresses:
    """Replaces addresses by names without a secret, and back."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def hide(self, address: str) -> str:
        """Returns a name for an address that contains a secret; returns any other address as it is."""
        if not holds_secret(address):
            return address
        digest = hashlib.sha256(address.encode()).hexdigest()
        try:
            return f"{PREFIX}{self._id_of(digest, address)}"
        except IntegrityError:
            # Another request stored it at the same moment.
            return f"{PREFIX}{self._id_of(digest, address)}"

    def read(self, name: str) -> str:
        """Returns the address for a name. Raises ImageError if it was deleted."""
        if not name.startswith(PREFIX):
            return name
        number = name.removeprefix(PREFIX)
        with Session(self._engine) as session:
            row = session.get(HiddenAddress, int(number)) if number.isascii() and number.isdigit() else None
        if row is None:
            raise ImageError("the image's address is no longer known", hint="open the task again")
        return row.address

    def _id_of(self, digest: str, address: str) -> int:
        with Session(self._engine) as session:
            row = session.scalar(select(HiddenAddress).where(HiddenAddress.digest == digest))
            if row is None:
                session.execute(
                    delete(HiddenAddress).where(HiddenAddress.seen_at < datetime.now(UTC) - STORED_FOR)
                )
                row = HiddenAddress(digest=digest, address=address)
                session.add(row)
                session.commit()
            elif row.seen_at.replace(tzinfo=UTC) < datetime.now(UTC) - REFRESH_AFTER:
                row.seen_at = datetime.now(UTC)
                session.commit()
            return row.id


def holds_secret(address: str) -> bool:
    """Whether an address contains a secret: a query, a user or a password.

    Queries of Label Studio's own addresses are not secret, because they give no access without a token.
    """
    try:
        parts = urlsplit(address)
    except ValueError:
        return True
    own = not parts.netloc and parts.path.startswith(_OPEN_QUERIES)
    return bool(parts.username or parts.password or (parts.query and not own))
