"""What a project's label config offers: where clicks come from, where masks go, and who says "Reference"."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal
from xml.etree import ElementTree

from label_studio_sdk._extensions.label_studio_tools.core.label_config import parse_config

from refcut_backend.errors import LabelConfigError

REFERENCE_CHOICE = "Reference"
NEGATIVE_REFERENCE_CHOICE = "Negative reference"
REGION_TAGS = ("brushlabels", "polygonlabels", "rectanglelabels")
CONFIG_HINT = "use label_config/clicks_brush.xml as a pattern"
NEGATIVE_LABELS = frozenset({"negative", "background"})

MaskKind = Literal["brush", "polygon", "rectangle"]
MASK_KINDS: tuple[MaskKind, ...] = ("brush", "polygon", "rectangle")
TAGS: dict[MaskKind, str] = {
    "brush": "BrushLabels",
    "polygon": "PolygonLabels",
    "rectangle": "RectangleLabels",
}
KNOWN_CONFIGS = 64


@dataclass(frozen=True)
class Control:
    """One control tag of the label config: its name, the image tag it draws on, and its labels.

    kind: "click" or a MaskKind. smart: the attribute as written, lower case.
    """

    name: str
    to_name: str
    image_field: str
    labels: frozenset[str]
    kind: str
    smart: str


@dataclass(frozen=True)
class ProjectControls:
    """The controls that matter here.

    clicks: KeyPointLabels. boxes: RectangleLabels with smart="true". masks: what takes masks, in the order of MASK_KINDS.
    roles: names of per-region Choices that offer "Reference". regions: whatever a reference can be drawn with:
    BrushLabels, PolygonLabels, RectangleLabels.
    """

    clicks: tuple[Control, ...]
    masks: tuple[Control, ...]
    boxes: tuple[Control, ...]
    roles: frozenset[str]
    regions: tuple[Control, ...] = ()

    @property
    def region_labels(self) -> frozenset[str]:
        """All labels that a reference can have."""
        return frozenset(label for control in self.regions for label in control.labels)

    def region_control(self, label: str, to_name: str) -> Control | None:
        """A control that draws regions of a label on an image; None when the label is not in the config."""
        return next((c for c in self.regions if label in c.labels and c.to_name == to_name), None)

    def mask_control(self, label: str, to_name: str, prefer: MaskKind = "brush") -> Control:
        """The control that takes masks of a label on an image. Raises LabelConfigError when there is none.

        prefer: the kind to take when there are several; the others follow in the order brush, polygon, rectangle.
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
        """Whether dots of a label take away from whatever object was clicked last: it is called "Negative" or
        "Background", and nothing takes masks of it."""
        return label.strip().lower() in NEGATIVE_LABELS and not any(
            label in control.labels for control in self.masks if control.to_name == to_name
        )


@lru_cache(maxsize=KNOWN_CONFIGS)
def read_label_config(xml: str) -> ProjectControls:
    """Controls of a label config. Raises LabelConfigError when it is no label config."""
    try:
        parsed = parse_config(xml)
        smart = _smart_attributes(xml) if parsed else {}
    except Exception as error:  # the SDK raises several unrelated types for malformed configs
        raise LabelConfigError(
            f"the label config cannot be parsed ({type(error).__name__})", hint=CONFIG_HINT
        ) from None
    brushes, polygons, rectangles = (_controls(parsed, smart, kind, TAGS[kind]) for kind in MASK_KINDS)
    return ProjectControls(
        clicks=_controls(parsed, smart, "click", "KeyPointLabels"),
        boxes=tuple(control for control in rectangles if control.smart == "true"),
        masks=(*brushes, *polygons, *(control for control in rectangles if control.smart != "true")),
        roles=frozenset(
            name
            for name, tag in parsed.items()
            if tag["type"].lower() == "choices" and REFERENCE_CHOICE in tag["labels"]
        ),
        regions=(*brushes, *polygons, *rectangles),
    )


def problems(controls: ProjectControls) -> list[str]:
    """What a project's owner should mend, one sentence each; empty when clicks can work."""
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
        taken = any(label in m.labels for m in controls.masks if m.to_name == control.to_name)
        if not taken and not controls.is_negative_label(label, control.to_name):
            yield label


def _smart_attributes(xml: str) -> dict[str, str]:
    """Name of each tag to what it says about being smart: the SDK's parser leaves that out."""
    return {tag.get("name", ""): tag.get("smart", "").lower() for tag in ElementTree.fromstring(xml).iter()}


def _too_smart(control: Control) -> str:
    """Label Studio takes every region control for smart unless it says "false"."""
    return f"'{control.name}' lacks smart=\"false\": Label Studio makes it a smart tool, and Auto-Detect begins with it"


def _controls(parsed: dict[str, Any], smart: dict[str, str], kind: str, tag_name: str) -> tuple[Control, ...]:
    return tuple(
        Control(
            name,
            to_name,
            str(source.get("value", "")),
            frozenset(tag["labels"]),
            kind,
            smart.get(name, ""),
        )
        for name, tag in parsed.items()
        if tag["type"].lower() == tag_name.lower()
        for to_name, source in zip(tag["to_name"], tag["inputs"], strict=False)
        if source["type"] == "Image"
    )
