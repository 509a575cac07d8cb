"""What prelabelling a task asks of a worker, and what the worker found: small JSON, no pixels, no tokens."""

from __future__ import annotations

from base64 import b64decode, b64encode
from dataclasses import asdict, dataclass, field
from typing import Any

from refcut_backend.errors import RefCutError
from refcut_backend.label_studio.prompts import PercentBox, PercentClick

PRELABEL_FORMAT = 2


@dataclass(frozen=True)
class LabelToFind:
    """A label on one of a task's images. reference_ids: rows of the reference table that say what it means."""

    label: str
    to_name: str
    image_address: str
    reference_ids: tuple[int, ...]


@dataclass(frozen=True)
class PrelabelJob:
    """A task to look at."""

    project_id: int
    task_id: int
    labels: tuple[LabelToFind, ...]
    format: int = PRELABEL_FORMAT

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> PrelabelJob:
        """Raises ValueError for a job of another version."""
        if data.get("format") != PRELABEL_FORMAT:
            raise ValueError(
                f"prelabel job of format {data.get('format')}, this worker reads {PRELABEL_FORMAT}"
            )
        labels = tuple(
            LabelToFind(**{**label, "reference_ids": tuple(label["reference_ids"])})
            for label in data["labels"]
        )
        return cls(**{**data, "labels": labels})


@dataclass(frozen=True)
class FoundMask:
    """An object of a label, as Label Studio's brush RLE. score: the IoU to expect of it, 0..1."""

    rle: list[int]
    score: float


@dataclass(frozen=True)
class FoundLabel:
    """What was found of a label, the surest first; nothing is an answer too. width, height: of the image."""

    label: str
    to_name: str
    width: int
    height: int
    masks: tuple[FoundMask, ...]
    reference_versions: tuple[str, ...]


@dataclass(frozen=True)
class PrelabelAnswer:
    """What a worker got done. Labels of the job that are not in `found` were left because a click came or the time was
    up: ask for them again. error_code: why nothing more will come.
    """

    found: tuple[FoundLabel, ...] = ()
    model_version: str = ""
    error_code: str | None = None
    error_message: str = ""
    milliseconds: dict[str, float] = field(default_factory=dict)

    @classmethod
    def refused(cls, error: RefCutError) -> PrelabelAnswer:
        """Nothing, and why."""
        return cls(error_code=error.code, error_message=str(error))

    def to_json(self) -> dict[str, Any]:
        """The RLE as base64: as a list it would be walked number by number several times on its way."""
        said = asdict(self)
        for label in said["found"]:
            for mask in label["masks"]:
                mask["rle"] = b64encode(bytes(mask["rle"])).decode()
        return said

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> PrelabelAnswer:
        found = tuple(
            FoundLabel(
                **{
                    **label,
                    "masks": tuple(
                        FoundMask(list(b64decode(mask["rle"])), mask["score"]) for mask in label["masks"]
                    ),
                    "reference_versions": tuple(label["reference_versions"]),
                }
            )
            for label in data["found"]
        )
        return cls(**{**data, "found": found})


CLICK_FORMAT = 2


@dataclass(frozen=True)
class ClickJob:
    """A click on its way to a worker.

    reference_ids: rows of the reference table whose masks say what the label means.
    click_ids: ids of the object's dots in Label Studio. Of two clicks on a task that share one, the newer wins.
    box: the rectangle that the object began with.
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
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> ClickJob:
        """Raises ValueError for a job of another version."""
        if data.get("format") != CLICK_FORMAT:
            raise ValueError(f"click job of format {data.get('format')}, this worker reads {CLICK_FORMAT}")
        clicks = tuple(PercentClick(**click) for click in data["clicks"])
        box = None if data["box"] is None else PercentBox(**data["box"])
        lists = {"reference_ids": tuple(data["reference_ids"]), "click_ids": tuple(data["click_ids"])}
        return cls(**{**data, "clicks": clicks, "box": box, **lists})


@dataclass(frozen=True)
class ClickAnswer:
    """A mask on its way back, as Label Studio's brush RLE; or the reason why there is none.

    model_version: of the weights that it was computed with.
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
        """No mask, and why."""
        return cls(error_code=error.code, error_message=str(error))

    def to_json(self) -> dict[str, Any]:
        """The RLE as base64: as a list it would be walked number by number several times on its way."""
        return {**vars(self), "rle": b64encode(bytes(self.rle)).decode()}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> ClickAnswer:
        rle, versions = list(b64decode(data["rle"])), tuple(data["reference_versions"])
        return cls(**{**data, "rle": rle, "reference_versions": versions})


PRELOAD_FORMAT = 1


@dataclass(frozen=True)
class PreloadJob:
    """reference_ids: rows of the reference table, most likely ones first."""

    project_id: int
    task_id: int
    image_addresses: tuple[str, ...]
    reference_ids: tuple[int, ...] = ()
    format: int = PRELOAD_FORMAT

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> PreloadJob:
        """Raises ValueError for a job of another version."""
        if data.get("format") != PRELOAD_FORMAT:
            raise ValueError(f"warm job of format {data.get('format')}, this worker reads {PRELOAD_FORMAT}")
        lists = {name: tuple(data[name]) for name in ("image_addresses", "reference_ids")}
        return cls(**{**data, **lists})
