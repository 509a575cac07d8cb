"""What opening a task asks of a worker: to have its images and its labels' references ready. Ids and addresses only."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

FORMAT = 1


@dataclass(frozen=True)
class WarmJob:
    """reference_ids: rows of the reference table, most likely ones first."""

    project_id: int
    task_id: int
    image_addresses: tuple[str, ...]
    reference_ids: tuple[int, ...] = ()
    format: int = FORMAT

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> WarmJob:
        """Raises ValueError for a job of another version."""
        if data.get("format") != FORMAT:
            raise ValueError(f"warm job of format {data.get('format')}, this worker reads {FORMAT}")
        lists = {name: tuple(data[name]) for name in ("image_addresses", "reference_ids")}
        return cls(**{**data, **lists})
