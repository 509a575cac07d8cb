"""Tables of clicks: their dots, the objects that they are about, and what was answered.

The rules for changes in `tables.py` hold here too.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, DateTime, Float, LargeBinary, String
from sqlalchemy.orm import Mapped, mapped_column

from refcut_backend.database.tables import Base, utc_now


class ClickPolarity(Base):
    """Whether a keypoint in Label Studio is positive or negative; Label Studio forgets this when its page is reloaded.

    Attributes:
        recorded_at: None if an earlier version of this program wrote the row.
    """

    __tablename__ = "click_polarities"

    project_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    click_id: Mapped[str] = mapped_column(String(100), primary_key=True)
    positive: Mapped[bool]
    recorded_at: Mapped[datetime | None] = mapped_column("said_at", DateTime(timezone=True), default=utc_now)


class _AnsweredObject:
    """Columns of an object that was clicked, and of its mask.

    Attributes:
        clicks: [id, x, y, positive] per click, x and y in percent of the image, in the order in which they apply.
        box: [id, left, top, right, bottom] in percent of the image, or None.
        width: Width in pixels of the image that `rle` covers.
        height: Height in pixels of the image that `rle` covers.
        step_dots: Ids of the keypoints of the labels Smaller and Larger that stepped its mask. None if an earlier version
            of this program wrote the row.
    """

    project_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    task_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    region_id: Mapped[str] = mapped_column(String(120), primary_key=True)
    label: Mapped[str] = mapped_column(String(500))
    to_name: Mapped[str] = mapped_column(String(500))
    clicks: Mapped[list[list[Any]]] = mapped_column(JSON)
    box: Mapped[list[Any] | None] = mapped_column(JSON(none_as_null=True))
    width: Mapped[int]
    height: Mapped[int]
    score: Mapped[float]
    reference_versions: Mapped[list[str]] = mapped_column(JSON)
    step_dots: Mapped[list[str] | None] = mapped_column(JSON(none_as_null=True))


class ClickedObjectState(_AnsweredObject, Base):
    """An object as it was last answered, kept while further clicks may belong to it.

    Attributes:
        negative_label_clicks: Ids of those clicks that are keypoints of a negative label.
        single_prompt: Every request about the object so far had one prompt, as with "Auto accept".
        extent: Steps of the mask from the network's choice to a larger one. None if an earlier version of this program
            wrote the row.
        accepted: A region of the object was seen in an annotation or a draft.
        context_key: Key of the request context that was answered.
        requested_at_s: When that request arrived, seconds since 1970. A slow answer never replaces a newer one.
        rle: Brush RLE of the mask, as bytes.
    """

    __tablename__ = "clicked_objects"

    negative_label_clicks: Mapped[list[str]] = mapped_column("borrowed", JSON, key="negative_label_clicks")
    single_prompt: Mapped[bool] = mapped_column("lone", key="single_prompt")
    extent: Mapped[int | None]
    accepted: Mapped[bool]
    context_key: Mapped[str] = mapped_column("asked", String(16), key="context_key")
    requested_at_s: Mapped[float] = mapped_column("asked_at_s", Float, key="requested_at_s", index=True)
    rle: Mapped[bytes] = mapped_column(LargeBinary, deferred=True)


class UnacceptedMask(_AnsweredObject, Base):
    """A mask that was answered and not accepted, kept because its annotation may have been submitted without it.

    Attributes:
        requested_at_s: When the answered request arrived, seconds since 1970.
        rle: Brush RLE of the mask, as bytes.
        annotation_id: Annotation that has the object's dots and not its mask; None if none is known.
    """

    __tablename__ = "unaccepted_masks"

    requested_at_s: Mapped[float] = mapped_column(Float, index=True)
    rle: Mapped[bytes] = mapped_column(LargeBinary)
    annotation_id: Mapped[int | None] = mapped_column(BigInteger)


class ClickEvent(Base):
    """An answered click: source of the training data and of "clicks per accepted mask".

    Attributes:
        clicks: As in `_AnsweredObject`. The last click is not always the newest, because keypoints can be dragged.
        box: As in `_AnsweredObject`.
        milliseconds: From the arrival of the request to its answer.
        accepted_at: When the mask was first seen in an annotation.
    """

    __tablename__ = "click_events"

    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = mapped_column(BigInteger)
    task_id: Mapped[int] = mapped_column(BigInteger)
    label: Mapped[str] = mapped_column(String(500))
    region_id: Mapped[str] = mapped_column(String(120))
    clicks: Mapped[list[list[Any]]] = mapped_column(JSON)
    box: Mapped[list[Any] | None] = mapped_column(JSON(none_as_null=True))
    model_version: Mapped[str] = mapped_column(String(200))
    reference_versions: Mapped[list[str]] = mapped_column(JSON)
    milliseconds: Mapped[float]
    answered_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), default=utc_now)
    accepted_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
