"""What an export has read so far, in a folder of its own in the output folder, so that a later run resumes it.

One file per task holds its masks. It is valid as long as the task, the label config and the choice of annotations stay
the same. A journal names the files that were written per image and from what, so that they are not written twice, and are
removed when they no longer belong to the export.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from model.files import atomic_write
from refcut_backend.errors import ConfigError
from refcut_backend.exporting.annotations import ExportedImage, ExportedObject, ExportedTask

FOLDER = ".refcut-export"
FORM = 1
"""Form of the stored tasks. A file of another form is read anew from Label Studio."""


def fingerprint(*parts: str) -> str:
    """Returns a short text that changes with each of the parts and with `FORM`."""
    return hashlib.sha256("\0".join([str(FORM), *parts]).encode()).hexdigest()[:24]


@dataclass(frozen=True)
class StoredTask:
    """A task as it was read.

    Attributes:
        fingerprint: What it was read from.
        task: What is exported of it.
    """

    fingerprint: str
    task: ExportedTask


class TaskStore:
    """The tasks of one project that were read, one file each."""

    def __init__(self, out: Path, project: str) -> None:
        """Opens the store of an output folder, which is made if it is missing.

        Args:
            out: The output folder.
            project: Identifies the project.

        Raises:
            ConfigError: The folder holds the export of another project.
            OSError: It cannot be written to.
        """
        self._folder = out / FOLDER / "tasks"
        self._folder.mkdir(parents=True, exist_ok=True)
        owner = out / FOLDER / "project"
        if not owner.exists():
            with atomic_write(owner) as temporary:
                temporary.write_text(project)
        elif owner.read_text() != project:
            raise ConfigError(
                "the output folder holds an export of another project", hint="give --out another folder"
            )

    def ids(self) -> list[int]:
        """Returns the ids of the stored tasks, in ascending order."""
        return sorted(int(path.stem) for path in self._folder.glob("*.json") if path.stem.isdigit())

    def is_current(self, task_id: int, expected: str) -> bool:
        """Whether a task is stored with this fingerprint. Reads the beginning of its file only."""
        try:
            with self._path(task_id).open() as file:
                return file.readline().strip() == expected
        except (OSError, UnicodeDecodeError):
            return False

    def save(self, task_id: int, stored: StoredTask) -> None:
        """Stores a task. A process that is killed leaves the former file or the new one."""
        with atomic_write(self._path(task_id)) as temporary, temporary.open("w") as file:
            file.write(stored.fingerprint + "\n")
            json.dump(asdict(stored.task), file, separators=(",", ":"))

    def load(self, task_id: int) -> StoredTask:
        """Returns a stored task."""
        with self._path(task_id).open() as file:
            return StoredTask(file.readline().strip(), _task(json.load(file)))

    def keep_only(self, task_ids: Collection[int]) -> None:
        """Removes tasks that no longer belong to the export."""
        self.remove(set(self.ids()) - set(task_ids))

    def remove(self, task_ids: Collection[int]) -> None:
        """Removes tasks, of which some may not be stored."""
        for task_id in task_ids:
            self._path(task_id).unlink(missing_ok=True)

    def all(self) -> Iterator[tuple[int, StoredTask]]:
        """Yields the stored tasks in the order of their ids, one at a time in memory."""
        for task_id in self.ids():
            yield task_id, self.load(task_id)

    def _path(self, task_id: int) -> Path:
        return self._folder / f"{task_id}.json"


def _task(stored: dict[str, Any]) -> ExportedTask:
    images = []
    for image in stored["images"]:
        objects = [ExportedObject(**one) for one in image.pop("objects")]
        images.append(ExportedImage(**image, objects=objects))
    return ExportedTask(images, stored["problems"], stored["omitted"])


class FileJournal:
    """Files of one format that were written per image: path to what it was written from."""

    def __init__(self, out: Path, name: str) -> None:
        """Opens the journal of a format, or begins one."""
        self._out = out
        self._path = out / FOLDER / f"files-{name}.jsonl"
        self._written = dict(self._lines())
        self._wanted: dict[str, str] = {}
        self._lines_to = self._path.open("a")

    def is_current(self, path: Path, source: str) -> bool:
        """Whether a file was written from this source and is still there. Call it once for every file of the export."""
        name = str(path.relative_to(self._out))
        self._wanted[name] = source
        return self._written.get(name) == source and path.exists()

    def wrote(self, path: Path, source: str) -> None:
        """Notes a file that was written."""
        print(json.dumps([str(path.relative_to(self._out)), source]), file=self._lines_to, flush=True)

    def finish(self) -> None:
        """Removes files of earlier runs that `is_current` was not asked about, and shortens the journal."""
        self._lines_to.close()
        for name in self._written.keys() - self._wanted.keys():
            (self._out / name).unlink(missing_ok=True)
        with atomic_write(self._path) as temporary, temporary.open("w") as file:
            file.writelines(json.dumps(line) + "\n" for line in self._wanted.items())

    def _lines(self) -> Iterator[tuple[str, str]]:
        try:
            lines = self._path.read_text().splitlines()
        except OSError:
            return
        for line in lines:
            try:
                name, source = json.loads(line)
            except ValueError:
                continue  # the run was killed while it wrote this line
            yield name, source
