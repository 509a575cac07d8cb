"""The tables of the one SQL database. `store/schema.py` makes a database match them.

Tables and columns may be added here, nothing else: a new column is nullable or has a server default, and nothing is
renamed, retyped or dropped. So a database that an earlier version made is brought up to date at the start, and an earlier
version still runs on it afterwards.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

from sqlalchemy import JSON, BigInteger, DateTime, Float, LargeBinary, String, Text, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


def _now() -> datetime:
    return datetime.now(UTC)


LabelStudioId = Annotated[int, mapped_column(BigInteger, autoincrement=False)]


class Base(DeclarativeBase):
    """Base of all tables."""


class Project(Base):
    """A Label Studio project that has called /setup: where it is and with which token its images are read.

    born: when Label Studio made it, to tell it from another of the same number.
    label_config_at: the project's `updated_at` in the last webhook about it.
    extra_params_digest: of the extra parameters as last seen.
    reconciled_until: `updated_at` of the newest task at the last comparison with Label Studio.
    """

    __tablename__ = "projects"

    id: Mapped[LabelStudioId] = mapped_column(primary_key=True)
    label_studio: Mapped[str] = mapped_column(String(2000))
    access_token: Mapped[str] = mapped_column(String(4000))
    label_config: Mapped[str]
    seen_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), default=_now, onupdate=_now)
    born: Mapped[str | None] = mapped_column(String(40))
    label_config_at: Mapped[str | None] = mapped_column(String(40))
    extra_params_digest: Mapped[str | None] = mapped_column(String(64))
    reconciled_until: Mapped[str | None] = mapped_column(String(40))


class Reference(Base):
    """What one annotation says about one label. Masks are 1-bit PNG files in the image's frame.

    named: no region is marked, so it is only there because of an owner's rule. author_*: who saved the annotation last.
    """

    __tablename__ = "references"
    __table_args__ = (UniqueConstraint("project_id", "annotation_id", "label", "to_name"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[LabelStudioId] = mapped_column(index=True)
    annotation_id: Mapped[LabelStudioId]
    task_id: Mapped[LabelStudioId]
    label: Mapped[str] = mapped_column(String(500))
    to_name: Mapped[str] = mapped_column(String(500))
    image_address: Mapped[str]
    positive_png: Mapped[bytes] = mapped_column(LargeBinary, deferred=True)
    negative_png: Mapped[bytes | None] = mapped_column(LargeBinary, deferred=True)
    version: Mapped[str] = mapped_column(String(12))
    annotated_at: Mapped[str] = mapped_column(String(40))
    seen_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), default=_now, onupdate=_now)
    named: Mapped[bool | None]
    author_id: Mapped[LabelStudioId | None]
    author_email: Mapped[str | None] = mapped_column(String(320))


class OwnerRule(Base):
    """What a project's owner has said about references; task and annotation 0 = any.

    source: "command" (`refcut references`) or "extra_params" (in Label Studio, all replaced together).
    """

    __tablename__ = "owner_rules"
    __table_args__ = (
        UniqueConstraint("project_id", "source", "action", "label", "task_id", "annotation_id"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[LabelStudioId] = mapped_column(index=True)
    source: Mapped[str] = mapped_column(String(20))
    action: Mapped[str] = mapped_column(String(20))
    label: Mapped[str] = mapped_column(String(500))
    task_id: Mapped[LabelStudioId]
    annotation_id: Mapped[LabelStudioId]
    said_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), default=_now)


class WebhookEvent(Base):
    """A webhook that was applied, so that it is not applied again.

    subject_id: the annotation, task or project it speaks of. said_at: that one's `updated_at`, "" after a deletion; of
    START_TRAINING the run that it led to.
    """

    __tablename__ = "webhook_events"
    __table_args__ = (UniqueConstraint("project_id", "action", "subject_id", "said_at"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[LabelStudioId]
    action: Mapped[str] = mapped_column(String(40))
    subject_id: Mapped[LabelStudioId]
    said_at: Mapped[str] = mapped_column(String(40))
    problem: Mapped[str | None] = mapped_column(Text)
    received_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), default=_now, index=True)


class AnnotationState(Base):
    """How far an annotation has been followed, also when it gives no reference; stays when it is deleted.

    updated_at: of its newest state that is known. Our own times are seconds since 1970: told_at, when a webhook brought
    its state; deleted_at, when one said that it is deleted: late events about it change nothing.
    mask_regions: how many regions it has that can be masks; 0 when it is skipped or gone, None when an earlier version of
    this program followed it. trained_until: `updated_at` of the state that the last training has taken.
    """

    __tablename__ = "annotation_states"

    project_id: Mapped[LabelStudioId] = mapped_column(primary_key=True)
    annotation_id: Mapped[LabelStudioId] = mapped_column(primary_key=True)
    task_id: Mapped[LabelStudioId | None]
    updated_at: Mapped[str] = mapped_column(String(40), default="")
    told_at: Mapped[float | None] = mapped_column(Float)
    deleted_at: Mapped[float | None] = mapped_column(Float)
    locked_at: Mapped[float] = mapped_column(Float)
    mask_regions: Mapped[int | None]
    trained_until: Mapped[str | None] = mapped_column(String(40))


class TaskState(Base):
    """How far a task has been followed; stays when the task is deleted.

    told_at, deleted_at: when webhooks said something of it, and that it is deleted (seconds since 1970).
    compared: what Label Studio's list said of the task when its annotations were last read, or will say now that a
    webhook has told all of them; None = they must be read.
    doubted: a webhook took references away, and Label Studio's list has not confirmed that yet.
    """

    __tablename__ = "task_states"

    project_id: Mapped[LabelStudioId] = mapped_column(primary_key=True)
    task_id: Mapped[LabelStudioId] = mapped_column(primary_key=True)
    told_at: Mapped[float | None] = mapped_column(Float)
    deleted_at: Mapped[float | None] = mapped_column(Float)
    compared: Mapped[str | None] = mapped_column(String(100))
    doubted: Mapped[bool | None]
    locked_at: Mapped[float] = mapped_column(Float)


class Lease(Base):
    """Which process does what only one may do. expires_at: seconds since 1970."""

    __tablename__ = "leases"

    name: Mapped[str] = mapped_column(String(100), primary_key=True)
    holder: Mapped[str] = mapped_column(String(100))
    expires_at: Mapped[float] = mapped_column(Float)


class HiddenAddress(Base):
    """An image address that holds a secret; jobs name it by its number. digest: SHA-256 of the address."""

    __tablename__ = "hidden_addresses"

    id: Mapped[int] = mapped_column(primary_key=True)
    digest: Mapped[str] = mapped_column(String(64), unique=True)
    address: Mapped[str]
    seen_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), default=_now, index=True)


class ClickPolarity(Base):
    """Whether a dot in Label Studio adds or takes away: Label Studio forgets it when its page is loaded again.

    said_at: None where an earlier version of this program has noted it.
    """

    __tablename__ = "click_polarities"

    project_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    click_id: Mapped[str] = mapped_column(String(100), primary_key=True)
    positive: Mapped[bool]
    said_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True), default=_now)


class ClickedObjectState(Base):
    """An object as it was last answered, for as long as further clicks may be about it. Times: seconds since 1970.

    clicks: [id, x, y, positive] in percent, in the order in which they apply. box: [id, left, top, right, bottom].
    negative_label_clicks: ids of clicks that are dots of a negative label. context_key: of the context that was answered.
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
    negative_label_clicks: Mapped[list[str]] = mapped_column("borrowed", JSON, key="negative_label_clicks")
    single_prompt: Mapped[bool] = mapped_column("lone", key="single_prompt")
    accepted: Mapped[bool]
    context_key: Mapped[str] = mapped_column("asked", String(16), key="context_key")
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


