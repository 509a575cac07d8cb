"""The demo's two projects: photographs, labels, and which masks say what a label means."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model.data.scenes import Scene, read_scenes
from refcut_backend.demo.label_studio_project import BrushRegion, LabelStudioProject
from refcut_backend.errors import ConfigError
from refcut_backend.label_studio.label_config import REFERENCE_CHOICE

REPOSITORY = Path(__file__).parents[2]
PHOTOGRAPHS = REPOSITORY / "label_studio_demo"
PARTS_FILE = PHOTOGRAPHS / "parts.json"


@dataclass(frozen=True)
class DemoProject:
    """label_parts: label to the parts of the photograph `reference` whose union is the label's reference."""

    title: str
    config_path: Path
    photographs: str
    reference: str
    label_parts: dict[str, tuple[str, ...]]

    def photograph_paths(self) -> list[Path]:
        """The photographs in the order of their tasks, the one with the references first."""
        found = sorted(PHOTOGRAPHS.glob(self.photographs), key=lambda path: path.stem != self.reference)
        if not found:
            raise ConfigError(
                f"{PHOTOGRAPHS} has no photographs", hint="the demo needs a checkout of the repository"
            )
        return found

    def reference_regions(self) -> list[BrushRegion]:
        """What the lead marked on the first photograph: a region a label, each its label's reference."""
        return [
            BrushRegion(f"demo-{label.lower()}", label, self._mask(parts), REFERENCE_CHOICE)
            for label, parts in self.label_parts.items()
        ]

    def _mask(self, parts: tuple[str, ...]) -> NDArray[np.bool_]:
        masks = np.stack([demo_mask(self.reference, part) for part in parts])
        return np.asarray(masks.any(axis=0))


DEMO_PROJECTS = (
    DemoProject(
        title="RefCut demo: cars",
        config_path=REPOSITORY / "label_config" / "clicks_brush.xml",
        photographs="car_parts_*.jpg",
        reference="car_parts_car118",
        label_parts={
            "Door": ("front_door", "back_door"),
            "Wheel": ("wheel",),
            "Hood": ("hood",),
            "Light": ("front_light",),
        },
    ),
    DemoProject(
        title="RefCut demo: clothes",
        config_path=PHOTOGRAPHS / "clothes.xml",
        photographs="ccp_*.jpg",
        reference="ccp_0235",
        label_parts={
            name.capitalize(): (name,) for name in ("bag", "coat", "dress", "hair", "shoes", "skin")
        },
    ),
)


def demo_mask(photograph: str, part: str) -> NDArray[np.bool_]:
    """The mask (H, W) of a part on a demo photograph (named without its ending). Raises ConfigError without it."""
    try:
        scene = next(scene for scene in _scenes() if scene.image_path.stem == photograph)
        return scene.masks()[part]
    except (StopIteration, KeyError):
        raise ConfigError(
            f"{PARTS_FILE} has no {part} of {photograph}", hint="use a checkout as it is"
        ) from None


@cache
def _scenes() -> list[Scene]:
    return read_scenes(PARTS_FILE, PHOTOGRAPHS, grouping="object")


def make_demo_projects(label_studio: str, token: str, backend: str) -> dict[str, int]:
    """Makes the demo projects that are not there yet, attached to the backend; title to project id.

    The backend is attached before the references are submitted: it hears of them by webhook.
    """
    there = LabelStudioProject.titled(label_studio, token)
    for demo in DEMO_PROJECTS:
        if demo.title not in there:
            there[demo.title] = _make(demo, label_studio, token, backend)
        else:
            _attach(label_studio, there[demo.title], token, backend)
    return {demo.title: there[demo.title] for demo in DEMO_PROJECTS}


def _make(demo: DemoProject, label_studio: str, token: str, backend: str) -> int:
    project = LabelStudioProject.create(label_studio, demo.title, demo.config_path.read_text(), token)
    with closing(project):
        first, *_ = project.upload_images(demo.photograph_paths())
        project.connect_backend(backend)
        project.annotate(first, demo.reference_regions())
        return project.id


def _attach(label_studio: str, project_id: int, token: str, backend: str) -> None:
    with closing(LabelStudioProject(label_studio, project_id, token)) as project:
        if backend not in project.backends():
            project.connect_backend(backend)
