"""Figures from records: IoU after some clicks, clicks to reach an IoU (NoC), in total and by kind of target."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from model.evaluation.records import Record
from model.evaluation.samples import KINDS

IOU_CLICKS = (1, 3, 5)
NOC_IOUS = (0.8, 0.85, 0.9)
GROUPS = ("total", *KINDS)


@dataclass(frozen=True)
class Cell:
    """One mode on one kind of target of one set.

    count: samples in the cell: those for which the mode had what it needs of references. unreferenced: the others.
    iou_after: clicks to mean IoU. clicks_to: IoU to mean number of clicks until it is reached, `max_clicks` where it
    never is; failed: how many never reach it. removed: mean share of the piece that a negative click takes away;
    None without any. Seconds are medians a click; None where there is none.
    """

    count: int
    unreferenced: int
    iou_after: dict[int, float]
    clicks_to: dict[float, float]
    failed: dict[float, int]
    removed: float | None
    first_click_s: float | None
    later_click_s: float | None


def clicks_needed(ious: Sequence[float], wanted: float, max_clicks: int) -> int:
    """Number of the first click after which the IoU is at least `wanted`; `max_clicks` if none is."""
    return next((place for place, iou in enumerate(ious, start=1) if iou >= wanted), max_clicks)


def iou_after(ious: Sequence[float], clicks: int) -> float:
    """IoU after so many clicks; a session that ended earlier keeps its last one."""
    return ious[min(clicks, len(ious)) - 1]


def summarise(records: Sequence[Record], max_clicks: int) -> dict[str, dict[str, dict[str, Cell]]]:
    """set name to mode to group (`GROUPS`) to its cell; sets, modes and groups without a record are left out."""
    table: dict[str, dict[str, dict[str, Cell]]] = {}
    for set_name, mode in dict.fromkeys((record.set_name, record.mode) for record in records):
        own = [record for record in records if (record.set_name, record.mode) == (set_name, mode)]
        for group in GROUPS:
            chosen = [record for record in own if group in ("total", record.kind)]
            if chosen:
                table.setdefault(set_name, {}).setdefault(mode, {})[group] = make_cell(chosen, max_clicks)
    return table


def make_cell(records: Sequence[Record], max_clicks: int) -> Cell:
    """The figures of at least one record."""
    referenced = [record for record in records if record.referenced]
    counted = referenced or list(records)
    clicks = [click for click in IOU_CLICKS if click <= max_clicks]
    needed = {iou: [clicks_needed(record.ious, iou, max_clicks) for record in counted] for iou in NOC_IOUS}
    removed = [share for record in counted for share in record.removed]
    first = [record.seconds[0] for record in counted]
    later = [second for record in counted for second in record.seconds[1:]]
    return Cell(
        count=len(referenced),
        unreferenced=len(records) - len(referenced),
        iou_after={
            click: statistics.mean(iou_after(record.ious, click) for record in counted) for click in clicks
        },
        clicks_to={iou: statistics.mean(needed[iou]) for iou in NOC_IOUS},
        failed={iou: sum(max(record.ious) < iou for record in counted) for iou in NOC_IOUS},
        removed=statistics.mean(removed) if removed else None,
        first_click_s=statistics.median(first),
        later_click_s=statistics.median(later) if later else None,
    )
