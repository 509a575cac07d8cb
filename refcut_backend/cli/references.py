"""`refcut references`: list, show, add, pin, disable and move the references of a project."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text
from tqdm import tqdm

from refcut_backend.cli.common import ProjectOption, open_console, plain, with_project
from refcut_backend.errors import ConfigError, RefCutError
from refcut_backend.label_studio.project_ids import project_name
from refcut_backend.references.selection import IN_USE, OwnerRule, ReferenceSelector, State
from refcut_backend.settings import Settings

if TYPE_CHECKING:
    # Label Studio's SDK takes a second to import; other commands do not need it.
    from refcut_backend.references.manage import ReferenceManager, ReferenceRow
    from refcut_backend.wiring import Stores
    from refcut_backend.worth.figures import ReferenceFigures
    from refcut_backend.worth.measure import ReferenceWorths


references_app = typer.Typer(help="List, show, add, pin, disable and move references.", no_args_is_help=True)

POLL_S = 0.5

LabelOption = Annotated[str, typer.Option("--label", help="label as in the label config")]
SomeLabelOption = Annotated[str | None, typer.Option("--label", help="only this label")]
TaskOption = Annotated[int, typer.Option("--task", min=1, help="task id")]
SomeTaskOption = Annotated[int | None, typer.Option("--task", min=1, help="task id")]
SomeAnnotationOption = Annotated[
    int | None, typer.Option("--annotation", help="annotation id; negative for a reference from a set")
]


@references_app.command("list")
def list_references(project: ProjectOption, label: SomeLabelOption = None) -> None:
    """List the references of a project: which are in use, and warnings about weak ones."""

    def action(manager: ReferenceManager, project_id: int, _settings: Settings) -> None:
        rows = manager.rows(project_id, label)
        if rows:
            open_console().print(_table(rows))
        else:
            print("no references")
        without = manager.labels_without_reference(project_id)
        if without and label is None:
            print(f"labels without a reference in use: {', '.join(str(plain(one)) for one in without)}")
        for rule in manager.rules_without_reference(project_id):
            if label is None or rule.label == label:
                print(_without_reference(rule))

    _manage(project, action)


@references_app.command()
def show(
    project: ProjectOption,
    label: LabelOption,
    task: SomeTaskOption = None,
    annotation: SomeAnnotationOption = None,
    out: Annotated[Path | None, typer.Option("--out", help="file to write")] = None,
) -> None:
    """Write a PNG of a reference on its image: green is the label, red is what does not belong to it."""
    from refcut_backend.images.address import TaskImage
    from refcut_backend.references.pictures import as_png, draw_reference
    from refcut_backend.wiring import open_stores

    def action(manager: ReferenceManager, project_id: int, settings: Settings) -> None:
        stored = manager.load(ReferenceSelector(label, task, annotation), project_id)
        where = TaskImage(project_id, stored.task_id, stored.image_address)
        with open_stores(settings) as stores:
            image = stores.read_image(settings, where)
        path = out or Path(f"reference-{project_name(project_id)}-{stored.version}.png")
        with _file_explained("written"):
            path.write_bytes(as_png(draw_reference(image, stored.positive_hw, stored.negative_hw)))
        print(path)

    _manage(project, action)


@references_app.command()
def add(
    project: ProjectOption, label: LabelOption, task: TaskOption, annotation: SomeAnnotationOption = None
) -> None:
    """Use a task's submitted regions of a label as a reference, without marking them in Label Studio."""

    def action(manager: ReferenceManager, project_id: int, _settings: Settings) -> None:
        for found in manager.add(project_id, ReferenceSelector(label, task, annotation)):
            print(f"'{label}' means task {task}, annotation {found.annotation_id}, version {found.version}")

    _manage(project, action)


@references_app.command()
def remove(
    project: ProjectOption,
    label: LabelOption,
    task: SomeTaskOption = None,
    annotation: SomeAnnotationOption = None,
) -> None:
    """Undo an `add`, or remove a reference that came from a set."""
    selector = ReferenceSelector(label, task, annotation)
    _change(
        project,
        lambda manager, project_id: manager.remove(project_id, selector),
        f"{selector} is no longer added",
    )


