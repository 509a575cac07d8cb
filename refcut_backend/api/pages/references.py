"""The page with the references of a project: what it shows, its pictures, and its actions.

Actions are those of `refcut references` and call the same functions (`references/manage.py`).
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from fastapi import APIRouter, Path, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, Field

from refcut_backend.api.bodies import JsonReader
from refcut_backend.api.pages.files import ShownProject, decoded, page, refusal
from refcut_backend.api.pages.projects import find_project, problem_page, shown_project
from refcut_backend.clicks.log import USES_DAYS
from refcut_backend.errors import BadRequestError, ConfigError, RefCutError
from refcut_backend.label_studio.project_ids import project_name
from refcut_backend.playground.trial import Trial
from refcut_backend.references.manage import LabelReferences, ReferenceManager, ReferenceRow
from refcut_backend.references.pictures import Size
from refcut_backend.references.selection import IN_USE, Action, OwnerRule, ReferenceSelector, State
from refcut_backend.references.sets import ExportedSet, ImportedSet
from refcut_backend.wiring import Wiring
from refcut_backend.worth.figures import ReferenceFigures, best_to_show

READING_THREADS = 2
"""Pages are read by few people; a click waits for none of these threads."""
DRAWING_THREADS = 2
"""A large photograph takes up to REFCUT_IMAGE_MAX_MEMORY_BYTES to decode, so few are decoded at once."""
SET_THREADS = 1
MAX_SET_CHARS = 60 * 2**20
"""Of base64."""
SHOWN_PER_LABEL = 8
SHOWN_OF_ONE_LABEL = 200
Label = Annotated[str, Field(min_length=1, max_length=500)]
Id = Annotated[int, Field(gt=-(2**62), lt=2**53)]
RowId = Annotated[int, Path(gt=0, lt=2**53)]
R = TypeVar("R")


class Change(BaseModel):
    """A change of a label's references: which ones, as in `ReferenceSelector`; for "move" also the new place."""

    action: Literal["pin", "unpin", "disable", "enable", "add", "remove", "move", "newest_first"]
    label: Label
    task: Id | None = None
    annotation: Id | None = None
    place: Annotated[int, Field(gt=0, lt=2**31)] | None = None

    @property
    def selector(self) -> ReferenceSelector:
        """The references that are meant."""
        return ReferenceSelector(self.label, self.task or None, self.annotation or None)


class WantedTrial(BaseModel):
    """A task to try the references of a label on."""

    label: Label
    task: Id


class NewSet(BaseModel):
    """A set of references for the project: a file, or those that another project uses."""

    data: Annotated[str, Field(max_length=MAX_SET_CHARS)] | None = None
    from_project: Annotated[str, Field(max_length=40)] | None = None


CHANGES: dict[str, Callable[[ReferenceManager, int, ReferenceSelector], object]] = {
    "pin": ReferenceManager.pin,
    "unpin": ReferenceManager.unpin,
    "disable": ReferenceManager.disable,
    "enable": ReferenceManager.enable,
    "add": ReferenceManager.add,
    "remove": ReferenceManager.remove,
}


@dataclass(frozen=True)
class Card:
    """A reference as the page shows it.

    Attributes:
        row: The reference.
        uses: Clicks of the last days that used it.
        task_page: Its task in Label Studio; empty if the address is not known.
        worth: What it was worth when it was measured; None if it was not.
        is_of_other_model: Whether another version of the model serves than the one that it was measured with.
    """

    row: ReferenceRow
    uses: int
    task_page: str
    worth: ReferenceFigures | None = None
    is_of_other_model: bool = False

    @property
    def is_in_use(self) -> bool:
        """Whether clicks use it, if its photograph can be read."""
        return self.row.state in IN_USE

    @property
    def is_pinned(self) -> bool:
        """Whether the owner has pinned it."""
        return self.row.state is State.PINNED

    @property
    def is_disabled(self) -> bool:
        """Whether the owner has disabled it."""
        return self.row.state is State.DISABLED

    @property
    def can_move(self) -> bool:
        """Whether it has a place in the order of use."""
        return self.row.place is not None

    @property
    def author(self) -> str:
        """Who saved the annotation last."""
        author = self.row.candidate.author
        return author.email or ("unknown" if author.id is None else f"user {author.id}")

    @property
    def saved_at(self) -> str:
        """When, to the minute."""
        return self.row.candidate.annotated_at[:16].replace("T", " ")


