"""Reads a project's label config: the controls that give clicks and boxes, take masks, and mark references.

`config_tags.py` reads the tags. Repeaters, image tags with several pages and labels from the task's data give every task
controls of its own, so a caller that has a task passes its data.
"""

from __future__ import annotations

import dataclasses
import hashlib
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from cachetools import LRUCache, cached

from refcut_backend.errors import LabelConfigError
from refcut_backend.label_studio.config_tags import (
    MAX_TAGS,
    REPEATER,
    Tag,
    TaskData,
    has_variable,
    read_tags,
    repeated,
    task_value,
)
from refcut_backend.label_studio.payloads import MAX_CONFIG_CHARS

REFERENCE_CHOICE = "Reference"
NEGATIVE_REFERENCE_CHOICE = "Negative reference"
CONFIG_HINT = "use label_config/clicks_brush.xml as a pattern"
NEGATIVE_LABELS = frozenset({"negative", "background"})
STEP_LABELS = {"smaller": -1, "larger": 1}
"""Labels that step the last object's mask, and by how much."""

MaskKind = Literal["brush", "polygon", "rectangle"]
MASK_KINDS: tuple[MaskKind, ...] = ("brush", "polygon", "rectangle")
TAGS: dict[MaskKind, str] = {
    "brush": "BrushLabels",
    "polygon": "PolygonLabels",
    "rectangle": "RectangleLabels",
}
MAX_PAGES = 10_000
"""Pages of one task."""
KNOWN_BYTES = 4 * 2**20
"""Memory for configs that were read, about."""


@dataclass(frozen=True)
class Control:
    """A control tag of the label config, on one image of a task.

    Attributes:
        name: Name of the tag (`from_name` in results).
        to_name: Name of the image that it draws on (`image_name`): the image tag, and the page if there are several.
        image_value: The image tag's `valueList` if it has one, or else its `value`, such as "$image".
        labels: Labels of the tag.
        kind: "click" or a MaskKind.
        smart: The tag's attribute `smart` in lower case; empty if it has none.
        page: Index of the page; None if the image tag has no pages.
        labels_from_task: Whether the task's data can add labels.
    """

    name: str
    to_name: str
    image_value: str
    labels: frozenset[str]
    kind: str
    smart: str
    page: int | None = None
    labels_from_task: bool = False

    @property
    def image_tag(self) -> str:
        """Name of the image tag (`to_name` in results)."""
        return self.to_name.removesuffix(f"[{self.page}]") if self.page else self.to_name

    def image_address(self, task_data: TaskData) -> Any:
        """Returns what stands in a task's data in the place of the image's address; None if nothing does."""
        found = task_value(self.image_value, task_data)
        if isinstance(found, list):
            found = found[self.page or 0] if (self.page or 0) < len(found) else None
        return found


def image_name(image_tag: str, page: int | None) -> str:
    """Returns the name of a task's image: that of its tag; for pages after the first, with the index.

    The editor numbers the pages of an image tag from 0, and a region without a number lies on page 0.

    >>> image_name("photo", None), image_name("photo", 2)
    ('photo', 'photo[2]')
    """
    return f"{image_tag}[{page}]" if page else image_tag


def image_of_item(item: dict[str, Any]) -> str:
    """Returns the name of the image that an item of a `result` lies on; for an impossible page, one that no image has."""
    page = item.get("item_index")
    known = min(max(page, 0), MAX_PAGES) if isinstance(page, int) else None
    return image_name(str(item.get("to_name", "")), known)


