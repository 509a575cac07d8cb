"""The reference registry over a fresh database, wired as the web process does it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Engine

from refcut_backend.database.engine import open_database
from refcut_backend.database.projects import Projects
from refcut_backend.label_studio.payloads import Webhook
from refcut_backend.references.authors import UserEmails
from refcut_backend.references.reconcile import Reconciler
from refcut_backend.references.registry import References
from refcut_backend.references.selection import EVERYBODY, Authors
from refcut_backend.references.sync_states import SyncStates
from refcut_backend.references.webhooks import AnnotationFollower
from tests.support.label_studio_api import LabelStudioApi
from tests.support.recorded import LABEL_CONFIG, brush_result, role_result


def square(left: int) -> NDArray[np.bool_]:
    """A mask (20, 60) with a square at `left`."""
    mask_hw = np.zeros((20, 60), bool)
    mask_hw[5:12, left : left + 7] = True
    return mask_hw


DOOR, WHEEL = brush_result("d", "Door", square(5)), brush_result("w", "Wheel", square(30))
MOVED = brush_result("d", "Door", square(15))


def marked(region: dict[str, Any], role: str = "Reference") -> dict[str, Any]:
    """The choice that marks a region."""
    return role_result(region, role)


@dataclass
class Registry:
    """What the web process keeps references with."""

    engine: Engine
    references: References
    projects: Projects
    sync_states: SyncStates
    follower: AnnotationFollower
    reconciler: Reconciler

    def connect(self, api: LabelStudioApi, label_config: str = LABEL_CONFIG) -> None:
        """As /setup does."""
        self.projects.remember(api.project_id, api.connection, label_config)

    def follow(self, *webhooks: dict[str, Any]) -> None:
        """As /webhook does, behind the acknowledgement."""
        for webhook in webhooks:
            self.follower.apply(Webhook.model_validate(webhook))

    def later(self, seconds: float) -> None:
        """As if the comparisons that follow came so much later than the webhooks before them."""
        now = self.reconciler._now
        self.reconciler._now = lambda: now() + seconds

    def in_use(self, label: str = "Door", project: int = 7) -> list[int]:
        """Annotations whose references a click of the label looks at."""
        used = {found.id for found in self.references.newest(project, label, 4)}
        return [c.annotation_id for c in self.references.of_label(project, label) if c.id in used]

    def state(self, project: int = 7) -> set[tuple[str, int, str]]:
        """Everything that the registry says: label, annotation, version."""
        listed = self.references.overview(project, 100)
        return {(r.candidate.label, r.candidate.annotation_id, r.candidate.version) for r in listed}


@contextmanager
def open_registry(place: Path | str, authors: Authors = EVERYBODY) -> Iterator[Registry]:
    """A registry on the database in a folder, or on the one with this URL."""
    engine = open_database(place if isinstance(place, str) else f"sqlite:///{place / 'refcut.db'}")
    references, projects, sync_states = References(engine, authors), Projects(engine), SyncStates(engine)
    follower = AnnotationFollower(references, projects, UserEmails(projects).email_of)
    reconciler = Reconciler(references, projects, sync_states, follower)
    try:
        yield Registry(engine, references, projects, sync_states, follower, reconciler)
    finally:
        engine.dispose()
