"""Removes what ended trainings have left: all but the newest runs, and those that versions can be repeated from."""

from __future__ import annotations

import logging
import re
import shutil
from collections.abc import Set
from pathlib import Path

from model.data.snapshot import IMAGES_DIR
from refcut_backend.training.project_images import SUFFIX
from refcut_backend.training.project_snapshot import SHARED_IMAGES_DIR, SNAPSHOT_DIR

log = logging.getLogger("refcut.training")

_RUN = re.compile(r"\d{8}-\d{6}-[0-9a-f]{6}")
"""Names of runs sort by the time at which they were asked for."""


def remove_old_runs(project_folder: Path, keep: int, needed: Set[str]) -> list[str]:
    """Removes the folders of a project's runs but the newest `keep` and the needed ones, and then the images that no
    snapshot names any more. Returns the removed runs.

    To be called while no other training of the project is under way. Raises OSError; what is left then is removed the
    next time.
    """
    runs = sorted((path for path in project_folder.iterdir() if _RUN.fullmatch(path.name)), reverse=True)
    removed = [path for path in runs[keep:] if path.name not in needed]
    for path in removed:
        shutil.rmtree(path)
    _remove_unnamed_images(project_folder, set(runs) - set(removed))
    if removed:
        log.info("old trainings removed", extra={"project": project_folder.name, "runs": len(removed)})
    return [path.name for path in removed]


def _remove_unnamed_images(project_folder: Path, runs: Set[Path]) -> None:
    named = {image.name for run in runs for image in (run / SNAPSHOT_DIR / IMAGES_DIR).glob(f"*{SUFFIX}")}
    # Also halves that a killed worker has left.
    for image in (project_folder / SHARED_IMAGES_DIR).glob("*"):
        if image.name not in named:
            image.unlink(missing_ok=True)
