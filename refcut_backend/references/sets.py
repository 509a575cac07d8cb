"""Moves references between projects and Label Studios as one file.

A set is a ZIP file: `references.json` (`SetManifest`), photographs at the size that the network sees, and their masks. An
imported reference belongs to no annotation of its new project, so it has the task `NO_TASK` and a negative annotation id
that follows from its content. It is in use because of an ADD rule, as if its owner had added it by command; `remove`
withdraws that rule, and the reference goes with it.
"""

from __future__ import annotations

import hashlib
import io
import logging
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal

from pydantic import BaseModel, Field
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from refcut_backend.database import tables
from refcut_backend.database.projects import Projects
from refcut_backend.errors import BadRequestError, LabelConfigError, RefCutError
from refcut_backend.images.address import TaskImage
from refcut_backend.images.cache import Image, working_file
from refcut_backend.images.decode import decode_image, fitted_mask
from refcut_backend.images.uploads import Uploads, address_of_reference
from refcut_backend.label_studio.label_config import ProjectControls, read_label_config
from refcut_backend.label_studio.payloads import Timestamp
from refcut_backend.label_studio.project_ids import project_name
from refcut_backend.references.parse import LabelReference, mask_to_png, read_mask_png
from refcut_backend.references.registry import References, StoredReference
from refcut_backend.references.selection import IN_USE, NO_TASK, Action, NoSuchReferenceError, OwnerRule
from refcut_backend.settings import Settings

log = logging.getLogger("refcut.references")

