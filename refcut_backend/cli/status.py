"""`refcut status`: what runs, and what each project has."""

from __future__ import annotations

from rich.table import Table

from refcut_backend import __version__
from refcut_backend.cli.common import open_console, plain, with_settings
from refcut_backend.cli.running_backends import running_backends
from refcut_backend.errors import RefCutError
from refcut_backend.label_studio.project_ids import project_name
from refcut_backend.settings import Settings


def status() -> None:
    """Show the running backend, its workers, and for each project its references and masks without a tick."""
    with_settings(_show)


def _show(settings: Settings) -> None:
    from refcut_backend.clicks.forgotten_masks import ForgottenMasks
    from refcut_backend.wiring import open_stores

    here = str(settings.state_dir.resolve())
    runs = [backend for backend in running_backends() if backend.state_dir == here]
    print(f"RefCut {__version__}")
    print(f"state     {here}")
    print(
        f"backend   {f'process {runs[0].pid}, port {runs[0].port}' if runs else 'no `refcut run` on this folder'}"
    )
    print(f"workers   {_workers(settings)}")
    with open_stores(settings) as stores:
        known = stores.projects.all()
        without_tick = ForgottenMasks(stores.engine).counts()
        table = Table("project", "Label Studio", "labels with references", "masks without a tick")
        for one in known:
            labels = sorted(stores.references.labels(one.project_id))
            table.add_row(
                project_name(one.project_id),
                plain(one.label_studio),
                plain(", ".join(labels) or "none"),
                str(without_tick.get(one.project_id, 0)),
            )
    if not known:
        print("projects  no Label Studio has called /setup yet")
        return
    open_console().print(table)
    if without_tick:
        print("`refcut masks recover --project P` puts masks without a tick into their annotations")


def _workers(settings: Settings) -> str:
    from refcut_backend.queue.queue_state import read_queue_state
    from refcut_backend.queue.redis import connect_redis, find_redis

    try:
        with connect_redis(find_redis(settings)) as connection:
            state = read_queue_state(connection)
    except RefCutError as error:
        return f"unknown: {error.message}"
    return f"{state.ready_workers} ready, {state.waiting} clicks wait"
