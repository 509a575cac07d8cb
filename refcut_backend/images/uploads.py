"""Photographs that lie in the database, because every worker reads it, on whichever machine it runs.

Those that people dropped on the playground are kept for a day, within a limit of bytes. Each is named by 128 random bits,
so that nobody finds another person's photograph. Those of references that came from a set belong to a project and are
kept as long as it has a reference on them.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from sqlalchemy import Engine, delete, func, literal, select
from sqlalchemy.orm import Session

from refcut_backend.database.tables import Reference, ReferenceImage, Upload
from refcut_backend.errors import ImageError, TooLargeError

SCHEME = "playground:"
"""The address of an upload is this and its key. Only jobs without a project may use it."""
REFERENCE_SCHEME = "reference-set:"
"""The address of a reference's photograph is this and the SHA-256 of the file."""
KEPT_FOR = timedelta(days=1)
MAX_UPLOAD_BYTES = 20 * 2**20
MAX_TOTAL_BYTES = 300 * 2**20
"""Limit of all uploads together; the oldest ones are deleted for a new one."""


class Uploads:
    """The photographs in the database.

    Args:
        engine: The database.
        now: The present time, with a time zone.
    """

    def __init__(self, engine: Engine, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._engine = engine
        self._now = now

    def add(self, data: bytes, key: str | None = None) -> str:
        """Stores a file.

        Args:
            data: The file. It is not decoded here.
            key: A key of one's own for a file that is always the same; None for a random one.

        Returns:
            The key. A file whose key is stored already is only kept for longer.

        Raises:
            TooLargeError: If the file is larger than `MAX_UPLOAD_BYTES`.
        """
        if len(data) > MAX_UPLOAD_BYTES:
            raise TooLargeError(
                f"the photograph has {len(data) / 2**20:.0f} MB",
                hint=f"the playground takes up to {MAX_UPLOAD_BYTES // 2**20} MB",
            )
        key = key or secrets.token_urlsafe(16)
        now = self._now()
        with Session(self._engine) as session, session.begin():
            session.execute(delete(Upload).where(Upload.used_at < now - KEPT_FOR))
            known = session.get(Upload, key)
            if known is not None:
                known.used_at = now
                return key
            self._make_room(session, len(data))
            session.add(Upload(key=key, data=data, size_bytes=len(data), used_at=now))
        return key

    def read(self, key: str) -> bytes:
        """Returns a file. Raises ImageError if it is not stored (any more)."""
        with Session(self._engine) as session:
            row = session.get(Upload, key)
            if row is None or row.used_at.replace(tzinfo=row.used_at.tzinfo or UTC) < self._now() - KEPT_FOR:
                raise ImageError(
                    "the photograph is no longer on the playground",
                    hint="drop it in again: it is kept for a day",
                )
            return row.data

    def add_of_reference(self, session: Session, project_id: int, data: bytes) -> None:
        """Stores the photograph of a project's reference, in the transaction that stores the reference."""
        digest = hashlib.sha256(data).hexdigest()
        if session.get(ReferenceImage, (project_id, digest)) is None:
            session.add(ReferenceImage(project_id=project_id, digest=digest, data=data))

    def of_reference(self, project_id: int, address: str) -> bytes | None:
        """Returns the file at an address of `address_of_reference`; None for any other address.

        Raises:
            ImageError: The project has no such photograph (any more).
        """
        if not address.startswith(REFERENCE_SCHEME):
            return None
        with Session(self._engine) as session:
            row = session.get(ReferenceImage, (project_id, address.removeprefix(REFERENCE_SCHEME)))
            if row is None:
                raise ImageError("the photograph of the reference is gone", hint="import the set again")
            return row.data

    def drop_unused(self, project_id: int) -> None:
        """Deletes the photographs of a project that no reference is on any more."""
        used = select(Reference.image_address).where(
            Reference.project_id == project_id, Reference.image_address.startswith(REFERENCE_SCHEME)
        )
        address = literal(REFERENCE_SCHEME) + ReferenceImage.digest
        # One statement: a reference that is stored meanwhile keeps its photograph.
        unused = delete(ReferenceImage).where(ReferenceImage.project_id == project_id, address.not_in(used))
        with Session(self._engine) as session, session.begin():
            session.execute(unused.execution_options(synchronize_session=False))

    def _make_room(self, session: Session, size_bytes: int) -> None:
        total = session.scalar(select(func.coalesce(func.sum(Upload.size_bytes), 0))) or 0
        if total + size_bytes <= MAX_TOTAL_BYTES:
            return
        for key, freed in session.execute(
            select(Upload.key, Upload.size_bytes).order_by(Upload.used_at)
        ).all():
            session.execute(delete(Upload).where(Upload.key == key))
            total -= freed
            if total + size_bytes <= MAX_TOTAL_BYTES:
                return


def address_of(key: str) -> str:
    """The address of an upload, as jobs name it."""
    return f"{SCHEME}{key}"


def address_of_reference(data: bytes) -> str:
    """The address of the photograph of a reference that came from a set: the same for the same file."""
    return f"{REFERENCE_SCHEME}{hashlib.sha256(data).hexdigest()}"


def key_of(address: str) -> str | None:
    """The key of an upload's address; None for any other address."""
    return address.removeprefix(SCHEME) if address.startswith(SCHEME) else None