MANIFEST = "references.json"
MAX_REFERENCES = 200
MAX_SET_BYTES = 32 * 2**20
"""Size at which an export ends. With one more reference, as base64 in JSON, it stays below the default of
REFCUT_REQUEST_MAX_BYTES."""
MAX_FILE_BYTES = 8 * 2**20
MAX_FILES = 1000
MAX_TOTAL_BYTES = 200 * 2**20
"""Limit of all files of a set together when they are unpacked."""
MAX_IMPORTED = 1000
"""References from sets that one project may have."""
PACKINGS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""Others may take any amount of memory to unpack."""
NOT_A_SET = "`refcut references export` and the page of references write such files"

_LISTED_FILE = b"PK\x01\x02"
"""Stands before each file in the list at the end of a ZIP file."""
_DAMAGE = (zipfile.BadZipFile, zlib.error, struct.error, RuntimeError, EOFError, OSError, ValueError)
_FileName = Annotated[str, Field(max_length=200)]


class SetEntry(BaseModel):
    """One reference of a set: its label and the names of its files."""

    # No database stores the character NUL.
    label: Annotated[str, Field(min_length=1, max_length=500, pattern=r"^[^\x00]*$")]
    image: _FileName
    positive: _FileName
    negative: _FileName | None = None


class SetManifest(BaseModel):
    """The content of a set. References of a label stand in the order in which they are used."""

    format: Literal[1] = 1
    references: Annotated[list[SetEntry], Field(max_length=MAX_REFERENCES)]


@dataclass(frozen=True)
class ExportedSet:
    """A set as a file.

    Attributes:
        data: The ZIP file.
        references: Number of references in it.
        left_out: References that are in use and not in it, and why: one sentence each.
    """

    data: bytes
    references: int
    left_out: tuple[str, ...]


@dataclass(frozen=True)
class ImportedSet:
    """What became of a set.

    Attributes:
        added: Number of new references.
        known: Number of references that the project had already.
        left_out: References that were not added, and why: one sentence each.
    """

    added: int
    known: int
    left_out: tuple[str, ...]

    def __str__(self) -> str:
        """What became of the set, in one line."""
        known = f", {self.known} were there already" if self.known else ""
        left_out = f"; left out: {'; '.join(self.left_out)}" if self.left_out else ""
        return f"{self.added} references added{known}{left_out}"


@dataclass(frozen=True)
class _Unpacked:
    label: str
    image: bytes
    reference: LabelReference


class ReferenceSets:
    """Writes and reads sets of references."""

    def __init__(
        self,
        engine: Engine,
        references: References,
        projects: Projects,
        uploads: Uploads,
        read_image: Callable[[TaskImage], Image],
        settings: Settings,
    ) -> None:
        """Connects the sets.

        Args:
            engine: The database.
            references: The references of all projects.
            projects: Give the label configs.
            uploads: Get the photographs of imported references.
            read_image: Returns a photograph at full size, (H, W, 3) uint8 RGB; raises RefCutError.
            settings: Give the limits of images and of references in use.
        """
        self._engine = engine
        self._references = references
        self._projects = projects
        self._uploads = uploads
        self._read_image = read_image
        self._settings = settings

    def export(self, project_id: int) -> ExportedSet:
        """Writes the references of a project that are in use to one file.

        Raises:
            NoSuchReferenceError: None is in use, or none can be read.
        """
        entries: list[SetEntry] = []
        left_out: list[str] = []
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            for listed in self._references.overview(project_id, self._settings.max_references_per_label):
                if listed.state not in IN_USE:
                    continue
                where = f"'{listed.candidate.label}' of task {listed.candidate.task_id}"
                if len(entries) == MAX_REFERENCES or buffer.tell() > MAX_SET_BYTES:
                    left_out.append(
                        f"{where}: a set takes {MAX_REFERENCES} references and {MAX_SET_BYTES // 2**20} MiB"
                    )
                    continue
                try:
                    entries.append(self._pack(archive, listed.candidate.id, listed.candidate.label))
                except RefCutError as error:
                    left_out.append(f"{where}: {error}")
            archive.writestr(MANIFEST, SetManifest(references=entries).model_dump_json(indent=1))
        if not entries:
            raise NoSuchReferenceError(
                f"project {project_name(project_id)} has no reference that could be exported",
                hint="; ".join(left_out[:3]) or "mark a region as Reference in Label Studio first",
            )
        return ExportedSet(buffer.getvalue(), len(entries), tuple(left_out))

    def _pack(self, archive: zipfile.ZipFile, reference_id: int, label: str) -> SetEntry:
        stored = self._references.load(reference_id)
        if stored is None:
            raise NoSuchReferenceError("it was removed in the meantime")
        jpeg, size_hw = self._photograph(stored)
        positive_hw, negative_hw = stored.positive_hw, stored.negative_hw
        files = [("jpg", jpeg), ("png", mask_to_png(fitted_mask(positive_hw, *size_hw)))]
        if negative_hw is not None:
            files.append(("png", mask_to_png(fitted_mask(negative_hw, *size_hw))))
        names = [f"{hashlib.sha256(data).hexdigest()[:20]}.{suffix}" for suffix, data in files]
        for name, (_, data) in zip(names, files, strict=True):
            if name not in archive.namelist():
                archive.writestr(name, data)
        negative = names[2] if len(names) > 2 else None
        return SetEntry(label=label, image=names[0], positive=names[1], negative=negative)

    def _photograph(self, stored: StoredReference) -> tuple[bytes, tuple[int, int]]:
        """A JPEG file at the working size, and its height and width. One that came from a set stays as it is."""
        known = self._uploads.of_reference(stored.project_id, stored.image_address)
        if known is not None:
            height, width = stored.positive_hw.shape
            return known, (height, width)
        return working_file(
            self._read_image(TaskImage(stored.project_id, stored.task_id, stored.image_address))
        )

    def import_(self, project_id: int, data: bytes) -> ImportedSet:
        """Adds the references of a set to a project. Importing a set again adds nothing.

        Labels are found by name, and if none has exactly that name, without regard to upper and lower case.

        Args:
            project_id: The project that gets the references.
            data: The file that `export` wrote.

        Raises:
            BadRequestError: The file is no set.
            RefCutError: The project's label config is not known, or it has too many references from sets.
        """
        controls = self._controls(project_id)
        left_out: list[str] = []
        added = known = 0
        now = datetime.now(UTC)
        for number, unpacked in enumerate(self._unpacked(data, left_out)):
            label = _label_named(unpacked.label, controls)
            if label is None:
                left_out.append(f"the label config has no label '{unpacked.label}' for masks")
                continue
            drawn_with = next((one for one in controls.regions if label in one.labels), controls.regions[0])
            # Later ones count as older, so that the order of use stays.
            saved_at = Timestamp(now - timedelta(milliseconds=number))
            if self._store(project_id, label, drawn_with.to_name, unpacked, saved_at):
                added += 1
            else:
                known += 1
        log.info("references imported", extra={"project": project_id, "added": added, "known": known})
        return ImportedSet(added, known, tuple(dict.fromkeys(left_out)))

    def copy(self, from_project_id: int, project_id: int) -> ImportedSet:
        """Adds the references that another project uses. Raises RefCutError, as `export` and `import_` do."""
        if from_project_id == project_id:
            raise BadRequestError("these are the project's own references", hint="name another project")
        exported = self.export(from_project_id)
        imported = self.import_(project_id, exported.data)
        return ImportedSet(imported.added, imported.known, (*exported.left_out, *imported.left_out))

    def _controls(self, project_id: int) -> ProjectControls:
        self._projects.connection(project_id)
        controls = read_label_config(self._projects.label_config(project_id) or "")
        if not controls.regions:
            raise LabelConfigError(
                f"project {project_name(project_id)} has no label for masks",
                hint="set up its label config in Label Studio first",
            )
        return controls

    def _unpacked(self, data: bytes, left_out: list[str]) -> Iterator[_Unpacked]:
        # Counted in the bytes: `ZipFile` makes an object of each.
        if data.count(_LISTED_FILE) > MAX_FILES:
            raise BadRequestError("the set has too many files", hint=NOT_A_SET)
        try:
            archive = zipfile.ZipFile(io.BytesIO(data))
            if sum(one.file_size for one in archive.infolist()) > MAX_TOTAL_BYTES:
                raise BadRequestError("the set is too large when it is unpacked", hint=NOT_A_SET)
            manifest = SetManifest.model_validate_json(_file(archive, MANIFEST))
        except _DAMAGE:
            raise BadRequestError("the file is no set of references", hint=NOT_A_SET) from None
        for entry in manifest.references:
            try:
                yield self._read_entry(archive, entry)
            except RefCutError as error:
                left_out.append(f"a reference of '{entry.label}' cannot be read: {error}")

    def _read_entry(self, archive: zipfile.ZipFile, entry: SetEntry) -> _Unpacked:
        image = _file(archive, entry.image)
        size_hw = decode_image(
            image, self._settings.image_max_pixels, self._settings.image_max_memory_bytes
        ).shape[:2]
        positive_hw = read_mask_png(_file(archive, entry.positive), size_hw)
        if not positive_hw.any():
            raise BadRequestError("it marks nothing")
        negative_hw = None
        if entry.negative is not None:
            negative_hw = read_mask_png(_file(archive, entry.negative), size_hw) & ~positive_hw
        return _Unpacked(entry.label, image, LabelReference(entry.label, "", positive_hw, negative_hw, True))

    def _store(
        self, project_id: int, label: str, to_name: str, unpacked: _Unpacked, saved_at: Timestamp
    ) -> bool:
        """Returns False if the project has the reference already."""
        address = address_of_reference(unpacked.image)
        reference = unpacked.reference
        version = reference.version(address)
        annotation_id = -1 - int(hashlib.sha256(f"{label}\0{version}".encode()).hexdigest()[:13], 16)
        is_new = self._is_new(project_id, annotation_id)
        if is_new:
            # Before the row, which another request would otherwise remove as one that no rule adds.
            self._references.rules.add(project_id, OwnerRule(Action.ADD, label, None, annotation_id))
        negative_hw = reference.negative_hw
        with Session(self._engine) as session, session.begin():
            # Together with the row: another request may remove photographs without one. Also for a known reference,
            # whose photograph may be gone.
            self._uploads.add_of_reference(session, project_id, unpacked.image)
            if not is_new:
                return False
            session.add(
                tables.Reference(
                    project_id=project_id,
                    annotation_id=annotation_id,
                    task_id=NO_TASK,
                    label=label,
                    to_name=to_name,
                    image_address=address,
                    positive_png=mask_to_png(reference.positive_hw),
                    negative_png=None if negative_hw is None else mask_to_png(negative_hw),
                    version=version,
                    annotated_at=saved_at,
                    explicitly_added=True,
                )
            )
        return True

    def _is_new(self, project_id: int, annotation_id: int) -> bool:
        """Whether a set's reference is not there yet. Raises BadRequestError if the project has too many from sets."""
        of_sets = select(tables.Reference.annotation_id).where(
            tables.Reference.project_id == project_id, tables.Reference.task_id == NO_TASK
        )
        with Session(self._engine) as session:
            known = set(session.scalars(of_sets))
        if annotation_id in known:
            return False
        if len(known) >= MAX_IMPORTED:
            raise BadRequestError(
                f"project {project_name(project_id)} has {MAX_IMPORTED} references from sets",
                hint="remove some first",
            )
        return True


def _label_named(name: str, controls: ProjectControls) -> str | None:
    if name in controls.region_labels or controls.labels_from_task:
        return name
    similar = [
        label for label in controls.region_labels if label.casefold().strip() == name.casefold().strip()
    ]
    return similar[0] if len(similar) == 1 else None


def _file(archive: zipfile.ZipFile, name: str) -> bytes:
    """Reads one file of a set. Raises BadRequestError if it is missing or too large."""
    try:
        if archive.getinfo(name).compress_type not in PACKINGS:
            raise BadRequestError(
                f"the file {name[:100]} of the set is packed in an unknown way", hint=NOT_A_SET
            )
        with archive.open(name) as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except (KeyError, *_DAMAGE):
        raise BadRequestError(f"the set has no readable file {name[:100]}", hint=NOT_A_SET) from None
    if len(data) > MAX_FILE_BYTES:
        raise BadRequestError(f"the file {name[:100]} of the set is too large", hint=NOT_A_SET)
    return data