@dataclass(frozen=True)
class LabelCard:
    """A label as the page shows it."""

    found: LabelReferences
    cards: tuple[Card, ...]
    is_disabled: bool

    @property
    def hidden(self) -> int:
        """Number of references that the page leaves out."""
        return self.found.total - len(self.cards)


class ReferencesPage:
    """Reads what the page shows."""

    def __init__(self, wiring: Wiring) -> None:
        self._wiring = wiring

    def project(self, name: str) -> tuple[int, ShownProject]:
        """The project that an address names. Raises ConfigError if there is none."""
        known = find_project(self._wiring.projects, name)
        return known.project_id, shown_project(known)

    def values(self, name: str, label: str | None) -> dict[str, Any]:
        """What the template shows.

        Args:
            name: The project, as in the address.
            label: Show all references of this label only.

        Raises:
            ConfigError: There is no such project.
        """
        project_id, project = self.project(name)
        manager = self._wiring.reference_manager
        uses = self._wiring.reference_uses(project_id)
        disabled = {
            rule.label
            for rule in self._wiring.references.rules.of_project(project_id)
            if rule == OwnerRule(Action.DISABLE, rule.label)
        }
        worth = self._wiring.reference_worths.store.of_project(project_id)
        serving = self._wiring.versions.of(project_id)
        most = SHOWN_PER_LABEL if label is None else SHOWN_OF_ONE_LABEL
        labels = [
            LabelCard(
                found,
                tuple(
                    Card(
                        row,
                        uses.get(row.candidate.version, 0),
                        f"{project.label_studio}data?task={row.candidate.task_id}"
                        if project.label_studio and not row.candidate.is_from_set
                        else "",
                        figures := best_to_show(worth.get((found.label, row.candidate.version), ()), serving),
                        figures is not None and figures.model_version not in ("", serving),
                    )
                    for row in found.rows
                ),
                found.label in disabled,
            )
            for found in manager.by_label(project_id, label, most)
        ]
        return {
            "project": project,
            "subpage": "references",
            "only_label": label,
            "labels": [one for one in labels if one.found.total],
            "without": [one.found.label for one in labels if not one.found.total],
            "uses_days": USES_DAYS,
            "other_projects": [
                project_name(known.project_id)
                for known in self._wiring.projects.all()
                if known.project_id != project_id
            ],
            "rules_without_reference": manager.rules_without_reference(project_id),
        }

    def change(self, name: str, change: Change) -> None:
        """Applies a change. Raises RefCutError if it cannot be."""
        project_id, _ = self.project(name)
        if change.action == "add" and not change.task:
            raise BadRequestError("a reference is added by its task", hint="enter the task's number")
        manager = self._wiring.reference_manager
        if change.action == "move":
            if change.place is None:
                raise BadRequestError("a reference is moved to a place", hint="send `place`, from 1 on")
            manager.move(project_id, change.selector, change.place)
        elif change.action == "newest_first":
            manager.newest_first(project_id, change.label)
        else:
            CHANGES[change.action](manager, project_id, change.selector)

    def export(self, name: str) -> ExportedSet:
        """The set of the project. Raises RefCutError."""
        project_id, _ = self.project(name)
        return self._wiring.reference_sets.export(project_id)

    def import_(self, name: str, request: NewSet) -> ImportedSet:
        """Adds a set to the project. Raises RefCutError."""
        project_id, _ = self.project(name)
        if request.from_project is not None:
            other = find_project(self._wiring.projects, request.from_project)
            return self._wiring.reference_sets.copy(other.project_id, project_id)
        if request.data is None:
            raise BadRequestError("there is no set in the request", hint="send `data` or `from_project`")
        return self._wiring.reference_sets.import_(project_id, decoded(request.data))

    def authors(self, name: str) -> dict[int, str]:
        """E-mail addresses of the users who gave references, as far as Label Studio tells them. Raises RefCutError."""
        project_id, _ = self.project(name)
        found = {
            user_id: self._wiring.email_of(project_id, user_id)
            for user_id in self._wiring.references.authors_without_email(project_id)
        }
        return {user_id: email for user_id, email in found.items() if email is not None}

    def try_on(self, name: str, wanted: WantedTrial) -> Trial:
        """Puts a task and the references of a label on the playground. Raises RefCutError."""
        project_id, _ = self.project(name)
        return self._wiring.trials.prepare(project_id, wanted.label, wanted.task)

    def picture(self, name: str, reference_id: int, size: Size) -> bytes:
        """The JPEG file of a reference. Raises RefCutError."""
        project_id, _ = self.project(name)
        return self._wiring.reference_pictures.jpeg(project_id, reference_id, size)