@dataclass(frozen=True)
class ProjectControls:
    """The controls of a label config that RefCut uses.

    Attributes:
        clicks: KeyPointLabels.
        masks: Controls that take masks, in the order of MASK_KINDS.
        boxes: RectangleLabels with smart="true", which give boxes as prompts.
        roles: Names of Choices that offer "Reference".
        regions: Controls that a reference can be drawn with: BrushLabels, PolygonLabels, RectangleLabels.
        labels_from_task: Whether labels are missing here, because they stand in the tasks' data and no task was given.
    """

    clicks: tuple[Control, ...]
    masks: tuple[Control, ...]
    boxes: tuple[Control, ...]
    roles: frozenset[str]
    regions: tuple[Control, ...] = ()
    labels_from_task: bool = False

    @property
    def region_labels(self) -> frozenset[str]:
        """Labels that a reference can have, without those that tasks add."""
        return frozenset(label for control in self.regions for label in control.labels)

    @property
    def clickable_labels(self) -> frozenset[str]:
        """Labels that can be clicked or boxed, and that a reference can have, without those that tasks add."""
        prompts = (*self.clicks, *self.boxes)
        return self.region_labels & {label for control in prompts for label in control.labels}

    @property
    def all_region_labels(self) -> frozenset[str] | None:
        """Labels that a reference can have; None if tasks add labels, and no task was given."""
        return None if self.labels_from_task else self.region_labels

    def region_control(self, label: str, to_name: str) -> Control | None:
        """Returns a control that draws regions of a label on an image; None if the config has none."""
        return next((c for c in self.regions if label in c.labels and c.to_name == to_name), None)

    def mask_control(self, label: str, to_name: str, prefer: MaskKind = "brush") -> Control:
        """Returns the control that takes masks of a label.

        Args:
            label: The label.
            to_name: Name of the image.
            prefer: Kind of control to prefer; the others follow in the order brush, polygon, rectangle.

        Raises:
            LabelConfigError: No control takes masks of the label on that image tag.
        """
        order = sorted(self.masks, key=lambda control: control.kind != prefer)
        for control in order:
            if label in control.labels and control.to_name == to_name:
                return control
        raise LabelConfigError(
            f"no BrushLabels, PolygonLabels or RectangleLabels on '{to_name}' has the label '{label}' that was clicked",
            hint=f"list the same labels there and in KeyPointLabels; {CONFIG_HINT}",
        )

    def is_negative_label(self, label: str, to_name: str) -> bool:
        """Whether clicks of a label are negative clicks on the object that was clicked last.

        A label is negative if it is called "Negative" or "Background" and no control takes masks of it.
        """
        return label.strip().lower() in NEGATIVE_LABELS and not self.takes_masks(label, to_name)

    def step_of(self, label: str, to_name: str) -> int:
        """Returns what a click of a label does to the extent of the object that was clicked last.

        Returns:
            1 for a label called "Larger", -1 for "Smaller", if no control takes masks of it; 0 for all other labels.
        """
        step = STEP_LABELS.get(label.strip().lower(), 0)
        return 0 if self.takes_masks(label, to_name) else step

    def takes_masks(self, label: str, to_name: str) -> bool:
        """Whether a control on an image tag takes masks of a label."""
        return any(label in control.labels for control in self.masks if control.to_name == to_name)


def read_label_config(xml: str, task_data: TaskData | None = None) -> ProjectControls:
    """Parses a label config (XML). Empty text is a config without controls.

    Args:
        xml: The label config.
        task_data: The task's `data`. Without it, labels from tasks are missing, a repeater counts as one item with its
            placeholder in the names, and every image tag as one page.

    Raises:
        LabelConfigError: The text is not a label config, or is too long.
    """
    if len(xml) > MAX_CONFIG_CHARS:
        raise LabelConfigError(f"the label config is longer than {MAX_CONFIG_CHARS} characters")
    read = _parsed(xml)
    if task_data is None:
        return read.controls
    of_task = read.controls if read.root is None else _controls(repeated(read.root, task_data), task_data)
    return _with_pages(of_task, task_data)


@dataclass(frozen=True)
class _ReadConfig:
    """A label config that was read. `root` is None if its tags are the same for all tasks."""

    controls: ProjectControls
    root: Tag | None


def _digest(xml: str) -> bytes:
    """The text itself as key would keep it in memory."""
    return hashlib.sha256(xml.encode(errors="surrogatepass")).digest()


def _size(read: _ReadConfig) -> int:
    """Memory that a config takes after it was read, in bytes, about."""
    controls = read.controls
    every = (*controls.clicks, *controls.masks, *controls.boxes, *controls.regions)
    tags = 0 if read.root is None else sum(500 for _ in read.root.inside())
    return 2000 + tags + sum(150 + len(label) for control in every for label in control.labels)


@cached(LRUCache(KNOWN_BYTES, getsizeof=_size), key=_digest, lock=threading.Lock())
def _parsed(xml: str) -> _ReadConfig:
    if not xml:
        return _ReadConfig(ProjectControls((), (), (), frozenset()), None)
    try:
        root = read_tags(xml)
    except LabelConfigError as error:
        raise LabelConfigError(error.message, hint=CONFIG_HINT) from None
    controls = _controls(root, None)
    varies = controls.labels_from_task or any(tag.kind == REPEATER for tag in root.inside())
    return _ReadConfig(controls, root if varies else None)


def _controls(root: Tag, task_data: TaskData | None) -> ProjectControls:
    tags = list(root.inside())
    brushes, polygons, rectangles = (_of_kind(tags, kind, TAGS[kind], task_data) for kind in MASK_KINDS)
    clicks = _of_kind(tags, "click", "KeyPointLabels", task_data)
    regions = (*brushes, *polygons, *rectangles)
    return ProjectControls(
        clicks=clicks,
        boxes=tuple(control for control in rectangles if control.smart == "true"),
        masks=(*brushes, *polygons, *(control for control in rectangles if control.smart != "true")),
        roles=frozenset(tag.get("name") for tag in tags if _is_role(tag)),
        regions=regions,
        labels_from_task=task_data is None
        and any(control.labels_from_task for control in (*clicks, *regions)),
    )


def _is_role(tag: Tag) -> bool:
    """Choices for the whole task say nothing about a region."""
    is_per_region = tag.kind == "choices" and tag.get("perregion") == "true"
    return is_per_region and REFERENCE_CHOICE in _values(tag, "choice", None)


