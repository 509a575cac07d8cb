"""The first step of a training: collects the project's data into a snapshot, split into training images and holdout.

Also removes the folders of old runs, with the images that no snapshot needs any more.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import shutil
import time
from collections.abc import Callable, Mapping, Set
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import Engine

from model.data.snapshot import HEAD_FILE, IMAGES_DIR, Snapshot, read_snapshot, write_snapshot
from model.errors import DataError
from refcut_backend.clicks.log import ClickLog
from refcut_backend.database.projects import Projects
from refcut_backend.images.cache import fetch_image
from refcut_backend.images.hidden_urls import Addresses
from refcut_backend.images.uploads import Uploads
from refcut_backend.label_studio.connection import Connection
from refcut_backend.label_studio.tasks import AnnotationSource, open_source
from refcut_backend.references.registry import References
from refcut_backend.references.selection import Authors
from refcut_backend.settings import Settings
from refcut_backend.training.collect import Collector, OnTask, TrainingData, images_of
from refcut_backend.training.holdout import HoldoutRules, Split, SplitStore, decide_splits
from refcut_backend.training.new_annotations import NewAnnotations
from refcut_backend.training.stored_images import SUFFIX, ProjectImages, content_of

log = logging.getLogger("refcut.training")


SHARED_IMAGES_DIR = "images"
SNAPSHOT_DIR = "snapshot"
"""Name of the snapshot's folder in the folder of a run."""


class SnapshotMaker:
    """Makes snapshots of projects."""

    def __init__(
        self,
        settings: Settings,
        engine: Engine,
        open_source: Callable[[int, Connection], AnnotationSource] = open_source,
    ) -> None:
        """Prepare snapshots.

        Args:
            settings: Limits of images, references and the holdout.
            engine: The database.
            open_source: Connects to a project in Label Studio.
        """
        self._settings = settings
        self._projects = Projects.of(engine, settings)
        self._references = References(engine, Authors.read(settings.reference_authors))
        self._fetch_image = partial(fetch_image, settings, self._projects, Addresses(engine), Uploads(engine))
        self._clicks = ClickLog(engine)
        self._splits = SplitStore(engine)
        self._new_annotations = NewAnnotations(engine)
        self._open_source = open_source

    @property
    def rules(self) -> HoldoutRules:
        """How images are split into training and holdout."""
        return HoldoutRules(
            self._settings.train_holdout_percent / 100, self._settings.train_holdout_min_images
        )

    def make(self, project_id: int, folder: Path, on_task: OnTask) -> Snapshot:
        """Make the snapshot of a run, or read it if an earlier attempt of the run has completed it.

        Args:
            project_id: The project in Label Studio.
            folder: Folder of the snapshot; an incomplete one is replaced.
            on_task: Called before each task; what it raises is passed on.

        Raises:
            RefCutError: If Label Studio cannot be read.
            OSError: If the disk is full.
        """
        if (folder / HEAD_FILE).exists():
            try:
                return read_snapshot(folder)
            except DataError as error:
                log.warning("a damaged snapshot is replaced", extra={"problem": error.message})
        shutil.rmtree(folder, ignore_errors=True)
        images = ProjectImages(folder.parent.parent / SHARED_IMAGES_DIR)
        label_config = self._projects.label_config(project_id) or ""
        data = self._collect(project_id, label_config, images, on_task)
        return self._write(project_id, folder, label_config, data, images)

    def _collect(
        self, project_id: int, label_config: str, images: ProjectImages, on_task: OnTask
    ) -> TrainingData:
        source = self._open_source(project_id, self._projects.connection(project_id))
        try:
            collector = Collector(
                project_id,
                label_config,
                source,
                self._fetch_image,
                images,
                self._clicks,
                self._references,
                self._settings.max_references_per_label,
            )
            requested_at = time.time()
            data = collector.collect(on_task)
            present = {annotation for annotation, _, _ in data.annotations}
            self._new_annotations.absent(project_id, present, requested_at)
            return data
        finally:
            source.close()
            images.save_index()

    def _write(
        self, project_id: int, folder: Path, label_config: str, data: TrainingData, images: ProjectImages
    ) -> Snapshot:
        with_references = images_of(data.references)
        annotated = images_of(data.annotated_objects)

        def decide(known: Mapping[str, Split]) -> dict[str, Split]:
            contents, marked = map(content_of, annotated), {content_of(name) for name in with_references}
            return decide_splits(contents, known, marked, self.rules)

        # The split is stored before anything is trained, so it holds whatever happens afterwards.
        splits = self._splits.settle(project_id, decide)
        (folder / IMAGES_DIR).mkdir(parents=True)
        for file_name in annotated | with_references:
            images.put_into(folder / IMAGES_DIR, file_name)
        annotated_objects = sorted(
            data.annotated_objects,
            key=lambda annotated_object: (annotated_object.file_name, annotated_object.annotation),
        )
        return write_snapshot(
            folder,
            train=[
                annotated_object
                for annotated_object in annotated_objects
                if splits[content_of(annotated_object.file_name)] is Split.TRAIN
            ],
            holdout=[
                annotated_object
                for annotated_object in annotated_objects
                if splits[content_of(annotated_object.file_name)] is Split.HOLDOUT
            ],
            references=data.references,
            made_of={
                "project": project_id,
                "label_config": hashlib.sha256(label_config.encode()).hexdigest(),
                "annotations": sorted(data.annotations),
                "left_out": data.problems,
                "holdout": asdict(self.rules),
            },
        )


def made_of(snapshot: Snapshot) -> dict[str, Any]:
    """The metadata of a snapshot: project, annotations, skipped data, rules of the holdout."""
    metadata: dict[str, Any] = json.loads((snapshot.folder / HEAD_FILE).read_text())["made_of"]
    return metadata


def annotations_of(snapshot: Snapshot) -> dict[int, str]:
    """Annotation id to the sortable `updated_at` of the state in the snapshot."""
    return {annotation: updated_at for annotation, _, updated_at in made_of(snapshot)["annotations"]}


_RUN = re.compile(r"\d{8}-\d{6}-[0-9a-f]{6}")
"""Run ids sort by the time of their request."""


def remove_old_runs(project_folder: Path, keep: int, needed: Set[str]) -> list[str]:
    """Remove the folders of old runs, and then the images that no snapshot names any more.

    Call it only while no other training of the project is under way.

    Args:
        project_folder: Folder with the project's runs.
        keep: Number of newest runs to keep.
        needed: Ids of runs to keep besides.

    Returns:
        Ids of the removed runs.

    Raises:
        OSError: If a folder cannot be removed; the next call removes the rest.
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
    # Partial files of killed workers too.
    for image in (project_folder / SHARED_IMAGES_DIR).glob("*"):
        if image.name not in named:
            image.unlink(missing_ok=True)
