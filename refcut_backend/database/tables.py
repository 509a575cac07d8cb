"""Tables of the SQL database. `upgrade.py` creates them and adds what an older database lacks.

The tables of clicks are in `click_tables.py`, indexes of several columns in `indexes.py`.

Rules for changes, so that a database of an earlier version is upgraded at startup and an earlier version still runs on
the upgraded database:

- Tables, columns and indexes may be added. A new column is nullable or has a server default.
- No table or column is renamed, retyped or dropped. An attribute may get a better name than its column:
  `created_at = mapped_column("born")`. Statements and ORM rows use the attribute. A table that is written over
  a plain connection gives its columns the attribute's name as `key` too; rows that are read over one need a label.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

from sqlalchemy import JSON, BigInteger, DateTime, Float, LargeBinary, String, Text, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


def utc_now() -> datetime:
    """Returns the present, for columns that are set when a row is written."""
    return datetime.now(UTC)


LabelStudioId = Annotated[int, mapped_column(BigInteger, autoincrement=False)]


class Base(DeclarativeBase):
    """Base of all tables."""


class Project(Base):
    """A Label Studio project that has called /setup: its address, and the token that reads its images.

    Attributes:
        id: The project id, under which everything about it is stored (`project_ids.py`). May differ from Label Studio's
            number.
        label_studio: Address of Label Studio as it reported it, base path included. May be empty.
        created_at: When Label Studio created the project: seconds since 1970. Distinguishes it from others of its number.
        label_config_at: The project's `updated_at` in the last webhook about it.
        extra_params_digest: SHA-256 of the last extra parameters.
        reconciled_until: `updated_at` of the newest task at the last comparison with Label Studio.
        forgotten_at: When everything about the project was deleted by command. The row keeps its id from being reused.
    """

    __tablename__ = "projects"

    id: Mapped[LabelStudioId] = mapped_column(primary_key=True)
    label_studio: Mapped[str] = mapped_column(String(2000))
    access_token: Mapped[str] = mapped_column(String(4000))
    label_config: Mapped[str]
    seen_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), default=utc_now, onupdate=utc_now)
    created_at: Mapped[str | None] = mapped_column("born", String(40))
    label_config_at: Mapped[str | None] = mapped_column(String(40))
    extra_params_digest: Mapped[str | None] = mapped_column(String(64))
    reconciled_until: Mapped[str | None] = mapped_column(String(40))
    forgotten_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))


class Reference(Base):
    """One reference: the masks that one annotation gives for one label.

    Attributes:
        positive_png: 1-bit PNG in the image's frame: pixels that belong to the label.
        negative_png: 1-bit PNG in the image's frame: pixels that do not belong to the label. None if unknown.
        annotation_id: A negative number for a reference that came from a set; its `task_id` is 0.
        version: 12 hex digits that change with the image address or a mask.
        annotated_at: `updated_at` of the annotation, in a form that sorts by time.
        explicitly_added: No region is marked as reference; the row exists only because of an owner's rule.
        author_id: Label Studio user who saved the annotation last.
        author_email: That user's e-mail address, if it is needed and known.
        problem: Why it could not be used when it was last tried, such as a lost image; None if it could.
    """

    __tablename__ = "references"
    __table_args__ = (UniqueConstraint("project_id", "annotation_id", "label", "to_name"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[LabelStudioId]
    annotation_id: Mapped[LabelStudioId]
    task_id: Mapped[LabelStudioId]
    label: Mapped[str] = mapped_column(String(500))
    to_name: Mapped[str] = mapped_column(String(500))
    image_address: Mapped[str]
    positive_png: Mapped[bytes] = mapped_column(LargeBinary, deferred=True)
    negative_png: Mapped[bytes | None] = mapped_column(LargeBinary, deferred=True)
    version: Mapped[str] = mapped_column(String(12))
    annotated_at: Mapped[str] = mapped_column(String(40))
    seen_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), default=utc_now, onupdate=utc_now)
    explicitly_added: Mapped[bool | None] = mapped_column("named")
    author_id: Mapped[LabelStudioId | None]
    author_email: Mapped[str | None] = mapped_column(String(320))
    problem: Mapped[str | None] = mapped_column(Text)


class OwnerRule(Base):
    """A rule of a project's owner about references.

    Attributes:
        source: "command" (`refcut references`) or "extra_params" (in Label Studio; all are replaced together).
        action: "add", "pin" or "disable".
        task_id: 0 stands for every task.
        annotation_id: 0 stands for every annotation.
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
    created_at: Mapped[datetime] = mapped_column("said_at", DateTime(timezone=True), default=utc_now)


