"""`refcut export`: writes the masks of a project as COCO, YOLO, label maps and masks per label."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from tqdm import tqdm

from refcut_backend.cli.common import ProjectOption, plain, with_settings
from refcut_backend.errors import ConfigError, NotConnectedError
from refcut_backend.images.address import TaskImage
from refcut_backend.label_studio.project_ids import project_name
from refcut_backend.settings import Settings

if TYPE_CHECKING:
    from refcut_backend.exporting.project import ExportSummary, OnProgress

INTERRUPTED = 130
PROBLEMS_SHOWN = 10


class ExportFormat(StrEnum):
    """What `--format` takes: `exporting.formats.FORMATS`."""

    COCO_RLE = "coco-rle"
    COCO_POLYGONS = "coco-polygons"
    YOLO = "yolo"
    LABEL_MAPS = "label-maps"
    MASKS = "masks"


class AnnotationChoice(StrEnum):
    """What `--annotations` takes: `exporting.annotations.Choice`."""

    NEWEST = "newest"
    ALL = "all"


def export(
    project: ProjectOption,
    out: Annotated[
        Path, typer.Option("--out", help="folder to write to; an earlier export in it is updated")
    ],
    formats: Annotated[
        list[ExportFormat], typer.Option("--format", help="may be repeated", show_default="coco-rle")
    ] = [ExportFormat.COCO_RLE],  # noqa: B006 (typer reads it as the default)
    annotations: Annotated[
        AnnotationChoice, typer.Option(help="of a task with several: the one saved last, or all")
    ] = AnnotationChoice.NEWEST,
    polygon_tolerance_px: Annotated[
        float,
        typer.Option(min=0, max=100, help="largest distance of a polygon from the mask's edge; 0 = exact"),
    ] = 0.0,
) -> None:
    """Export a project's masks. Run it again to resume after an interruption, or to update the files."""

    def action(settings: Settings) -> None:
        try:
            problems = _export(
                settings, project, out, list(dict.fromkeys(formats)), annotations, polygon_tolerance_px
            )
        except OSError as error:
            raise ConfigError(f"the export cannot be written ({error.strerror})", hint="see --out") from None
        except KeyboardInterrupt:
            print("interrupted; run the same command again to resume")
            raise typer.Exit(INTERRUPTED) from None
        if problems:
            raise typer.Exit(1)

    with_settings(action)


def _export(
    settings: Settings,
    project: str,
    out: Path,
    formats: list[ExportFormat],
    annotations: AnnotationChoice,
    tolerance_px: float,
) -> int:
    """Returns the number of problems."""
    from refcut_backend.exporting.project import ExportRequest, read_annotations, write_formats
    from refcut_backend.exporting.store import TaskStore
    from refcut_backend.label_studio.client import origin
    from refcut_backend.label_studio.tasks import open_source
    from refcut_backend.wiring import open_stores

    with open_stores(settings) as stores:
        project_id = stores.projects.find(project)
        connection = stores.projects.connection(project_id)
        config = stores.projects.label_config(project_id)
        if not config:
            raise NotConnectedError(
                "the project's label config is not known", hint="open Settings > Model in Label Studio once"
            )
        store = TaskStore(
            out, f"{origin(connection.label_studio)} {project_name(project_id)} {connection.project_created}"
        )
        request = ExportRequest(config, annotations.value, [one.value for one in formats], tolerance_px)

        def size_of(task_id: int, address: str) -> tuple[int, int]:
            where = TaskImage(project_id, task_id, address)
            height, width = stores.read_image(settings, where).shape[:2]
            return height, width

        with closing(open_source(project_id, connection)) as source, _bar("read") as on_progress:
            read_annotations(source, store, request, size_of, on_progress)
    with _bar("written") as on_progress:
        summary = write_formats(store, request, out, on_progress)
    _report(summary, out)
    return len(summary.problems)


@contextmanager
def _bar(what: str) -> Iterator[OnProgress]:
    """A progress bar on a terminal, nothing elsewhere."""
    with tqdm(unit="task", desc=what, disable=None) as bar:

        def on_progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield on_progress


def _report(summary: ExportSummary, out: Path) -> None:
    from refcut_backend.exporting.project import LEFT_OUT

    count = sum(summary.objects.values())
    print(f"{count} objects on {summary.images} images of {summary.tasks} tasks are in {out}")
    for label, number in sorted(summary.objects.items()):
        print(f"  {plain(label)}: {number}")
    if summary.omitted:
        print(
            "left out: " + ", ".join(f"{number} {what}" for what, number in sorted(summary.omitted.items()))
        )
    if summary.problems:
        print(f"{len(summary.problems)} could not be exported, see {out / LEFT_OUT}:")
        for problem in summary.problems[:PROBLEMS_SHOWN]:
            print(f"  {plain(problem)}")
