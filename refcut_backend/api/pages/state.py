"""The state of things as JSON for the status page: queue, workers, projects, disk, versions."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from refcut_backend import __version__
from refcut_backend.api.pages.files import ShownProject
from refcut_backend.errors import QueueUnavailableError
from refcut_backend.queue.queue_state import QueueState
from refcut_backend.references.reconcile_loop import LastComparison
from refcut_backend.wiring import Wiring

MOST_PROJECTS = 200
"""Further projects are not listed: each costs a look at the model store."""
SHOWN_PACKAGES = ("torch", "openvino", "label-studio-sdk")


class StateReader:
    """Reads the state. Whatever cannot be read is None, and says why where the reason helps.

    Args:
        wiring: Of the web process.
    """

    def __init__(self, wiring: Wiring) -> None:
        self._wiring = wiring
        self._versions = _versions()

    def read(self) -> dict[str, Any]:
        """Read everything now."""
        wiring = self._wiring
        return {
            "queue": self._queue(),
            "database": wiring.database_is_writable(),
            "projects": _unless_database_fails(self._projects),
            "disk": _disk(wiring.state_dir),
            "model_version": wiring.versions.shared,
            "versions": self._versions,
        }

    def _queue(self) -> dict[str, Any]:
        try:
            state = self._wiring.queue_state()
        except QueueUnavailableError as error:
            return {"redis": str(error), "waiting": None, "expected_wait_s": None, "workers": []}
        return {
            "redis": None,
            "waiting": state.waiting,
            "expected_wait_s": state.expected_wait_s,
            "workers": _workers(state),
        }

    def _projects(self) -> list[dict[str, Any]]:
        wiring = self._wiring
        without_tick = wiring.forgotten_masks()
        compared = {} if wiring.reconcile is None else wiring.reconcile.last_comparisons()
        rows = []
        for known in wiring.projects.all()[:MOST_PROJECTS]:
            shown = ShownProject.of(known.project_id, known.label_studio)
            rows.append(
                {
                    "name": shown.name,
                    "path": shown.path,
                    "label_studio": shown.label_studio,
                    "model_version": wiring.versions.of(known.project_id),
                    "masks_without_tick": without_tick.get(known.project_id, 0),
                    "comparison": _comparison(compared.get(known.project_id)),
                }
            )
        return rows


def _workers(state: QueueState) -> list[dict[str, Any]]:
    return [
        {
            "name": worker.name,
            "queues": list(worker.queues),
            "ready": worker.ready,
            "device": worker.device,
            "click_ms": None if worker.click_s is None else round(1000 * worker.click_s),
        }
        for worker in state.workers
    ]


def _comparison(last: LastComparison | None) -> dict[str, Any] | None:
    return None if last is None else {"at_s": last.at_s, "problem": last.problem}


def _unless_database_fails(read: Callable[[], list[dict[str, Any]]]) -> list[dict[str, Any]] | None:
    with suppress(SQLAlchemyError):
        return read()
    return None


def _disk(folder: Path) -> dict[str, Any] | None:
    with suppress(OSError):
        usage = shutil.disk_usage(folder)
        return {"folder": str(folder.resolve()), "free_bytes": usage.free, "total_bytes": usage.total}
    return None


def _versions() -> dict[str, str]:
    """Versions of this program and of what it stands on, without importing any of it."""
    found = {"RefCut": __version__, "Python": platform.python_version()}
    for package in SHOWN_PACKAGES:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found