class ReferencePlace(Base):
    """The place that a project's owner chose for a reference in the order of use (`references/places.py`).

    Attributes:
        task_id: 0 for a reference that came from a set.
        place: From 1 on.
    """

    __tablename__ = "reference_places"

    project_id: Mapped[LabelStudioId] = mapped_column(primary_key=True)
    label: Mapped[str] = mapped_column(String(500), primary_key=True)
    task_id: Mapped[LabelStudioId] = mapped_column(primary_key=True)
    annotation_id: Mapped[LabelStudioId] = mapped_column(primary_key=True)
    place: Mapped[int]


class LabelPieces(Base):
    """Which pieces of a label's masks stay, by the project's extra parameters: "all" or "clicked"."""

    __tablename__ = "label_pieces"

    project_id: Mapped[LabelStudioId] = mapped_column(primary_key=True)
    label: Mapped[str] = mapped_column(String(500), primary_key=True)
    pieces: Mapped[str] = mapped_column(String(20))


class WebhookEvent(Base):
    """A webhook that was applied. A repeated delivery finds its row and changes nothing.

    Attributes:
        subject_id: Id of the annotation, task or project that the webhook is about.
        subject_version: That object's `updated_at`; "" for a deletion; for START_TRAINING the id of the run it started.
        problem: Why the webhook gave no reference, if so.
    """

    __tablename__ = "webhook_events"
    __table_args__ = (UniqueConstraint("project_id", "action", "subject_id", "said_at"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[LabelStudioId]
    action: Mapped[str] = mapped_column(String(40))
    subject_id: Mapped[LabelStudioId]
    subject_version: Mapped[str] = mapped_column("said_at", String(40))
    problem: Mapped[str | None] = mapped_column(Text)
    received_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), default=utc_now, index=True)


class AnnotationState(Base):
    """Newest known state of an annotation, whether or not it gives a reference. Kept after the annotation is deleted.

    Attributes:
        updated_at: `updated_at` of the newest known state, in a form that sorts by time; "" if none is known.
        webhook_at: When a webhook last reported a state. Our clock, seconds since 1970.
        deleted_at: When a webhook reported the deletion; later events about the annotation change nothing.
            Our clock, seconds since 1970.
        locked_at: Last write to this row, which serves as the annotation's lock. Our clock, seconds since 1970.
        mask_regions: Number of regions that can be masks. 0 if the annotation is skipped or gone; None if an earlier
            version of this program wrote the row.
        second_labels: Number of its masks that also have a label of a click or box tool. None as for `mask_regions`.
        trained_until: `updated_at` of the state that the last training used.
        problem: Why the annotation, or regions of it that are marked as references, are not used; None if all are.
    """

    __tablename__ = "annotation_states"

    project_id: Mapped[LabelStudioId] = mapped_column(primary_key=True)
    annotation_id: Mapped[LabelStudioId] = mapped_column(primary_key=True)
    task_id: Mapped[LabelStudioId | None]
    updated_at: Mapped[str] = mapped_column(String(40), default="")
    webhook_at: Mapped[float | None] = mapped_column("told_at", Float)
    deleted_at: Mapped[float | None] = mapped_column(Float)
    locked_at: Mapped[float] = mapped_column(Float)
    mask_regions: Mapped[int | None]
    second_labels: Mapped[int | None]
    trained_until: Mapped[str | None] = mapped_column(String(40))
    problem: Mapped[str | None] = mapped_column(Text)


