"""Jobs and answers between web processes and workers, as JSON in Redis: no pixels, no tokens, no signed URLs.

Every job has a `format` number, which is raised when its fields change: a worker of another version then refuses the job
instead of misreading it. Masks travel as base64 of Label Studio's brush RLE, because rq would walk a list number by
number several times.

`read_message` reads everything: it ignores fields that it does not know, because a later version may send more during an
update, and reports a field of a wrong type as MessageError.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar

from pydantic import Field, PlainValidator, TypeAdapter, ValidationError

from refcut_backend.errors import MessageError, RefCutError, all_reasons
from refcut_backend.label_studio.prompts import PercentBox, PercentClick

MAX_SIDE_PX = 2**31 - 1
MAX_TEXT = 2000
MAX_MAP_TEXT = 200_000
PHASES = frozenset({"image", "references", "network", "encoding"})
"""Steps of a click in the worker; each is a series of a metric, so no others are taken from an answer."""

_HINT = "run web servers and workers of one version, and find out who else writes to this Redis"

M = TypeVar("M")


def read_message(kind: Callable[..., M], payload: object, name: str) -> M:
    """Read a dataclass from JSON that came out of Redis.

    Args:
        kind: The dataclass itself.
        payload: JSON values. Unknown fields are ignored.
        name: What it is, for the error.

    Raises:
        MessageError: If it is no object, a field is missing, or a field has a wrong type. The message names the field and
            never its value.
    """
    try:
        message: M = _adapter(kind).validate_python(payload)
        return message
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    where = ".".join(str(part) for part in first["loc"])[:100] or "all of it"
    raise MessageError(
        f"{name} in Redis cannot be read ({where}: {first['type']})",
        hint=_HINT,
    )


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _unpack(text: object) -> list[int]:
    if not isinstance(text, str):
        raise ValueError("a mask is base64")
    return list(b64decode(text, validate=True))


def pack_rle(rle: list[int]) -> str:
    """Encode a mask for JSON."""
    return b64encode(bytes(rle)).decode()


Packed = Annotated[list[int], PlainValidator(_unpack)]
"""Bytes of a mask; base64 in JSON."""
Pixels = Annotated[int, Field(ge=0, le=MAX_SIDE_PX)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Text = Annotated[str, Field(max_length=MAX_TEXT)]
Pieces = Literal["auto", "all", "clicked"]


@dataclass(frozen=True)
class JobMessage:
    """A job on its way to a worker.

    Attributes:
        NAME: What it is, for errors.
        FORMAT: Version of its fields; every job has it in its field `format`.
    """

    NAME: ClassVar[str]
    FORMAT: ClassVar[int]

    def to_json(self) -> dict[str, Any]:
        """Convert to JSON."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: object) -> Self:
        """Read what `to_json` made.

        Raises:
            MessageError: If the job has another format or cannot be read.
        """
        found = data.get("format") if isinstance(data, dict) else None
        if found != cls.FORMAT:
            shown = found if isinstance(found, int) else "unknown"
            raise MessageError(
                f"{cls.NAME} in Redis has format {shown}, this worker reads {cls.FORMAT}",
                hint="run web servers and workers of one version",
            )
        return read_message(cls, data, cls.NAME)


@dataclass(frozen=True)
class ClickJob(JobMessage):
    """A click on its way to a worker.

    Attributes:
        project_id: Label Studio's project.
        task_id: Label Studio's task.
        image_address: URL of the image, or the number of a hidden one (`images.hidden_urls`).
        label: The object's label.
        clicks: Clicks in the order in which they apply, in percent of the image's size.
        reference_ids: Rows of the reference table whose masks say what the label means.
        click_ids: Ids of the object's dots in Label Studio. Of two clicks on a task that share one, the newer wins.
        box: The rectangle that the object began with, in percent of the image's size; None without one.
        extent: How many steps larger than the network's choice the mask shall be; negative for smaller.
        pieces: "all" keeps every piece of the mask, "clicked" drops specks that nobody clicked on, "auto" does so where
            all references are one piece each.
        wants_map: Whether the answer shall have the probability map, too.
        format: Version of these fields.
    """

    NAME: ClassVar[str] = "a click"
    FORMAT: ClassVar[int] = 2

    project_id: int
    task_id: int
    image_address: str
    label: str
    clicks: tuple[PercentClick, ...]
    reference_ids: tuple[int, ...] = ()
    click_ids: tuple[str, ...] = ()
    box: PercentBox | None = None
    extent: int = 0
    pieces: Pieces = "auto"
    wants_map: bool = False
    format: int = FORMAT


