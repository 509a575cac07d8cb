"""Metrics of an evaluation: IoU after some clicks and number of clicks to an IoU (NoC), per mode and kind of target.

`summarise` turns records into a table of `Cell`s; `model.evaluation.report` prints and draws it.
"""

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
    """The metrics of one mode on one kind of target of one set.

    Attributes:
        count: Samples for which the mode had the references it needs. The metrics are measured on them.
        unreferenced: Samples without those references; not counted in the metrics unless `count` is 0.
        iou_after: Mean IoU by number of clicks.
        clicks_to: Mean number of clicks to an IoU (NoC), by that IoU. A sample that never reaches it counts as
            `max_clicks`.
        failed: Number of samples that never reach an IoU, by that IoU.
        removed: Mean share of the excess under a negative click that the click takes away; None without such clicks.
        first_click_s: Median seconds of the first click.
        later_click_s: Median seconds of a later click; None without any.
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
    """Count the clicks to an IoU (NoC).

    Args:
        ious: IoU after each click.
        wanted: The IoU to be reached.
        max_clicks: Returned if no click reaches it.

    Example:
        >>> clicks_needed([0.5, 0.8, 0.9], wanted=0.8, max_clicks=20)
        2
    """
    return next((number for number, iou in enumerate(ious, start=1) if iou >= wanted), max_clicks)


def iou_after(ious: Sequence[float], clicks: int) -> float:
    """Return the IoU after a number of clicks (from 1); a session that ended earlier keeps its last IoU."""
    return ious[min(clicks, len(ious)) - 1]


def summarise(records: Sequence[Record], max_clicks: int) -> dict[str, dict[str, dict[str, Cell]]]:
    """Compute the metrics of all records.

    Args:
        records: Results of any sets and modes.
        max_clicks: Number of clicks after which a session ended.

    Returns:
        Cells by set name, mode and group (`GROUPS`). Combinations without a record are left out.
    """
    table: dict[str, dict[str, dict[str, Cell]]] = {}
    for set_name, mode in dict.fromkeys((record.set_name, record.mode) for record in records):
        own = [record for record in records if (record.set_name, record.mode) == (set_name, mode)]
        for group in GROUPS:
            chosen = [record for record in own if group in ("total", record.kind)]
            if chosen:
                table.setdefault(set_name, {}).setdefault(mode, {})[group] = make_cell(chosen, max_clicks)
    return table


def make_cell(records: Sequence[Record], max_clicks: int) -> Cell:
    """Compute the metrics of at least one record."""
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