class TaskState(Base):
    """How far a task has been followed. Kept after the task is deleted. Times are seconds since 1970 by our clock.

    Attributes:
        webhook_at: When a webhook last reported a change of the task's annotations.
        deleted_at: When a webhook reported that the task was deleted.
        sync_fingerprint: `ListedTask.fingerprint` of the task when all of its annotations were last known. While Label
            Studio still lists the same fingerprint, nothing needs to be read. None: the annotations must be read.
        needs_check: A webhook removed references, and no listing has confirmed that yet.
        problem: Why the last comparison could not read the task's annotations; None if it could.
        locked_at: Last write to this row, which serves as the task's lock.
    """

    __tablename__ = "task_states"

    project_id: Mapped[LabelStudioId] = mapped_column(primary_key=True)
    task_id: Mapped[LabelStudioId] = mapped_column(primary_key=True)
    webhook_at: Mapped[float | None] = mapped_column("told_at", Float)
    deleted_at: Mapped[float | None] = mapped_column(Float)
    sync_fingerprint: Mapped[str | None] = mapped_column("compared", String(100))
    needs_check: Mapped[bool | None] = mapped_column("doubted")
    problem: Mapped[str | None] = mapped_column(Text)
    locked_at: Mapped[float] = mapped_column(Float)


class Lease(Base):
    """The process that holds a task of which there may be only one, and until when (seconds since 1970)."""

    __tablename__ = "leases"

    name: Mapped[str] = mapped_column(String(100), primary_key=True)
    holder: Mapped[str] = mapped_column(String(100))
    expires_at: Mapped[float] = mapped_column(Float)


class HiddenAddress(Base):
    """An image address that contains a secret. Jobs refer to it by `id`; `digest` is the address's SHA-256."""

    __tablename__ = "hidden_addresses"

    id: Mapped[int] = mapped_column(primary_key=True)
    digest: Mapped[str] = mapped_column(String(64), unique=True)
    address: Mapped[str]
    seen_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), default=utc_now, index=True)


class Upload(Base):
    """A photograph that somebody dropped on the playground (`images/uploads.py`)."""

    __tablename__ = "uploads"

    key: Mapped[str] = mapped_column(String(60), primary_key=True)
    data: Mapped[bytes] = mapped_column(LargeBinary)
    size_bytes: Mapped[int]
    used_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), default=utc_now, index=True)


class ReferenceImage(Base):
    """The photograph of references that came from a set (`references/sets.py`), kept as long as one of them exists.

    Attributes:
        digest: SHA-256 of `data`.
        data: A JPEG file.
    """

    __tablename__ = "reference_images"

    project_id: Mapped[LabelStudioId] = mapped_column(primary_key=True)
    digest: Mapped[str] = mapped_column(String(64), primary_key=True)
    data: Mapped[bytes] = mapped_column(LargeBinary)


