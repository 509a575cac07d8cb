"""Results of an evaluation on disk: one JSON line per sample and mode, so that an interrupted run can resume."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
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
        pieces: Number of connected pieces of the target; None in results of an older version.
        start_iou: IoU of the mask before the first click; None if the session began without a mask.
        expected_ious: IoU that the network expected its mask to have, after each click; empty if it expects none.
        candidate_ious: IoU of each mask that the network proposed for the first click; empty if it proposes none.
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
    pieces: int | None = None
    start_iou: float | None = None
    expected_ious: list[float] = field(default_factory=list)
    candidate_ious: list[float] = field(default_factory=list)

    @property
    def key(self) -> tuple[str, str, str]:
        """Set, sample and mode: the identity of a result."""
        return self.set_name, self.sample, self.mode

    @property
    def photograph(self) -> tuple[str, str]:
        """Set and image: masks of one photograph are not independent of each other."""
        return self.set_name, self.image


SETTINGS_FILE = "settings.json"
RECORDS_FILE = "records.jsonl"


def read_records(folder: Path) -> list[Record]:
    """Read all results of a folder in the order in which they were written.

    An incomplete last line of a killed run is left out.

    Raises:
        DataError: If the folder has no results, or they cannot be read.
    """
    path = folder / RECORDS_FILE
    try:
        lines = path.read_text().splitlines(keepends=True)
        return [Record(**json.loads(line)) for line in lines if line.endswith("\n")]
    except (OSError, TypeError, ValueError) as error:
        raise DataError(
            f"{path} cannot be read ({error})",
            hint="name a folder that `python -m model evaluate` has written",
        ) from error


def read_settings(folder: Path) -> dict[str, Any]:
    """Read the settings of the run that wrote a folder.

    Raises:
        DataError: If they cannot be read.
    """
    path = folder / SETTINGS_FILE
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, TypeError, ValueError) as error:
        raise DataError(
            f"{path} cannot be read ({error})",
            hint="name a folder that `python -m model evaluate` has written",
        ) from error


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
        self._folder = folder
        self.path = folder / RECORDS_FILE
        settings_path = folder / SETTINGS_FILE
        wanted = json.loads(json.dumps(settings))
        if settings_path.is_file() and json.loads(settings_path.read_text()) != wanted:
            raise DataError(
                f"{folder} holds results of other settings", hint="give another --out, or delete that folder"
            )
        settings_path.write_text(json.dumps(wanted, indent=2, sort_keys=True) + "\n")
        self._drop_incomplete_line()

    def read(self) -> list[Record]:
        """Return all results in the order in which they were written."""
        return read_records(self._folder) if self.path.is_file() else []

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