@references_app.command()
def pin(
    project: ProjectOption,
    label: LabelOption,
    task: SomeTaskOption = None,
    annotation: SomeAnnotationOption = None,
) -> None:
    """Pin a reference: of this label, only pinned references are used."""
    selector = ReferenceSelector(label, task, annotation)
    _change(project, lambda manager, project_id: manager.pin(project_id, selector), f"{selector} is pinned")


@references_app.command()
def unpin(
    project: ProjectOption,
    label: LabelOption,
    task: SomeTaskOption = None,
    annotation: SomeAnnotationOption = None,
) -> None:
    """Undo a `pin`."""
    selector = ReferenceSelector(label, task, annotation)
    _change(
        project,
        lambda manager, project_id: manager.unpin(project_id, selector),
        f"{selector} is no longer pinned",
    )


@references_app.command()
def disable(
    project: ProjectOption,
    label: LabelOption,
    task: SomeTaskOption = None,
    annotation: SomeAnnotationOption = None,
) -> None:
    """Disable a reference for good; without --task and --annotation, all references of the label."""
    selector = ReferenceSelector(label, task, annotation)
    _change(
        project, lambda manager, project_id: manager.disable(project_id, selector), f"{selector} is disabled"
    )


@references_app.command()
def enable(
    project: ProjectOption,
    label: LabelOption,
    task: SomeTaskOption = None,
    annotation: SomeAnnotationOption = None,
) -> None:
    """Undo a `disable`."""
    selector = ReferenceSelector(label, task, annotation)
    _change(
        project, lambda manager, project_id: manager.enable(project_id, selector), f"{selector} is enabled"
    )


@references_app.command()
def move(
    project: ProjectOption,
    label: LabelOption,
    place: Annotated[int, typer.Option("--to", min=1, help="its new place; 1 is used first")],
    task: SomeTaskOption = None,
    annotation: SomeAnnotationOption = None,
) -> None:
    """Move a reference to a place in the order in which clicks use them. Those before it keep their places, too."""
    selector = ReferenceSelector(label, task, annotation)

    def action(manager: ReferenceManager, project_id: int, settings: Settings) -> None:
        now = manager.move(project_id, selector, place)
        most = settings.max_references_per_label
        not_used = "" if now <= most else f"; clicks use the first {most}"
        print(f"{selector} has place {now}{not_used}")

    _manage(project, action)


@references_app.command()
def newest_first(project: ProjectOption, label: LabelOption) -> None:
    """Undo every `move` of a label: the newest references are used first again."""
    _change(
        project,
        lambda manager, project_id: manager.newest_first(project_id, label),
        f"'{label}': the newest references are used first",
    )


@references_app.command("export")
def export_set(
    project: ProjectOption,
    out: Annotated[Path | None, typer.Option("--out", help="file to write")] = None,
) -> None:
    """Write the references that are in use to one file, for another project or another Label Studio."""

    def run(stores: Stores, project_id: int, settings: Settings) -> None:
        exported = stores.reference_sets(settings).export(project_id)
        path = out or Path(f"references-{project_name(project_id)}.zip")
        with _file_explained("written"):
            path.write_bytes(exported.data)
        for problem in exported.left_out:
            print(f"left out: {plain(problem)}")
        print(f"{exported.references} references: {path}")

    with_project(project, run)


@references_app.command("import")
def import_set(
    project: ProjectOption,
    file: Annotated[Path | None, typer.Option("--file", help="file of `export`")] = None,
    from_project: Annotated[
        str | None, typer.Option("--from-project", help="take the references of this project instead")
    ] = None,
) -> None:
    """Add the references of a file, or those that another project uses. Labels are found by name."""

    def run(stores: Stores, project_id: int, settings: Settings) -> None:
        sets = stores.reference_sets(settings)
        if (file is None) == (from_project is None):
            raise ConfigError("name either a file or a project", hint="--file or --from-project")
        if file is not None:
            with _file_explained("read"):
                data = file.read_bytes()
            print(plain(sets.import_(project_id, data)))
        else:
            print(plain(sets.copy(stores.projects.find(from_project or ""), project_id)))

    with_project(project, run)


