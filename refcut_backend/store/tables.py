"""The tables of the one SQL database."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, DateTime, Float, LargeBinary, String, UniqueConstraint
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


class ClickPolarity(Base):
    """Whether a dot in Label Studio adds or takes away: Label Studio forgets it when its page is loaded again."""

    __tablename__ = "click_polarities"

    project_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    click_id: Mapped[str] = mapped_column(String(100), primary_key=True)
    positive: Mapped[bool]


class ClickedObjectState(Base):
    """An object as it was last answered, for as long as further clicks may be about it. Times: seconds since 1970.

    clicks: [id, x, y, positive] in percent, in the order in which they apply. box: [id, left, top, right, bottom].
    borrowed: ids of clicks that are dots of a negative label. asked: key of the context that was answered.
    asked_at_s: when that context came, so that an answer that took longer does not replace a newer one's.
    rle: brush RLE as bytes, of an image of width x height.
    """

    __tablename__ = "clicked_objects"

    project_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    task_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    region_id: Mapped[str] = mapped_column(String(120), primary_key=True)
    label: Mapped[str] = mapped_column(String(500))
    to_name: Mapped[str] = mapped_column(String(500))
    clicks: Mapped[list[list[Any]]] = mapped_column(JSON)
    box: Mapped[list[Any] | None] = mapped_column(JSON(none_as_null=True))
    borrowed: Mapped[list[str]] = mapped_column(JSON)
    lone: Mapped[bool]
    accepted: Mapped[bool]
    asked: Mapped[str] = mapped_column(String(16))
    asked_at_s: Mapped[float] = mapped_column(Float, index=True)
    width: Mapped[int]
    height: Mapped[int]
    rle: Mapped[bytes] = mapped_column(LargeBinary, deferred=True)
    score: Mapped[float]
    reference_versions: Mapped[list[str]] = mapped_column(JSON)


class ClickEvent(Base):
    """A click that was answered: what training and "clicks per accepted mask" are made from.

    clicks, box: as in `clicked_objects`; the last click is not always the newest, since dots can be dragged.
    milliseconds: from the request's arrival to its answer. accepted_at: when the mask was first seen in an annotation.
    """

    __tablename__ = "click_events"

    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = mapped_column(BigInteger, index=True)
    task_id: Mapped[int] = mapped_column(BigInteger)
    label: Mapped[str] = mapped_column(String(500))
    region_id: Mapped[str] = mapped_column(String(120), index=True)
    clicks: Mapped[list[list[Any]]] = mapped_column(JSON)
    box: Mapped[list[Any] | None] = mapped_column(JSON(none_as_null=True))
    model_version: Mapped[str] = mapped_column(String(200))
    reference_versions: Mapped[list[str]] = mapped_column(JSON)
    milliseconds: Mapped[float]
    answered_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), default=_now)
    accepted_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