def is_first_click(click: object) -> bool:
    """Whether a `ClickJob` as JSON is the first click or box of its object. Later ones take a fraction of its time."""
    if not isinstance(click, dict):
        return True
    clicks = click.get("clicks")
    return (len(clicks) if isinstance(clicks, list | tuple) else 0) + (click.get("box") is not None) <= 1


@dataclass(frozen=True)
class LeftOutReference:
    """A reference that could not be used.

    Attributes:
        id: Its row of the reference table.
        version: Its version.
        task_id: The task whose image it is on.
        reason: Reason code.
        problem: Why, for people.
    """

    id: int
    version: Text
    task_id: int
    reason: Text
    problem: Text

    def __str__(self) -> str:
        """Names it and says why, in one line."""
        return f"{self.version} (task {self.task_id}): {self.problem}"


@dataclass(frozen=True)
class ClickAnswer:
    """The mask of a click, or the reason why there is none.

    Attributes:
        width: Of the image in pixels.
        height: Of the image in pixels.
        rle: The mask as Label Studio's brush RLE, in the image frame; empty for an empty mask.
        score: IoU that the mask can be expected to have, 0..1 (mean probability inside it for a network that does not
            predict it).
        reference_versions: Versions of the references that were used.
        model_version: Weights that computed the mask.
        error_code: Reason code if there is no answer.
        error_message: The reason, for people.
        milliseconds: Time per step in the worker.
        references_left_out: References of the job that could not be used.
        extent: Steps from the network's choice to this mask; fewer than the job asks for where no larger or smaller mask
            is left.
        map_png: Probabilities as a small grey PNG in base64, if the job wants them; "" otherwise.
    """

    width: Pixels = 0
    height: Pixels = 0
    rle: Packed = field(default_factory=list)
    score: Finite = 0.0
    reference_versions: tuple[Text, ...] = ()
    model_version: Text = ""
    error_code: str | None = None
    error_message: Text | None = None
    milliseconds: dict[str, Finite] = field(default_factory=dict)
    references_left_out: tuple[LeftOutReference, ...] = ()
    extent: int = 0
    map_png: Annotated[str, Field(max_length=MAX_MAP_TEXT)] = ""

    @classmethod
    def refused(cls, error: RefCutError) -> ClickAnswer:
        """Make an answer without a mask, with the reason."""
        return cls(error_code=error.code, error_message=str(error))

    def to_json(self) -> dict[str, Any]:
        """Convert to JSON."""
        payload = {**vars(self), "rle": pack_rle(self.rle)}
        if not self.map_png:
            del payload["map_png"]
        return _with_left_out(payload, self.references_left_out)

    @classmethod
    def from_json(cls, data: object) -> ClickAnswer:
        """Read what `to_json` made. A reason code of a later version becomes `error`.

        Raises:
            MessageError: If the answer cannot be read.
        """
        answer = read_message(cls, data, "the answer to a click")
        if answer.error_code is None and not (answer.width and answer.height):
            raise MessageError("the answer to a click in Redis has neither a size nor a reason", hint=_HINT)
        known = {name: spent for name, spent in answer.milliseconds.items() if name in PHASES}
        return replace(answer, error_code=known_code(answer.error_code), milliseconds=known)


@dataclass(frozen=True)
class PreloadJob(JobMessage):
    """A task that was opened and may be clicked soon. There is no answer.

    Attributes:
        project_id: Label Studio's project.
        task_id: Label Studio's task.
        image_addresses: The task's images that can be clicked on.
        reference_ids_by_label: Rows of the reference table that a click on a label uses, the likeliest label first.
        format: Version of these fields.
    """

    NAME: ClassVar[str] = "a preload"
    FORMAT: ClassVar[int] = 1

    project_id: int
    task_id: int
    image_addresses: tuple[str, ...]
    reference_ids_by_label: tuple[tuple[int, ...], ...] = ()
    format: int = FORMAT


