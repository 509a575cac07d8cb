"""Results of an evaluation on disk: one JSON line per sample and mode, so that an interrupted run can resume."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model.errors import DataError


@dataclass(frozen=True)
class Record:
    """The result of one sample in one mode.

    Attributes:
        set_name: Name of the evaluation set.
        sample: Name of the sample in its set (`Sample.key`).
        kind: Kind of the target (`model.evaluation.samples.KINDS`).
        mode: Name of the mode.
        image: Folder and file of the image.
        references: Folder and file of each reference image.
        referenced: Whether the mode had the references it needs. For a mode without references: whether the mode "right"
            would have had them. Metrics compare modes on such samples only and count the others apart.
        clicks: [row, column, 1 or 0 (negative)] of each click, in pixels of the image.
        ious: IoU after each click.
        seconds: Seconds that the predictor took for each click.
        removed: See `Session.removed`.
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
        """Set, sample and mode: the identity of a result."""
        return self.set_name, self.sample, self.mode


class RecordFile:
    """`records.jsonl` in a folder. The folder is bound to the settings of the run that created it."""

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        """Open or create the folder.

        Args:
            folder: Folder of the results.
            settings: JSON values that make results comparable; kept in `settings.json`.

        Raises:
            DataError: If the folder holds results of other settings.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "records.jsonl"
        settings_path = folder / "settings.json"
        wanted = json.loads(json.dumps(settings))
        if settings_path.is_file() and json.loads(settings_path.read_text()) != wanted:
            raise DataError(
                f"{folder} holds results of other settings", hint="give another --out, or delete that folder"
            )
        settings_path.write_text(json.dumps(wanted, indent=2, sort_keys=True) + "\n")
        self._drop_incomplete_line()

    def read(self) -> list[Record]:
        """Return all results in the order in which they were written."""
        if not self.path.is_file():
            return []
        return [Record(**json.loads(line)) for line in self.path.read_text().splitlines()]

    def append(self, records: list[Record]) -> None:
        """Write results to the end of the file."""
        with self.path.open("a") as file:
            file.writelines(json.dumps(dataclasses.asdict(record)) + "\n" for record in records)

    def _drop_incomplete_line(self) -> None:
        """Remove the incomplete last line that a killed run leaves; its sample is run again."""
        if not self.path.is_file():
            return
        content = self.path.read_bytes()
        if content and not content.endswith(b"\n"):
            self.path.write_bytes(content[: content.rfind(b"\n") + 1])
