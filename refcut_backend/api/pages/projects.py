"""The page with all projects, and how the address of a page names a project."""

from __future__ import annotations

from dataclasses import dataclass

from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from fastapi import APIRouter
from fastapi.responses import HTMLResponse, Response

from refcut_backend.api.pages.files import ShownProject, page
from refcut_backend.database.project_identity import KnownProject, shown_time
from refcut_backend.database.projects import Projects
from refcut_backend.errors import ConfigError, RefCutError
from refcut_backend.label_studio.project_ids import number_of
from refcut_backend.references.registry import ReferenceCounts, References

THREADS = 4
"""Pages are read by few people; clicks have threads of their own."""
NO_REFERENCES = ReferenceCounts(0, 0, 0)


def find_project(projects: Projects, name: str) -> KnownProject:
    """Returns the project that a page's address names: "7", or "7#2" for the second project 7.

    Raises:
        ConfigError: There is no such project.
    """
    project_id = projects.find(name)
    for known in projects.of_number(number_of(project_id)):
        if known.project_id == project_id:
            return known
    raise ConfigError(
        f"project {name[:100]} is not known",
        hint="open Settings > Model in Label Studio once, which tells this backend about the project",
    )


def shown_project(known: KnownProject) -> ShownProject:
    """The project as its pages show it."""
    return ShownProject.of(known.project_id, known.label_studio)


def problem_page(error: RefCutError, status_code: int = 404) -> HTMLResponse:
    """The page that is shown instead of one that cannot be."""
    title = error.message[:1].upper() + error.message[1:]
    return page("problem.html", "projects", status_code=status_code, title=title, hint=error.hint)


@dataclass(frozen=True)
class _Row:
    project: ShownProject
    label_studio: str
    created: str
    counts: ReferenceCounts


def projects_routes(projects: Projects, references: References) -> APIRouter:
    """The route of the page.

    Args:
        projects: All projects.
        references: Counted per project.
    """
    router = APIRouter()
    threads = CapacityLimiter(THREADS)

    def rows() -> list[_Row]:
        counts = references.counts()
        return [
            _Row(
                shown_project(known),
                known.label_studio,
                shown_time(known.created),
                counts.get(known.project_id, NO_REFERENCES),
            )
            for known in projects.all()
        ]

    @router.api_route("/projects", methods=["GET", "HEAD"])
    async def all_projects() -> Response:
        return page("projects.html", "projects", projects=await run_sync(rows, limiter=threads))

    return router