class TrainingRun(Base):
    """A training of a project, from the request to its outcome. Times are seconds since 1970.

    Attributes:
        active_project: The project id while the run is active, None afterwards. Unique: one active run per project.
        requested_by: "annotations", "schedule", "button" or "command".
        attempt: How often a worker has claimed the run. A worker that was given up cannot change a later attempt.
        losses: How many workers died during the run.
        worker: Name of the worker that has the run; None while it waits.
        seen_at: Last sign of life of that worker.
        stage: `training.runs.Stage`.
        curve: Some of the figures so far, oldest first: [step, loss, IoU in training, IoU of the last check or None].
        outcome: `training.runs.Outcome`, None until the run has ended.
        left_out: Why annotations were skipped: one sentence each.
    """

    __tablename__ = "training_runs"

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    project_id: Mapped[LabelStudioId] = mapped_column(index=True)
    active_project: Mapped[int | None] = mapped_column(BigInteger, unique=True)
    requested_by: Mapped[str] = mapped_column("asked_by", String(20))
    requested_at: Mapped[float] = mapped_column("asked_at", Float)
    attempt: Mapped[int] = mapped_column(default=0)
    losses: Mapped[int] = mapped_column(default=0)
    worker: Mapped[str | None] = mapped_column(String(200))
    seen_at: Mapped[float | None] = mapped_column(Float)
    started_at: Mapped[float | None] = mapped_column("begun_at", Float)
    ended_at: Mapped[float | None] = mapped_column(Float)
    stage: Mapped[str] = mapped_column(String(20))
    step: Mapped[int] = mapped_column(default=0)
    steps: Mapped[int] = mapped_column(default=0)
    eta_s: Mapped[float | None] = mapped_column(Float)
    metrics: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    curve: Mapped[list[list[Any]] | None] = mapped_column(JSON(none_as_null=True))
    left_out: Mapped[list[str]] = mapped_column(JSON, default=list)
    outcome: Mapped[str | None] = mapped_column(String(20))
    message: Mapped[str | None] = mapped_column(Text)
    version: Mapped[str | None] = mapped_column(String(200))


class WorthRun(Base):
    """A measurement of what a project's references are worth. Times are seconds since 1970.

    Attributes:
        active_project: The project id while the run is active, None afterwards. Unique: one active run per project.
        label: The label that is measured; None for all.
        seen_at: Last sign of life of the process that leads the run.
        step: Number of annotated masks that were measured, of `steps`.
        outcome: `worth.store.Outcome`, None until the run has ended.
        problems: What could not be measured: one sentence each.
        losses: How many processes died while they led it. None as 0.
    """

    __tablename__ = "worth_runs"

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    project_id: Mapped[LabelStudioId] = mapped_column(index=True)
    active_project: Mapped[int | None] = mapped_column(BigInteger, unique=True)
    label: Mapped[str | None] = mapped_column(String(500))
    requested_at: Mapped[float] = mapped_column(Float)
    seen_at: Mapped[float] = mapped_column(Float)
    ended_at: Mapped[float | None] = mapped_column(Float)
    step: Mapped[int] = mapped_column(default=0)
    steps: Mapped[int] = mapped_column(default=0)
    outcome: Mapped[str | None] = mapped_column(String(20))
    message: Mapped[str | None] = mapped_column(Text)
    problems: Mapped[list[str]] = mapped_column(JSON, default=list)
    losses: Mapped[int | None]


class ReferenceWorth(Base):
    """What a reference was worth to a version of the model.

    Attributes:
        version: Of the reference: it changes with the photograph and with a mask.
        model_version: Weights that computed the masks.
        measured_at: Seconds since 1970.
        tasks: [task, IoU with it, IoU without, IoU with the others or None, 1 if the model was trained on the photo].
        problems: Why tasks are missing: one sentence each.
    """

    __tablename__ = "reference_worths"

    project_id: Mapped[LabelStudioId] = mapped_column(primary_key=True)
    label: Mapped[str] = mapped_column(String(500), primary_key=True)
    version: Mapped[str] = mapped_column(String(12), primary_key=True)
    model_version: Mapped[str] = mapped_column(String(200), primary_key=True)
    measured_at: Mapped[float] = mapped_column(Float)
    tasks: Mapped[list[list[Any]]] = mapped_column(JSON)
    problems: Mapped[list[str]] = mapped_column(JSON, default=list)


class ImageSplit(Base):
    """Whether an image trains or evaluates the project's model; decided once.

    Attributes:
        content: SHA-256 of the image's pixels.
        split: `training.holdout.Split`.
    """

    __tablename__ = "image_sides"

    project_id: Mapped[LabelStudioId] = mapped_column(primary_key=True)
    content: Mapped[str] = mapped_column(String(64), primary_key=True)
    split: Mapped[str] = mapped_column("side", String(10))
    decided_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), default=utc_now)
