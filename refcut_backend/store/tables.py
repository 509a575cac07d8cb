"""The tables of the one SQL database."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import DateTime, LargeBinary, String, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


def _now() -> datetime:
    return datetime.now(UTC)


class Base(DeclarativeBase):
    """Base of all tables."""


class Project(Base):
    """A Label Studio project that has called /setup: where it is and with which token its images are read."""

    __tablename__ = "projects"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    label_studio: Mapped[str] = mapped_column(String(2000))
    access_token: Mapped[str] = mapped_column(String(4000))
    label_config: Mapped[str]
    seen_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), default=_now, onupdate=_now)


class Reference(Base):
    """What one annotation says about one label. Masks are 1-bit PNG files in the image's frame."""

    __tablename__ = "references"
    __table_args__ = (UniqueConstraint("project_id", "annotation_id", "label", "to_name"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = mapped_column(index=True)
    annotation_id: Mapped[int]
    task_id: Mapped[int]
    label: Mapped[str] = mapped_column(String(500))
    to_name: Mapped[str] = mapped_column(String(500))
    image_address: Mapped[str]
    positive_png: Mapped[bytes] = mapped_column(LargeBinary)
    negative_png: Mapped[bytes | None] = mapped_column(LargeBinary)
    version: Mapped[str] = mapped_column(String(12))
    annotated_at: Mapped[str] = mapped_column(String(40))
    seen_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), default=_now, onupdate=_now)


class HiddenAddress(Base):
    """An image address that holds a secret; jobs name it by its number. digest: SHA-256 of the address."""

    __tablename__ = "hidden_addresses"

    id: Mapped[int] = mapped_column(primary_key=True)
    digest: Mapped[str] = mapped_column(String(64), unique=True)
    address: Mapped[str]
    seen_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), default=_now, index=True)
