"""Image addresses that hold a secret, kept out of Redis: a job carries a number, the database the address.

A link that is signed in its query opens the image to whoever reads it, for hours or for good.
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
KEPT_FOR = timedelta(days=30)
SEEN_ANEW_AFTER = timedelta(days=1)
_OPEN_QUERIES = ("/data/local-files", "/storage-data/uploaded", "/tasks/")


class Addresses:
    """Exchanges addresses for names that may be seen, and back."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def hide(self, address: str) -> str:
        """A name for an address with a query or a password; any other address as it is."""
        if not holds_secret(address):
            return address
        digest = hashlib.sha256(address.encode()).hexdigest()
        try:
            return f"{PREFIX}{self._id_of(digest, address)}"
        except IntegrityError:
            # Another request has just stored it.
            return f"{PREFIX}{self._id_of(digest, address)}"

    def read(self, name: str) -> str:
        """The address behind a name. Raises ImageError when it has been dropped."""
        if not name.startswith(PREFIX):
            return name
        number = name.removeprefix(PREFIX)
        with Session(self._engine) as session:
            row = session.get(HiddenAddress, int(number)) if number.isascii() and number.isdigit() else None
        if row is None:
            raise ImageError("the image's address is not known any more", hint="open the task again")
        return row.address

    def _id_of(self, digest: str, address: str) -> int:
        with Session(self._engine) as session:
            row = session.scalar(select(HiddenAddress).where(HiddenAddress.digest == digest))
            if row is None:
                session.execute(
                    delete(HiddenAddress).where(HiddenAddress.seen_at < datetime.now(UTC) - KEPT_FOR)
                )
                row = HiddenAddress(digest=digest, address=address)
                session.add(row)
                session.commit()
            elif row.seen_at.replace(tzinfo=UTC) < datetime.now(UTC) - SEEN_ANEW_AFTER:
                row.seen_at = datetime.now(UTC)
                session.commit()
            return row.id


def holds_secret(address: str) -> bool:
    """Whether an address should not be seen: it has a query or names a user. Label Studio's own queries are no secret:
    they open nothing without a token."""
    try:
        parts = urlsplit(address)
    except ValueError:
        return True
    own = not parts.netloc and parts.path.startswith(_OPEN_QUERIES)
    return bool(parts.username or parts.password or (parts.query and not own))
