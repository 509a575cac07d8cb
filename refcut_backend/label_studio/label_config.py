"""Reads a project's label config: the controls that give clicks and boxes, take masks, and mark references.

label-studio-sdk's `LabelInterface` parses the XML.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from cachetools import LRUCache, cached

from refcut_backend.errors import LabelConfigError
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
KNOWN_BYTES = 4 * 2**20
"""Memory for configs that were read, about."""


@dataclass(frozen=True)
class Control:
    """A control tag of the label config, on one image tag.

    Attributes:
        name: Name of the tag (`from_name` in results).
        to_name: Name of the image tag that it draws on.
        image_field: Key of the image's address in a task's data.
        labels: Labels of the tag.
        kind: "click" or a MaskKind.
        smart: The tag's attribute `smart` in lower case; empty if it has none.
    """

    name: str
    to_name: str
    image_field: str
    labels: frozenset[str]
    kind: str
    smart: str


@dataclass(frozen=True)
class ProjectControls:
    """The controls of a label config that RefCut uses.

    Attributes:
        clicks: KeyPointLabels.
        masks: Controls that take masks, in the order of MASK_KINDS.
        boxes: RectangleLabels with smart="true", which give boxes as prompts.
        roles: Names of Choices that offer "Reference".
        regions: Controls that a reference can be drawn with: BrushLabels, PolygonLabels, RectangleLabels.
    """

    clicks: tuple[Control, ...]
    masks: tuple[Control, ...]
    boxes: tuple[Control, ...]
    roles: frozenset[str]
    regions: tuple[Control, ...] = ()

    @property
    def region_labels(self) -> frozenset[str]:
        """Labels that a reference can have."""
        return frozenset(label for control in self.regions for label in control.labels)

    def region_control(self, label: str, to_name: str) -> Control | None:
        """Returns a control that draws regions of a label on an image tag; None if the config has none."""
        return next((c for c in self.regions if label in c.labels and c.to_name == to_name), None)

    def mask_control(self, label: str, to_name: str, prefer: MaskKind = "brush") -> Control:
        """Returns the control that takes masks of a label.

        Args:
            label: The label.
            to_name: Name of the image tag.
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


def read_label_config(xml: str) -> ProjectControls:
    """Parses a label config (XML). Empty text is a config without controls.

    Raises:
        LabelConfigError: The text is not a label config, or is too long.
    """
    if len(xml) > MAX_CONFIG_CHARS:
        raise LabelConfigError(f"the label config is longer than {MAX_CONFIG_CHARS} characters")
    return _parsed(xml)


def _digest(xml: str) -> bytes:
    """The text itself as key would keep it in memory."""
    return hashlib.sha256(xml.encode(errors="surrogatepass")).digest()


def _size(controls: ProjectControls) -> int:
    """Memory that parsed controls take, in bytes, about."""
    every = (*controls.clicks, *controls.masks, *controls.boxes, *controls.regions)
    return 2000 + sum(150 + len(label) for control in every for label in control.labels)


@cached(LRUCache(KNOWN_BYTES, getsizeof=_size), key=_digest, lock=threading.Lock())
def _parsed(xml: str) -> ProjectControls:
    # Takes half a second to import: `api/app.py` does that at the start, other processes only if they get here.
    from label_studio_sdk.label_interface import LabelInterface

    try:
        tags = list(LabelInterface(xml).controls) if xml else []
    except Exception as error:  # the SDK raises several unrelated types for malformed configs
        raise LabelConfigError(
            f"the label config cannot be parsed ({type(error).__name__})", hint=CONFIG_HINT
        ) from None
    brushes, polygons, rectangles = (_controls(tags, kind, TAGS[kind]) for kind in MASK_KINDS)
    return ProjectControls(
        clicks=_controls(tags, "click", "KeyPointLabels"),
        boxes=tuple(control for control in rectangles if control.smart == "true"),
        masks=(*brushes, *polygons, *(control for control in rectangles if control.smart != "true")),
        roles=frozenset(
            tag.name for tag in tags if tag.tag.lower() == "choices" and REFERENCE_CHOICE in tag.labels
        ),
        regions=(*brushes, *polygons, *rectangles),
    )


def label_order(xml: str) -> list[str]:
    """Returns the labels that regions can have, in the order of the label config. Raises LabelConfigError."""
    from label_studio_sdk.label_interface import LabelInterface

    known = read_label_config(xml).region_labels
    tags = LabelInterface(xml).controls if known else []
    return list(dict.fromkeys(label for tag in tags for label in tag.labels if label in known))


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
        missing = sorted(_without_masks(control, controls))
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


def _controls(tags: Iterable[Any], kind: str, tag_name: str) -> tuple[Control, ...]:
    """The tags of one name, once per image tag that they draw on."""
    return tuple(
        Control(
            name=tag.name,
            to_name=image.name,
            image_field=str(image.value or "").lstrip("$"),
            labels=frozenset(tag.labels),
            kind=kind,
            smart=str(tag.attr.get("smart", "")).lower(),
        )
        for tag in tags
        if tag.tag.lower() == tag_name.lower()
        for image in tag.objects
        if image.tag == "Image"
    )