class TrainingRun(Base):
    """A training of a project, from the wish to its outcome. Times are seconds since 1970.

    active_project: the project while the run is under way, None afterwards: unique, so there is one at a time.
    asked_by: "annotations", "schedule", "button" or "command". stage: of `core/training_stage.py`.
    attempt: how often a worker has taken it, so that one that was given up changes nothing any more. losses: how many
    workers died over it. worker: who has it; None while it waits. seen_at: when that one was last heard of.
    """

    __tablename__ = "training_runs"

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    project_id: Mapped[LabelStudioId] = mapped_column(index=True)
    active_project: Mapped[int | None] = mapped_column(BigInteger, unique=True)
    asked_by: Mapped[str] = mapped_column(String(20))
    asked_at: Mapped[float] = mapped_column(Float)
    attempt: Mapped[int] = mapped_column(default=0)
    losses: Mapped[int] = mapped_column(default=0)
    worker: Mapped[str | None] = mapped_column(String(200))
    seen_at: Mapped[float | None] = mapped_column(Float)
    begun_at: Mapped[float | None] = mapped_column(Float)
    ended_at: Mapped[float | None] = mapped_column(Float)
    stage: Mapped[str] = mapped_column(String(20))
    step: Mapped[int] = mapped_column(default=0)
    steps: Mapped[int] = mapped_column(default=0)
    eta_s: Mapped[float | None] = mapped_column(Float)
    metrics: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    left_out: Mapped[list[str]] = mapped_column(JSON, default=list)
    outcome: Mapped[str | None] = mapped_column(String(20))
    message: Mapped[str | None] = mapped_column(Text)
    version: Mapped[str | None] = mapped_column(String(200))


class ImageSide(Base):
    """What an image of a project may be used for, decided once. content: SHA-256 of its pixels. side: of
    `core/holdout.py`."""

    __tablename__ = "image_sides"

    project_id: Mapped[LabelStudioId] = mapped_column(primary_key=True)
    content: Mapped[str] = mapped_column(String(64), primary_key=True)
    side: Mapped[str] = mapped_column(String(10))
    decided_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), default=_now)
