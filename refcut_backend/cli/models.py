"""`refcut models`: list and show the versions of a project, promote one, roll back, remove old ones."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from refcut_backend.cli.common import ProjectOption, find_project, open_console, plain, with_settings
from refcut_backend.errors import ModelStoreError, RefCutError
from refcut_backend.label_studio.project_ids import project_name
from refcut_backend.settings import Settings
from refcut_backend.versions.manifest import Pointer

if TYPE_CHECKING:
    from refcut_backend.versions.manifest import Manifest
    from refcut_backend.versions.store import ModelStore


log = logging.getLogger("refcut.models")

SERVES = "serves"

models_app = typer.Typer(help="List model versions, promote one, roll back, prune.", no_args_is_help=True)

VersionArgument = Annotated[str, typer.Argument(help="name of a version, as `list` shows it")]


@models_app.command("list")
def list_models(project: ProjectOption) -> None:
    """List the versions of a project, newest first, and which one serves."""

    def action(store: ModelStore, settings: Settings) -> None:
        project_id = find_project(settings, project)
        pointer = store.pointer(project_id)
        manifests = [store.manifest(version) for version in store.versions(project_id)]
        if manifests:
            open_console().print(_table(manifests, pointer))
        else:
            print("no versions")
        if pointer.version is None:
            print(f"the shared model serves: {_shared_name(settings)}")

    _with_store(action)


@models_app.command()
def show(
    version: VersionArgument,
    pictures: Annotated[
        Path | None, typer.Option("--pictures", help="folder for the version's pictures")
    ] = None,
) -> None:
    """Print a version's manifest as JSON: parent, data, settings, figures, decision."""

    def action(store: ModelStore, _settings: Settings) -> None:
        manifest = store.manifest(version)
        print(json.dumps(manifest.fields(), indent=2, sort_keys=True))
        if pictures is not None:
            for path in store.save_pictures(version, pictures):
                print(path, file=sys.stderr)

    _with_store(action)


@models_app.command()
def promote(project: ProjectOption, version: VersionArgument) -> None:
    """Serve a version from now on, even if the comparison did not promote it."""

    def action(store: ModelStore, settings: Settings) -> None:
        project_id = find_project(settings, project)
        if store.manifest(version).project_id == project_id:
            _prepare(store.local_folder(version), settings)
        store.promote(project_id, version)
        print(f"{version} serves project {project_name(project_id)}")

    _with_store(action)


@models_app.command()
def rollback(project: ProjectOption) -> None:
    """Return to the version that served before. Takes effect within seconds, for this project only."""

    def action(store: ModelStore, settings: Settings) -> None:
        project_id = find_project(settings, project)
        version = store.rollback(project_id)
        print(f"{version or _shared_name(settings)} serves project {project_name(project_id)}")

    _with_store(action)


@models_app.command()
def prune(
    project: ProjectOption,
    keep: Annotated[int, typer.Option("--keep", min=3, help="number of newest versions to keep")] = 3,
) -> None:
    """Remove old versions. The serving version and the one for a rollback stay."""

    def action(store: ModelStore, settings: Settings) -> None:
        removed = store.prune(find_project(settings, project), keep)
        print("\n".join(f"removed {version}" for version in removed) or "nothing to remove")

    _with_store(action)


def _with_store(action: Callable[[ModelStore, Settings], None]) -> None:
    def run(settings: Settings) -> None:
        from refcut_backend.versions.serving import open_model_store

        try:
            action(open_model_store(settings), settings)
        except RefCutError:
            raise
        except OSError as error:
            raise ModelStoreError(
                f"the model store cannot be used ({error})", hint="see REFCUT_MODEL_STORE"
            ) from None

    with_settings(run)


def _prepare(folder: Path, settings: Settings) -> None:
    """Converts a version for the runtime of this machine's workers, so that they switch at once."""
    if settings.runtime == "torch":
        return
    from model.errors import ModelError
    from refcut_backend.inference.load_model import prepare_version

    try:
        prepare_version(folder, settings)
    except ModelError as error:
        log.warning("workers will take longer to switch", extra={"problem": str(error)})


def _shared_name(settings: Settings) -> str:
    from model.checkpoints.version_folder import version_name

    return version_name(settings.model_dir)


def _table(manifests: list[Manifest], pointer: Pointer) -> Table:
    table = Table(
        "version",
        "published (UTC)",
        "parent",
        "images",
        "clicks to 85 %",
        "first click",
        "comparison",
        "state",
    )
    for manifest in manifests:
        metadata = manifest.metadata
        table.add_row(
            manifest.version,
            manifest.published_at[:19].replace("T", " "),
            plain(metadata.get("parent", "")),
            plain(_images(metadata)),
            _change(metadata, "noc85"),
            _change(metadata, "first_click_iou"),
            {True: "passed", False: "failed", None: "none"}[manifest.is_approved],
            Text(_state(manifest.version, pointer), style="bold green"),
        )
    return table


def _state(version: str, pointer: Pointer) -> str:
    if version == pointer.version:
        return SERVES
    return "served before" if version in pointer.earlier else ""


def _images(metadata: dict[str, Any]) -> object:
    """Number of training images, or "" for an older manifest."""
    images = metadata.get("images")
    return images.get("train", "") if isinstance(images, dict) else ""


def _change(metadata: dict[str, Any], figure: str) -> str:
    """A figure of the holdout before and after the training."""
    try:
        compared = metadata["judgement"]
        return f"{compared['serving'][figure]:.2f} > {compared['candidate'][figure]:.2f}"
    except (KeyError, TypeError, ValueError):
        return ""