@dataclass(frozen=True)
class LabelToFind:
    """A label to look for on one of a task's images.

    Attributes:
        label: The label.
        to_name: Name of the image among those of the task.
        image_address: URL of the image, or the number of a hidden one (`images.hidden_urls`).
        reference_ids: Rows of the reference table that say what the label means.
    """

    label: str
    to_name: str
    image_address: str
    reference_ids: tuple[int, ...]


@dataclass(frozen=True)
class PrelabelJob(JobMessage):
    """A task to search for objects without a click.

    Attributes:
        project_id: Label Studio's project.
        task_id: Label Studio's task.
        labels: What to look for, in this order.
        format: Version of these fields.
    """

    NAME: ClassVar[str] = "a task to pre-label"
    FORMAT: ClassVar[int] = 2

    project_id: int
    task_id: int
    labels: tuple[LabelToFind, ...]
    format: int = FORMAT


@dataclass(frozen=True)
class FoundMask:
    """An object that was found.

    Attributes:
        rle: Its mask as Label Studio's brush RLE, in the image frame.
        score: Expected IoU of the mask, 0..1.
    """

    rle: Packed
    score: Finite


@dataclass(frozen=True)
class FoundLabel:
    """What was found of a label on an image; an empty result is an answer too.

    Attributes:
        label: The label.
        to_name: Name of the image among those of the task.
        width: Of the image in pixels.
        height: Of the image in pixels.
        masks: The objects, highest score first.
        reference_versions: Versions of the references that were used.
        references_left_out: References of the label that could not be used.
    """

    label: str
    to_name: str
    width: Pixels
    height: Pixels
    masks: tuple[FoundMask, ...]
    reference_versions: tuple[Text, ...]
    references_left_out: tuple[LeftOutReference, ...] = ()


@dataclass(frozen=True)
class PrelabelAnswer:
    """What a worker found on a task before it had to yield or its time slice was over.

    Attributes:
        found: One entry per label that was searched. Labels of the job that are missing here are to be asked for again.
        model_version: Weights that computed the masks.
        error_code: Reason code if nothing more will come.
        error_message: The reason, for people.
        milliseconds: Time per step in the worker.
    """

    found: tuple[FoundLabel, ...] = ()
    model_version: Text = ""
    error_code: str | None = None
    error_message: Text = ""
    milliseconds: dict[str, Finite] = field(default_factory=dict)

    @classmethod
    def refused(cls, error: RefCutError) -> PrelabelAnswer:
        """Make an answer without masks, with the reason."""
        return cls(error_code=error.code, error_message=str(error))

    def to_json(self) -> dict[str, Any]:
        """Convert to JSON."""
        payload = asdict(self)
        for label in payload["found"]:
            for mask in label["masks"]:
                mask["rle"] = pack_rle(mask["rle"])
            if not label["references_left_out"]:
                del label["references_left_out"]
        return payload

    @classmethod
    def from_json(cls, data: object) -> PrelabelAnswer:
        """Read what `to_json` made. A reason code of a later version becomes `error`.

        Raises:
            MessageError: If the answer cannot be read.
        """
        answer = read_message(cls, data, "the answer to a task to pre-label")
        if any(mask.rle and not (one.width and one.height) for one in answer.found for mask in one.masks):
            raise MessageError(
                "the answer to a task to pre-label in Redis has a mask without a size", hint=_HINT
            )
        return replace(answer, error_code=known_code(answer.error_code))


def known_code(code: str | None) -> str | None:
    """Return a reason code of this version unchanged, and `error` for any other text: it ends in headers and metrics."""
    return code if code is None or code in _codes() else RefCutError.code


def _with_left_out(payload: dict[str, Any], left_out: tuple[LeftOutReference, ...]) -> dict[str, Any]:
    """Leaves the field out if it is empty: web processes of version 0.1.0 refuse what they do not know."""
    del payload["references_left_out"]
    return payload | ({"references_left_out": [asdict(one) for one in left_out]} if left_out else {})


@cache
def _codes() -> frozenset[str]:
    return frozenset(reason.code for reason in all_reasons())
