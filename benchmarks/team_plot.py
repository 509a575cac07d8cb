"""The picture of a simulated team: clicks per mask and first-click IoU, version by version."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

TITLES = {"noc85": "Clicks per mask (NoC@85)", "first_click_iou": "IoU of the first click"}


def draw(path: Path, found: dict[str, Any]) -> None:
    """found: what benchmarks.simulated_team keeps in results.json."""
    figure = Figure(figsize=(9, 4.1), layout="constrained")
    for axes, (name, title) in zip(figure.subplots(1, 2), TITLES.items(), strict=True):
        _draw_one(axes, name, title, found["versions"])
    lines, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(lines, labels, loc="outside lower center", ncols=len(labels), fontsize=8)
    figure.savefig(path, dpi=120)


def _draw_one(axes: Axes, name: str, title: str, versions: list[dict[str, Any]]) -> None:
    images = [version["images"] for version in versions]
    for label in sorted(versions[0]["fresh"]["by_label"]):
        values = [version["fresh"]["by_label"][label][name] for version in versions]
        axes.plot(images, values, linewidth=1, alpha=0.7, label=label)
    axes.plot(images, [version["fresh"][name] for version in versions], "o-", color="black", label="mean")
    axes.set(title=title, xlabel="annotated photographs", ylim=(0, None))
    axes.grid(alpha=0.3)
