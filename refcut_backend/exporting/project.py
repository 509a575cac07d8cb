"""Exports a project: reads its annotations into the store, then writes every format from there.

    Label Studio --read_annotations--> TaskStore --write_formats--> files

Both steps skip what an earlier run has done. Only one task is in memory at a time.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from model.files import atomic_write
from refcut_backend.exporting.annotations import (
    Choice,
    ExportedImage,
    ExportedTask,
    SizeOf,
    chosen,
    read_task,
)
from refcut_backend.exporting.formats import NamedImage, Target, file_name, open_format, unique_names
from refcut_backend.exporting.store import StoredTask, TaskStore, fingerprint
from refcut_backend.images.address import LOCAL_FILES
from refcut_backend.label_studio.label_config import label_order, read_label_config
from refcut_backend.label_studio.payloads import ListedTask, Timestamp
from refcut_backend.label_studio.task_lists import PAGE
from refcut_backend.label_studio.tasks import AnnotationSource, GoneError, SourceError

LEFT_OUT = "left-out.txt"
CATEGORIES = "categories.json"
OnProgress = Callable[[int, int], None]
"""Called with (number of tasks done, number of all tasks)."""


@dataclass(frozen=True)
class ExportRequest:
    """What is exported.

    Attributes:
        label_config: The project's label config (XML).
        choice: Which annotations of a task.
        formats: Some of `formats.FORMATS`.
        tolerance_px: See `formats.Target`.
    """

    label_config: str
    choice: Choice
    formats: Sequence[str]
    tolerance_px: float


@dataclass(frozen=True)
class ExportSummary:
    """What was exported.

    Attributes:
        tasks: Number of tasks.
        images: Number of images.
        objects: Label to number of objects.
        problems: What could not be exported although it should be, one sentence each.
        omitted: What is left out on purpose: what it is, and how often.
    """

    tasks: int
    images: int
    objects: dict[str, int]
    problems: list[str]
    omitted: dict[str, int]


def read_annotations(
    source: AnnotationSource,
    store: TaskStore,
    request: ExportRequest,
    size_of: SizeOf,
    on_progress: OnProgress,
) -> None:
    """Brings the store up to date with Label Studio.

    A task that cannot be read is stored with its problem, and read again by the next run: Label Studio or an image may
    have been unavailable.

    Raises:
        SourceError: Label Studio cannot be read.
        LabelConfigError: The label config cannot be parsed.
    """
    read_label_config(request.label_config)
    listed = {task.id: task.fingerprint for part in source.annotated_since(Timestamp()) for task in part}
    store.keep_only(listed)
    ordered = sorted(listed)
    for start in range(0, len(ordered), PAGE):
        part = ordered[start : start + PAGE]
        stale = [task_id for task_id in part if not store.is_current(task_id, _key(listed[task_id], request))]
        current = source.tasks(stale) if stale else []
        store.remove(set(stale) - {task.id for task in current})
        for task in current:
            exported = _read(source, task, request, size_of)
            key = _key(task.fingerprint, request)
            store.save(task.id, StoredTask(f"{key} incomplete" if exported.problems else key, exported))
        on_progress(start + len(part), len(ordered))


def _key(task_fingerprint: str, request: ExportRequest) -> str:
    return fingerprint(task_fingerprint, request.label_config, request.choice)


def _read(
    source: AnnotationSource, task: ListedTask, request: ExportRequest, size_of: SizeOf
) -> ExportedTask:
    try:
        annotations = chosen(source.annotations(task.id), request.choice)
    except GoneError:
        return ExportedTask()
    except SourceError as error:
        source.overview()  # raises if Label Studio is away; otherwise only this task cannot be read
        return ExportedTask(problems=[f"task {task.id}: {error.message}"])
    return read_task(task, annotations, read_label_config(request.label_config, task.data), size_of)


def write_formats(
    store: TaskStore, request: ExportRequest, out: Path, on_progress: OnProgress
) -> ExportSummary:
    """Writes every format from the store, and the lists of categories and of what was left out.

    Raises:
        OSError: The folder cannot be written to.
    """
    overview = _overview(store, request.label_config)
    target = Target(out, overview.categories, request.tolerance_px)
    numbered = [{"id": number, "name": label} for number, label in enumerate(target.categories, start=1)]
    with atomic_write(out / CATEGORIES) as temporary:
        temporary.write_text(json.dumps(numbered, ensure_ascii=False, indent=1) + "\n")
    with ExitStack() as stack:
        added = [stack.enter_context(open_format(name, target)) for name in request.formats]
        for done, (_, stored) in enumerate(store.all(), start=1):
            for image in stored.task.images:
                key = _image_key(image)
                source = fingerprint(stored.fingerprint, key)
                named = NamedImage(
                    image,
                    _name_of_image(image),
                    overview.stems[key],
                    _shown_address(image.address),
                    source,
                )
                for add in added:
                    add(named)
            on_progress(done, overview.summary.tasks)
    with atomic_write(out / LEFT_OUT) as temporary:
        temporary.write_text("".join(f"{problem}\n" for problem in overview.summary.problems))
    return overview.summary


@dataclass(frozen=True)
class _Overview:
    """What must be known of all tasks before the first file is written.

    Attributes:
        categories: The labels of the label config in its order, then others that annotations still have.
        stems: Key of each image to the name of its files.
    """

    categories: list[str]
    stems: dict[str, str]
    summary: ExportSummary


def _overview(store: TaskStore, label_config: str) -> _Overview:
    tasks = 0
    stems: list[tuple[str, str, str]] = []
    objects: Counter[str] = Counter()
    omitted: Counter[str] = Counter()
    problems: list[str] = []
    for _, stored in store.all():
        tasks += 1
        problems += stored.task.problems
        omitted.update(stored.task.omitted)
        for image in stored.task.images:
            objects.update(one.label for one in image.objects)
            suffix = f"task-{image.task_id}-annotation-{image.annotation_id}"
            stems.append((_image_key(image), file_name(Path(_name_of_image(image)).stem), suffix))
    categories = label_order(label_config)
    categories += sorted(objects.keys() - set(categories))
    summary = ExportSummary(tasks, len(stems), dict(objects), problems, dict(omitted))
    return _Overview(categories, unique_names(stems), summary)


def _image_key(image: ExportedImage) -> str:
    return f"{image.task_id}/{image.annotation_id}/{image.image_tag}"


def _name_of_image(image: ExportedImage) -> str:
    """Returns the name of the image's file, without its folder."""
    parts = _parts_of(image.address)
    path = parts.path
    if path.rstrip("/") == LOCAL_FILES.rstrip("/"):
        path = parse_qs(parts.query).get("d", [""])[-1]
    name = Path(unquote(path)).name if parts.scheme != "data" else ""
    return name or f"task-{image.task_id}"


def _shown_address(address: str) -> str:
    """Returns an address without user, password, query and fragment, any of which may be secret."""
    parts = _parts_of(address)
    if parts.scheme == "data":
        return ""
    if parts.path.rstrip("/") == LOCAL_FILES.rstrip("/"):
        return f"{LOCAL_FILES}?d={parse_qs(parts.query).get('d', [''])[-1]}"
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()


def _parts_of(address: str) -> SplitResult:
    try:
        return urlsplit(address.strip())
    except ValueError:
        return urlsplit("")
