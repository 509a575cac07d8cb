"""Jobs and answers between web processes and workers, as JSON in Redis: no pixels, no tokens, no signed URLs.

Every job has a `format` number, which is raised when its fields change: a worker of another version then refuses the job
instead of misreading it. Masks travel as base64 of Label Studio's brush RLE, because rq would walk a list number by
number several times.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from dataclasses import asdict, dataclass, field
from typing import Any

from refcut_backend.errors import RefCutError
from refcut_backend.label_studio.prompts import PercentBox, PercentClick

CLICK_FORMAT = 2
PRELOAD_FORMAT = 1
PRELABEL_FORMAT = 2


@dataclass(frozen=True)
class ClickJob:
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
        format: Version of these fields.
    """

    project_id: int
    task_id: int
    image_address: str
    label: str
    clicks: tuple[PercentClick, ...]
    reference_ids: tuple[int, ...] = ()
    click_ids: tuple[str, ...] = ()
    box: PercentBox | None = None
    format: int = CLICK_FORMAT

    def to_json(self) -> dict[str, Any]:
        """Convert to JSON."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> ClickJob:
        """Read what `to_json` made.

        Raises:
            ValueError: If the job has another format.
        """
        _check_format("click", data, CLICK_FORMAT)
        clicks = tuple(PercentClick(**click) for click in data["clicks"])
        box = None if data["box"] is None else PercentBox(**data["box"])
        lists = {"reference_ids": tuple(data["reference_ids"]), "click_ids": tuple(data["click_ids"])}
        return cls(**{**data, "clicks": clicks, "box": box, **lists})


@dataclass(frozen=True)
class ClickAnswer:
    """The mask of a click, or the reason why there is none.

    Attributes:
        width: Of the image in pixels.
        height: Of the image in pixels.
        rle: The mask as Label Studio's brush RLE, in the image frame; empty for an empty mask.
        score: IoU that the mask can be expected to have, 0..1 (mean probability inside it for a network that does not
            judge its masks).
        reference_versions: Versions of the references that were used.
        model_version: Weights that computed the mask.
        error_code: Reason code if there is no answer.
        error_message: The reason, for people.
        milliseconds: Time per step in the worker.
    """

    width: int = 0
    height: int = 0
    rle: list[int] = field(default_factory=list)
    score: float = 0.0
    reference_versions: tuple[str, ...] = ()
    model_version: str = ""
    error_code: str | None = None
    error_message: str | None = None
    milliseconds: dict[str, float] = field(default_factory=dict)

    @classmethod
    def refused(cls, error: RefCutError) -> ClickAnswer:
        """Make an answer without a mask, with the reason."""
        return cls(error_code=error.code, error_message=str(error))

    def to_json(self) -> dict[str, Any]:
        """Convert to JSON."""
        return {**vars(self), "rle": _pack(self.rle)}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> ClickAnswer:
        """Read what `to_json` made."""
        rle, versions = _unpack(data["rle"]), tuple(data["reference_versions"])
        return cls(**{**data, "rle": rle, "reference_versions": versions})


@dataclass(frozen=True)
class PreloadJob:
    """A task that was opened and may be clicked soon. There is no answer.

    Attributes:
        project_id: Label Studio's project.
        task_id: Label Studio's task.
        image_addresses: The task's images that can be clicked on.
        reference_ids: Rows of the reference table, most likely ones first.
        format: Version of these fields.
    """

    project_id: int
    task_id: int
    image_addresses: tuple[str, ...]
    reference_ids: tuple[int, ...] = ()
    format: int = PRELOAD_FORMAT

    def to_json(self) -> dict[str, Any]:
        """Convert to JSON."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> PreloadJob:
        """Read what `to_json` made.

        Raises:
            ValueError: If the job has another format.
        """
        _check_format("preload", data, PRELOAD_FORMAT)
        lists = {name: tuple(data[name]) for name in ("image_addresses", "reference_ids")}
        return cls(**{**data, **lists})


@dataclass(frozen=True)
class LabelToFind:
    """A label to look for on one of a task's images.

    Attributes:
        label: The label.
        to_name: Image tag of the label config.
        image_address: URL of the image, or the number of a hidden one (`images.hidden_urls`).
        reference_ids: Rows of the reference table that say what the label means.
    """

    label: str
    to_name: str
    image_address: str
    reference_ids: tuple[int, ...]


@dataclass(frozen=True)
class PrelabelJob:
    """A task to search for objects without a click.

    Attributes:
        project_id: Label Studio's project.
        task_id: Label Studio's task.
        labels: What to look for, in this order.
        format: Version of these fields.
    """

    project_id: int
    task_id: int
    labels: tuple[LabelToFind, ...]
    format: int = PRELABEL_FORMAT

    def to_json(self) -> dict[str, Any]:
        """Convert to JSON."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> PrelabelJob:
        """Read what `to_json` made.

        Raises:
            ValueError: If the job has another format.
        """
        _check_format("prelabel", data, PRELABEL_FORMAT)
        labels = tuple(
            LabelToFind(**{**label, "reference_ids": tuple(label["reference_ids"])})
            for label in data["labels"]
        )
        return cls(**{**data, "labels": labels})


@dataclass(frozen=True)
class FoundMask:
    """An object that was found.

    Attributes:
        rle: Its mask as Label Studio's brush RLE, in the image frame.
        score: Expected IoU of the mask, 0..1.
    """

    rle: list[int]
    score: float


@dataclass(frozen=True)
class FoundLabel:
    """What was found of a label on an image; an empty result is an answer too.

    Attributes:
        label: The label.
        to_name: Image tag of the label config.
        width: Of the image in pixels.
        height: Of the image in pixels.
        masks: The objects, highest score first.
        reference_versions: Versions of the references that were used.
    """

    label: str
    to_name: str
    width: int
    height: int
    masks: tuple[FoundMask, ...]
    reference_versions: tuple[str, ...]


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
    model_version: str = ""
    error_code: str | None = None
    error_message: str = ""
    milliseconds: dict[str, float] = field(default_factory=dict)

    @classmethod
    def refused(cls, error: RefCutError) -> PrelabelAnswer:
        """Make an answer without masks, with the reason."""
        return cls(error_code=error.code, error_message=str(error))

    def to_json(self) -> dict[str, Any]:
        """Convert to JSON."""
        payload = asdict(self)
        for label in payload["found"]:
            for mask in label["masks"]:
                mask["rle"] = _pack(mask["rle"])
        return payload

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> PrelabelAnswer:
        """Read what `to_json` made."""
        return cls(**{**data, "found": tuple(_found_label(label) for label in data["found"])})


def _found_label(data: dict[str, Any]) -> FoundLabel:
    masks = tuple(FoundMask(_unpack(mask["rle"]), mask["score"]) for mask in data["masks"])
    return FoundLabel(**{**data, "masks": masks, "reference_versions": tuple(data["reference_versions"])})


def _check_format(kind: str, data: dict[str, Any], expected: int) -> None:
    if data.get("format") != expected:
        raise ValueError(f"{kind} job of format {data.get('format')}, this worker reads {expected}")


def _pack(rle: list[int]) -> str:
    return b64encode(bytes(rle)).decode()


def _unpack(text: str) -> list[int]:
    return list(b64decode(text))
