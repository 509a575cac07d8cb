"""What a run is given beside its clicks: which reference, how many, how good, and how steady the hand is."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, get_args

ReferenceKind = Literal["right", "none", "positive", "negative", "wrong"]

MODE_GROUPS: dict[str, tuple[str, ...]] = {
    "table3": ("right", "none", "positive", "negative"),
    "references": ("right", "right+refs2", "right+refs4"),
    "figure5": (
        *(f"right+polygon{vertices}" for vertices in (32, 16, 8, 4)),
        *(f"right+scale{scale}" for scale in ("0.75", "0.5", "0.35", "0.25")),
    ),
    "hand": ("right+jitter", "none+jitter"),
}
MODE_GROUPS["all"] = tuple(
    dict.fromkeys(
        name
        for group in ("table3", "references", "figure5", "hand")
        for name in (*MODE_GROUPS[group], "wrong")
    )
)


@dataclass(frozen=True)
class Mode:
    """One way of running a sample.

    reference: "right" is the paper's (both masks); "positive" and "negative" leave the other mask out; "wrong" shows
        other parts of the reference object than those meant; "none" is clicks alone.
    references: how many are joined (fewer where the set has fewer).
    polygon_vertices: reference masks redrawn as polygons with at most so many corners a piece; None = as they are.
    scale: reference photographs shrunk by this factor onto a plain ground of the old size.
    jitter: clicks fall beside the middle of the error, as people's do.
    """

    name: str
    reference: ReferenceKind
    references: int = 1
    polygon_vertices: int | None = None
    scale: float = 1.0
    jitter: bool = False

    @classmethod
    def parse(cls, text: str) -> Mode:
        """A mode from its name: a reference kind, then `+refsN`, `+polygonN`, `+scaleF`, `+jitter` in any number.

        Raises ValueError for another name or a value out of range.
        """
        kind, *changes = text.split("+")
        if kind not in get_args(ReferenceKind):
            raise ValueError(
                f"unknown mode {text!r}: it must start with one of {', '.join(get_args(ReferenceKind))}"
            )
        given = dict(_parse_change(text, change) for change in changes)
        references, vertices = int(given.get("refs", 1)), given.get("polygon")
        scale = given.get("scale", 1.0)
        if not 0 < scale <= 1 or references < 1 or (vertices is not None and vertices < 4):
            raise ValueError(f"mode {text!r}: refs from 1, polygon from 4, scale in (0, 1]")
        if kind == "none" and set(given) - {"jitter"}:
            raise ValueError(f"mode {text!r}: without a reference there is nothing to change about it")
        return cls(
            name=text,
            reference=kind,  # type: ignore[arg-type]
            references=references,
            polygon_vertices=None if vertices is None else int(vertices),
            scale=scale,
            jitter="jitter" in given,
        )


def parse_modes(names: list[str]) -> list[Mode]:
    """Modes from names and names of groups (`MODE_GROUPS`), each once."""
    spelled = dict.fromkeys(name for text in names for name in MODE_GROUPS.get(text, (text,)))
    return [Mode.parse(name) for name in spelled]


def _parse_change(mode: str, change: str) -> tuple[str, float]:
    if change == "jitter":
        return change, 1.0
    found = re.fullmatch(r"(refs|polygon)(\d+)|(scale)(\d*\.?\d+)", change)
    if found is None:
        raise ValueError(f"mode {mode!r}: unknown change {change!r} (refsN, polygonN, scaleF, jitter)")
    return found[1] or found[3], float(found[2] or found[4])