def _of_kind(
    tags: Sequence[Tag], kind: str, tag_name: str, task_data: TaskData | None
) -> tuple[Control, ...]:
    """The control tags of one name, once per image tag that they draw on."""
    images = {tag.get("name"): tag for tag in tags if tag.kind == "image" and tag.get("name")}
    found = []
    for tag in tags:
        if tag.kind != tag_name.lower() or not tag.get("name"):
            continue
        labels = frozenset(_values(tag, "label", task_data))
        found += [
            Control(
                name=tag.get("name"),
                to_name=to_name,
                image_value=images[to_name].get("valuelist") or images[to_name].get("value"),
                labels=labels,
                kind=kind,
                smart=tag.get("smart").lower(),
                page=0 if "valuelist" in images[to_name].attributes else None,
                labels_from_task=has_variable(tag.get("value")),
            )
            for to_name in tag.get("toname").split(",")
            if to_name in images
        ]
    return tuple(found)


def _values(tag: Tag, kind: str, task_data: TaskData | None) -> list[str]:
    """The labels or choices inside of a control in their order: those of the config, then those of the task."""
    listed: list[Any] = [child.attributes for child in tag.inside() if child.kind == kind]
    from_task = task_value(tag.get("value"), task_data) if task_data is not None else None
    if isinstance(from_task, list):
        listed += [item for item in from_task if isinstance(item, dict)]
    values = (one.get("alias") or one.get("value") for one in listed)
    return list(dict.fromkeys(value for value in values if isinstance(value, str) and value))


def _with_pages(controls: ProjectControls, task_data: TaskData) -> ProjectControls:
    """The controls of a task, once per page of their image tags."""
    every = (*controls.clicks, *controls.regions)
    values = {control.image_value: task_value(control.image_value, task_data) for control in every}
    pages = {value: len(found) for value, found in values.items() if isinstance(found, list)}
    if not pages:
        return controls
    if max(pages.values()) > MAX_PAGES:
        raise LabelConfigError(f"the task has more than {MAX_PAGES} pages")
    if sum(pages.get(control.image_value, 1) for control in every) > MAX_TAGS:
        raise LabelConfigError(f"the pages of the task have more than {MAX_TAGS} controls")

    def each(of_kind: Iterable[Control]) -> Iterator[Control]:
        for control in of_kind:
            for page in range(pages.get(control.image_value, 1)):
                if control.image_value in pages:
                    yield dataclasses.replace(control, to_name=image_name(control.image_tag, page), page=page)
                else:
                    yield control

    return dataclasses.replace(
        controls,
        clicks=tuple(each(controls.clicks)),
        masks=tuple(each(controls.masks)),
        boxes=tuple(each(controls.boxes)),
        regions=tuple(each(controls.regions)),
    )


def label_order(xml: str) -> list[str]:
    """Returns the labels that regions can have, in the order of the label config. Raises LabelConfigError."""
    known = read_label_config(xml).region_labels
    tags = read_tags(xml).inside() if known else ()
    return list(
        dict.fromkeys(label for tag in tags for label in _values(tag, "label", None) if label in known)
    )


def problems(controls: ProjectControls) -> list[str]:
    """Returns what a project's owner should correct in the label config, one sentence each."""
    found = []
    if not controls.clicks and not controls.boxes:
        found.append("the label config has no KeyPointLabels: nobody can click")
    if not controls.masks:
        found.append(
            "the label config has no BrushLabels, PolygonLabels or RectangleLabels: masks have nowhere to go"
        )
    for control in (*controls.clicks, *controls.boxes):
        on_image = [mask for mask in controls.masks if mask.to_name == control.to_name]
        has_task_labels = any(mask.labels_from_task for mask in on_image)
        if controls.masks and control.labels_from_task and not has_task_labels:
            found.append(
                f"the labels of '{control.name}' come from the task's data, and no BrushLabels, PolygonLabels or"
                f" RectangleLabels on '{control.to_name}' takes its labels from there: give one the same `value`"
            )
        missing = [] if has_task_labels else sorted(_without_masks(control, controls))
        if controls.masks and missing:
            found.append(
                f"labels {missing} of '{control.name}' are in no BrushLabels, PolygonLabels or RectangleLabels"
                f" on '{control.to_name}'"
            )
    found += [_too_smart(control) for control in controls.masks if control.smart != "false"]
    if not controls.roles:
        found.append(
            "the label config has no per-region Choices with 'Reference': nobody can give a reference"
        )
    return found


def _without_masks(control: Control, controls: ProjectControls) -> Iterable[str]:
    for label in control.labels:
        where = label, control.to_name
        is_command = controls.is_negative_label(*where) or controls.step_of(*where)
        if not is_command and not controls.takes_masks(*where):
            yield label


def _too_smart(control: Control) -> str:
    """Label Studio treats every region control as smart unless its attribute is "false"."""
    return f"'{control.name}' lacks smart=\"false\": Label Studio makes it a smart tool, and Auto-Detect begins with it"
