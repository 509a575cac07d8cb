"""Masks with two labels: finds them, and takes the second label away.

When a suggestion is accepted, Label Studio adds the label that is chosen at that moment. With "Keep label selected" and
Auto-Accept every mask gets its click's label twice, and a mask that was stepped gets the label Smaller or Larger. Label
Studio 1.23 does so with every kind of region, so no label config and no answer prevents it. The second label is an item
of its own in the annotation, with the mask's id and the click tool's name: the mask's own label is never in doubt.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from sqlalchemy import Engine, select

from refcut_backend.database.projects import Projects
from refcut_backend.database.tables import AnnotationState
from refcut_backend.errors import BadMaskError
from refcut_backend.label_studio.label_config import ProjectControls, read_label_config
from refcut_backend.label_studio.payloads import Timestamp
from refcut_backend.label_studio.regions import check_result, second_labels
from refcut_backend.label_studio.tasks import ApiAnnotations, GoneError, UnreadableError, open_source


@dataclass(frozen=True)
class TwiceLabelled:
    """An annotation of which masks have a second label.

    Attributes:
        task_id: Its task.
        annotation_id: The annotation.
        masks: Number of such masks.
    """

    task_id: int | None
    annotation_id: int
    masks: int


def twice_labelled(engine: Engine, project_id: int) -> list[TwiceLabelled]:
    """Returns the annotations of a project whose masks have second labels, as webhooks and comparisons showed them."""
    query = (
        select(AnnotationState.task_id, AnnotationState.annotation_id, AnnotationState.second_labels)
        .where(AnnotationState.project_id == project_id, AnnotationState.second_labels > 0)
        .order_by(AnnotationState.annotation_id)
    )
    with engine.connect() as connection:
        rows = connection.execute(query)
        return [TwiceLabelled(task_id, annotation_id, masks or 0) for task_id, annotation_id, masks in rows]


@dataclass
class RepairSummary:
    """What a repair did.

    Attributes:
        repaired: Annotations that were changed, or would be.
        problems: What could not be read, one sentence each.
    """

    repaired: list[TwiceLabelled] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def remove_second_labels(projects: Projects, project_id: int, *, change: bool = True) -> RepairSummary:
    """Takes second labels from the masks of all submitted annotations of a project.

    Label Studio announces every change with a webhook, which brings the stored state up to date.

    Args:
        projects: Address, token and label config of the projects.
        project_id: The project.
        change: False finds the masks and changes nothing.

    Raises:
        RefCutError: The project is unknown, its label config cannot be parsed, or Label Studio cannot be read.
    """
    label_config = projects.label_config(project_id) or ""
    read_label_config(label_config)
    source = open_source(project_id, projects.connection(project_id))
    summary = RepairSummary()
    try:
        for part in source.annotated_since(Timestamp()):
            for task in part:
                controls = read_label_config(label_config, task.data)
                try:
                    summary.repaired += _repair_task(source, task.id, controls, summary, change=change)
                except GoneError:
                    continue
                except UnreadableError as error:
                    summary.problems.append(f"task {task.id}: {error}")
    finally:
        source.close()
    return summary


def _repair_task(
    source: ApiAnnotations, task_id: int, controls: ProjectControls, summary: RepairSummary, *, change: bool
) -> Iterator[TwiceLabelled]:
    for annotation in source.annotations(task_id):
        try:
            check_result(annotation.result)
        except BadMaskError as error:
            summary.problems.append(f"task {task_id}, annotation {annotation.id}: {error}")
            continue
        second = second_labels(annotation.result, controls)
        if not second:
            continue
        if change:
            kept = [item for item in annotation.result if not any(item is one for one in second)]
            source.replace_result(annotation.id, kept)
        yield TwiceLabelled(task_id, annotation.id, len(second))