def references_routes(wiring: Wiring, bodies: JsonReader) -> APIRouter:
    """The routes of the page.

    Args:
        wiring: Its references are shown and changed.
        bodies: Reads the requests.
    """
    router = APIRouter(prefix="/projects/{project}/references")
    reading, drawing = CapacityLimiter(READING_THREADS), CapacityLimiter(DRAWING_THREADS)
    sets = CapacityLimiter(SET_THREADS)
    shown = ReferencesPage(wiring)

    async def answered(
        work: Callable[..., R],
        *arguments: object,
        limiter: CapacityLimiter,
        show: Callable[[R], Response] = JSONResponse,
    ) -> Response:
        try:
            return show(await run_sync(work, *arguments, limiter=limiter))
        except RefCutError as error:
            return refusal(error)

    @router.api_route("", methods=["GET", "HEAD"])
    async def references(project: str, label: str | None = None) -> Response:
        try:
            values = await run_sync(shown.values, project, label, limiter=reading)
        except ConfigError as error:
            return problem_page(error)
        return page("references.html", "projects", **values)

    @router.get("/{reference_id}/picture")
    async def picture(project: str, reference_id: RowId, large: bool = False) -> Response:
        return await answered(
            shown.picture,
            project,
            reference_id,
            Size.LARGE if large else Size.SMALL,
            limiter=drawing,
            show=lambda data: Response(data, media_type="image/jpeg"),
        )

    @router.get("/authors")
    async def authors(project: str) -> Response:
        # Apart from the page, which must not wait for Label Studio.
        return await answered(shown.authors, project, limiter=reading)

    @router.post("/trial")
    async def trial(project: str, http: Request) -> Response:
        wanted = await bodies.read(WantedTrial, http)
        return await answered(
            shown.try_on,
            project,
            wanted,
            limiter=drawing,
            show=lambda found: JSONResponse(_shown_trial(found, wanted.label)),
        )

    @router.get("/set")
    async def export(project: str) -> Response:
        return await answered(
            shown.export,
            project,
            limiter=sets,
            show=lambda found: Response(found.data, media_type="application/zip"),
        )

    @router.post("/set")
    async def add_set(project: str, http: Request) -> Response:
        return await answered(
            shown.import_,
            project,
            await bodies.read(NewSet, http),
            limiter=sets,
            show=lambda found: JSONResponse({"text": str(found)}),
        )

    @router.post("/change")
    async def change(project: str, http: Request) -> Response:
        return await answered(
            shown.change,
            project,
            await bodies.read(Change, http),
            limiter=reading,
            show=lambda _: JSONResponse({}),
        )

    return router


def _shown_trial(trial: Trial, label: str) -> dict[str, Any]:
    return {
        "image": trial.image_key,
        "name": trial.image_name,
        "label": label,
        "references": [
            {
                "reference": one.name,
                "image": one.image_key,
                "name": one.image_name,
                "outline": base64.b64encode(one.outline_png).decode(),
            }
            for one in trial.references
        ],
    }