@references_app.command()
def worth(
    project: ProjectOption,
    label: SomeLabelOption = None,
    show: Annotated[bool, typer.Option("--show", help="only show what was measured before")] = False,
) -> None:
    """Measure what references are worth: one click with and without each, on other annotated tasks."""
    from refcut_backend.queue.redis import connect_redis, find_redis
    from refcut_backend.versions.serving import open_project_versions
    from refcut_backend.wiring import reference_worths
    from refcut_backend.worth.store import WorthStore

    def run(stores: Stores, project_id: int, settings: Settings) -> None:
        if not show:
            with connect_redis(find_redis(settings)) as connection:
                _measure(reference_worths(stores, settings, connection), project_id, label)
        rows = [
            row
            for row in stores.reference_manager(settings).rows(project_id, label)
            if row.state is not State.NO_LABEL
        ]
        found = WorthStore(stores.engine).of_project(project_id)
        serving = open_project_versions(settings).of(project_id)
        open_console().print(_worth_table(rows, found, serving))

    with_project(project, run)


def _measure(worths: ReferenceWorths, project_id: int, label: str | None) -> None:
    """Leads a measurement, or follows the one that is under way. Ctrl-C stops it."""
    run, is_new = worths.request(project_id, label)
    if not is_new:
        print("a measurement of the project is under way already", file=sys.stderr)
    else:
        threading.Thread(target=worths.measure, args=(run,), daemon=True).start()
    try:
        with tqdm(unit="mask", disable=None) as bar:
            while (now := worths.store.latest(project_id)) is not None and not now.has_ended:
                bar.total = now.steps or None
                bar.update(now.step - bar.n)
                time.sleep(POLL_S)
    except KeyboardInterrupt:
        worths.store.stop(project_id)
        raise
    if now is None or now.outcome != "done":
        raise RefCutError(f"not measured: {'the project was forgotten' if now is None else now.message}")
    print(now.message)
    for problem in now.problems:
        print(f"  {plain(problem)}")


@contextmanager
def _file_explained(done: str) -> Iterator[None]:
    """Explains why a file cannot be read or written."""
    try:
        yield
    except OSError as error:
        raise RefCutError(f"the file cannot be {done} ({error.strerror})") from None


def _change(project: str, method: Callable[[ReferenceManager, int], None], message: str) -> None:
    def action(manager: ReferenceManager, project_id: int, _settings: Settings) -> None:
        method(manager, project_id)
        print(message)

    _manage(project, action)


def _manage(project: str, action: Callable[[ReferenceManager, int, Settings], None]) -> None:
    """Runs an action on a project in the registry of the settings' database."""

    def run(stores: Stores, project_id: int, settings: Settings) -> None:
        manager = stores.reference_manager(settings)
        action(manager, project_id, settings)

    with_project(project, run)


def _table(rows: list[ReferenceRow]) -> Table:
    table = Table("label", "place", "task", "annotation", "version", "seen at (UTC)", "state", "warnings")
    for row in rows:
        candidate = row.candidate
        table.add_row(
            plain(candidate.label),
            "-" if row.place is None else f"{row.place}{' (moved)' if candidate.moved_to else ''}",
            "-" if candidate.is_from_set else str(candidate.task_id),
            str(candidate.annotation_id),
            candidate.version,
            f"{row.seen_at:%Y-%m-%d %H:%M:%S}",
            _state(row),
            Text("; ".join(row.facts.weaknesses), style="yellow"),
        )
    return table


def _worth_table(
    rows: list[ReferenceRow], found: dict[tuple[str, str], list[ReferenceFigures]], serving: str
) -> Table:
    from refcut_backend.worth.figures import best_to_show

    table = Table("label", "task", "version", "state", "worth", "model")
    for row in rows:
        candidate = row.candidate
        figures = best_to_show(found.get((candidate.label, candidate.version), ()), serving)
        table.add_row(
            plain(candidate.label),
            "-" if candidate.is_from_set else str(candidate.task_id),
            candidate.version,
            _state(row),
            "not measured" if figures is None else plain(figures),
            "" if figures is None else plain(figures.model_version),
        )
    return table


def _state(row: ReferenceRow) -> Text:
    """A reference that is in use, but that workers cannot use, is shown with the reason."""
    if row.state in IN_USE and row.candidate.problem is not None:
        return plain(f"{row.state}, but left out: {row.candidate.problem}", style="red")
    return Text(row.state, style="" if row.state in IN_USE else "dim")


def _without_reference(rule: OwnerRule) -> str:
    selector = ReferenceSelector(plain(rule.label).plain, rule.task_id, rule.annotation_id)
    return f"{rule.action} {selector}: there is no such reference; was it deleted?"
