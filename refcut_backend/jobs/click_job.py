"""What a click asks of a worker and what the worker answers: small JSON, no pixels, no tokens."""

from __future__ import annotations

from base64 import b64decode, b64encode
from dataclasses import asdict, dataclass, field
from typing import Any

from refcut_backend.errors import RefCutError
from refcut_backend.label_studio.prompts import PercentBox, PercentClick

FORMAT = 2


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
    format: int = FORMAT

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> ClickJob:
        """Raises ValueError for a job of another version."""
        if data.get("format") != FORMAT:
            raise ValueError(f"click job of format {data.get('format')}, this worker reads {FORMAT}")
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
