"""Converts the versions that serve projects for OpenVINO, before their first click and apart from it.

A version is converted where it is promoted, before it serves. On the other machines of a team, and after an update of
OpenVINO, this thread converts it, in a process of low priority. One worker per machine does that.
"""

from __future__ import annotations

import fcntl
import logging
import threading
from pathlib import Path

from model.errors import ModelError
from model.runtime.select import is_prepared, prepare_in_subprocess
from refcut_backend.errors import RefCutError
from refcut_backend.versions.files import StoreSilentError
from refcut_backend.versions.store import ModelStore

log = logging.getLogger("refcut.worker")

LOOK_EVERY_S = 60.0
LOOK_AT_REMOTE_EVERY_S = 600.0
"""A remote store is asked for one small file per project, by each machine."""
MAX_VERSIONS = 200
"""Versions that are converted, those that were published last first. All of them fit into the cache folder."""


class VersionPreparer:
    """Looks for versions that are not converted yet, again and again, in a thread that ends with the process.

    Args:
        store: The versions.
        cache_dir: Folder of converted models; shared by the workers of a machine.
    """

    def __init__(self, store: ModelStore, cache_dir: Path) -> None:
        self._store = store
        self._cache_dir = cache_dir
        self._seen: set[str] = set()

    def start(self) -> None:
        """Begin to convert versions."""
        threading.Thread(target=self._run, name="prepare-versions", daemon=True).start()

    def prepare(self) -> None:
        """Convert the versions that serve and have not been looked at yet. A version that fails is not tried again.

        Does nothing while another process of this machine does the same.

        Raises:
            RefCutError: If the store cannot be read.
            OSError: If the cache folder cannot be written.
        """
        self._cache_dir.mkdir(parents=True, exist_ok=True)
        with self._cache_dir.with_suffix(".preparing").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return
            for version in self._store.serving()[:MAX_VERSIONS]:
                if version not in self._seen:
                    self._prepare(version)
                    self._seen.add(version)

    def _prepare(self, version: str) -> None:
        try:
            folder = self._store.local_folder(version)
            if not is_prepared(folder, self._cache_dir):
                prepare_in_subprocess(folder, self._cache_dir)
                log.info("a version was converted", extra={"version": version})
        except StoreSilentError:
            raise
        except (ModelError, RefCutError, OSError) as error:
            log.warning(
                "a version cannot be converted ahead of time",
                extra={"version": version, "problem": str(error)},
            )

    def _run(self) -> None:
        pause = threading.Event()
        while True:
            try:
                self.prepare()
            except Exception as error:
                log.warning("versions cannot be converted ahead of time", extra={"problem": str(error)})
            pause.wait(LOOK_EVERY_S if self._store.is_local else LOOK_AT_REMOTE_EVERY_S)
