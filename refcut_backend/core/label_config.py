"""What a project's label config offers: where clicks come from, where masks go, and who says "Reference"."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from label_studio_sdk._extensions.label_studio_tools.core.label_config import parse_config

from refcut_backend.errors import LabelConfigError

REFERENCE_CHOICE = "Reference"
NEGATIVE_REFERENCE_CHOICE = "Negative reference"
REGION_TAGS = ("brushlabels", "polygonlabels", "rectanglelabels")
CONFIG_HINT = "use label_config/clicks_brush.xml as a pattern"


@dataclass(frozen=True)
class Control:
    """One control tag of the label config: its name, the image tag it draws on, and its labels."""

    name: str
    to_name: str
    image_field: str
    labels: frozenset[str]


@dataclass(frozen=True)
class ProjectControls:
    """The controls that matter here.

    clicks: KeyPointLabels. masks: BrushLabels. roles: names of per-region Choices that offer "Reference".
    regions: whatever a reference can be drawn with: BrushLabels, PolygonLabels, RectangleLabels.
    """

    clicks: tuple[Control, ...]
    masks: tuple[Control, ...]
    roles: frozenset[str]
    regions: tuple[Control, ...] = ()

    @property
    def region_labels(self) -> frozenset[str]:
        """All labels that a reference can have."""
        return frozenset(label for control in self.regions for label in control.labels)

    def region_control(self, label: str, to_name: str) -> Control | None:
        """A control that draws regions of a label on an image; None when the label is not in the config."""
        return next((c for c in self.regions if label in c.labels and c.to_name == to_name), None)

    def mask_control(self, label: str, to_name: str) -> Control:
        """The brush that takes masks of a label on an image. Raises LabelConfigError when there is none."""
        for control in self.masks:
            if label in control.labels and control.to_name == to_name:
                return control
        raise LabelConfigError(
            f"no BrushLabels on '{to_name}' has the label '{label}' that was clicked",
            hint=f"list the same labels in BrushLabels and KeyPointLabels; {CONFIG_HINT}",
        )


def read_label_config(xml: str) -> ProjectControls:
    """Controls of a label config. Raises LabelConfigError when it is no label config."""
    try:
        parsed = parse_config(xml)
    except Exception as error:  # the SDK raises several unrelated types for malformed configs
        raise LabelConfigError(
            f"the label config cannot be parsed ({type(error).__name__})", hint=CONFIG_HINT
        ) from None
    return ProjectControls(
        clicks=_controls(parsed, "keypointlabels"),
        masks=_controls(parsed, "brushlabels"),
        roles=frozenset(
            name
            for name, tag in parsed.items()
            if tag["type"].lower() == "choices" and REFERENCE_CHOICE in tag["labels"]
        ),
        regions=tuple(c for kind in REGION_TAGS for c in _controls(parsed, kind)),
    )


def problems(controls: ProjectControls) -> list[str]:
    """What a project's owner should mend, one sentence each; empty when clicks can work."""
    found = []
    if not controls.clicks:
        found.append("the label config has no KeyPointLabels: nobody can click")
    if not controls.masks:
        found.append("the label config has no BrushLabels: masks have nowhere to go")
    for control in controls.clicks:
        taken = frozenset[str]().union(*(m.labels for m in controls.masks if m.to_name == control.to_name))
        missing = sorted(control.labels - taken)
        if controls.masks and missing:
            found.append(f"labels {missing} of '{control.name}' are in no BrushLabels on '{control.to_name}'")
    if not controls.roles:
        found.append(
            "the label config has no per-region Choices with 'Reference': nobody can give a reference"
        )
    return found


def _controls(parsed: dict[str, Any], kind: str) -> tuple[Control, ...]:
    return tuple(
        Control(name, to_name, str(source.get("value", "")), frozenset(tag["labels"]))
        for name, tag in parsed.items()
        if tag["type"].lower() == kind
        for to_name, source in zip(tag["to_name"], tag["inputs"], strict=False)
        if source["type"] == "Image"
    )
