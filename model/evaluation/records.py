"""Results on disk, one JSON line for each sample and mode, so that a run that was cut off goes on where it was."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model.errors import DataError


@dataclass(frozen=True)
class Record:
    """One sample run in one mode.

    set_name, sample: which (`Sample.key`). references: image names of the references used.
    referenced: whether the mode had what it needs of references; for modes without any, whether the right mode would
        have had it. Summaries compare modes on such samples only and count the others apart.
    clicks: [row, column, positive] in pixels of the image. removed, seconds, ious: see `Session`.
    first_mask: COCO RLE of the mask after the first click.
    """

    set_name: str
    sample: str
    kind: str
    mode: str
    image: str
    references: list[str]
    referenced: bool
    clicks: list[list[float]]
    ious: list[float]
    seconds: list[float]
    removed: list[float]
    first_mask: dict[str, Any]

    @property
    def key(self) -> tuple[str, str, str]:
        return self.set_name, self.sample, self.mode


class RecordFile:
    """`records.jsonl` in a folder, bound to the settings of the run that began it."""

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        """Raises DataError when the folder holds results of other settings."""
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "records.jsonl"
        written = folder / "settings.json"
        wanted = json.loads(json.dumps(settings))
        if written.is_file() and json.loads(written.read_text()) != wanted:
            raise DataError(
                f"{folder} holds results of other settings", hint="give another --out, or delete that folder"
            )
        written.write_text(json.dumps(wanted, indent=2, sort_keys=True) + "\n")
        self._cut_off_torn_line()

    def read(self) -> list[Record]:
        if not self.path.is_file():
            return []
        return [Record(**json.loads(line)) for line in self.path.read_text().splitlines()]

    def append(self, records: list[Record]) -> None:
        with self.path.open("a") as file:
            file.writelines(json.dumps(dataclasses.asdict(record)) + "\n" for record in records)

    def _cut_off_torn_line(self) -> None:
        """A run that was killed while writing leaves half a line; its sample is run again."""
        if not self.path.is_file():
            return
        content = self.path.read_bytes()
        if content and not content.endswith(b"\n"):
            self.path.write_bytes(content[: content.rfind(b"\n") + 1])
