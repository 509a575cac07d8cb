"""Metrics of an evaluation: IoU after some clicks and number of clicks to an IoU (NoC), per mode and kind of target.

`summarise` turns records into a table of `Cell`s; `model.evaluation.report` prints it. `model.evaluation.paired` compares
modes and networks mask by mask.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from model.evaluation.records import Record
from model.evaluation.samples import KINDS
from model.evaluation.standard_errors import Estimate, is_too_few, mean_of

IOU_CLICKS = (1, 3, 5)
REPORTED_CLICKS = (1, 2, 3, 4, 5)
NOC_IOUS = (0.8, 0.85, 0.9)
GOOD_IOU = 0.8
"""A first mask of this IoU is good."""
FALL = 0.01
"""A smaller loss of IoU from one click to the next does not count as a fall."""
ONE_PIECE, SEVERAL_PIECES = "one piece", "several pieces"
GROUPS = ("total", *KINDS, ONE_PIECE, SEVERAL_PIECES)
"""Groups of targets: all, by kind, and by number of connected pieces. A target is in several groups."""


@dataclass(frozen=True)
class Cell:
    """The metrics of one mode on one group of targets of one set.

    Attributes:
        count: Samples for which the mode had the references it needs. The metrics are measured on them.
        unreferenced: Samples without those references; not counted in the metrics unless `count` is 0.
        photographs: Number of photographs of the measured samples.
        start_iou: Mean IoU before the first click; None for a mode that begins without a mask.
        iou_after: Mean IoU by number of clicks.
        good_first: Share of the samples whose first click gives an IoU of `GOOD_IOU`.
        best_candidate: Mean IoU of the best of the masks that the network proposes for the first click; None if it
            proposes only one.
        clicks_to: Mean number of clicks to an IoU (NoC), by that IoU. A sample that never reaches it counts as
            `max_clicks`; one whose mask before the first click has it counts as 0.
        failed: Number of samples that never reach an IoU, by that IoU.
        never_falls: Share of the samples whose IoU never falls by more than `FALL` over the first five clicks; None if
            there were fewer clicks.
        removed: Mean share of the excess under a negative click that the click takes away; None without such clicks.
        first_click_s: Median seconds of the first click.
        later_click_s: Median seconds of a later click; None without any.
    """

    count: int
    unreferenced: int
    photographs: int
    start_iou: Estimate | None
    iou_after: dict[int, Estimate]
    good_first: Estimate
    best_candidate: Estimate | None
    clicks_to: dict[float, Estimate]
    failed: dict[float, int]
    never_falls: Estimate | None
    removed: Estimate | None
    first_click_s: float | None
    later_click_s: float | None

    @property
    def too_few(self) -> bool:
        """Whether the samples are too few for figures that may be quoted."""
        return is_too_few(self.count or self.unreferenced, self.photographs)


def groups_of(record: Record) -> set[str]:
    """The groups (`GROUPS`) that a record's target is in."""
    pieces = set() if record.pieces is None else {ONE_PIECE if record.pieces == 1 else SEVERAL_PIECES}
    return {"total", record.kind} | pieces


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


def clicks_of(record: Record, wanted: float, max_clicks: int) -> int:
    """Count the clicks of a sample to an IoU: 0 if its mask before the first click has it; else see `clicks_needed`."""
    if record.start_iou is not None and record.start_iou >= wanted:
        return 0
    return clicks_needed(record.ious, wanted, max_clicks)


def iou_after(ious: Sequence[float], clicks: int) -> float:
    """Return the IoU after a number of clicks (from 1); a session that ended earlier keeps its last IoU."""
    return ious[min(clicks, len(ious)) - 1]


def measured(records: Sequence[Record]) -> list[Record]:
    """The records on which metrics are measured: those that had a reference; all if none had."""
    return [record for record in records if record.referenced] or list(records)


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
            chosen = [record for record in own if group in groups_of(record)]
            if chosen:
                table.setdefault(set_name, {}).setdefault(mode, {})[group] = make_cell(chosen, max_clicks)
    return table


def make_cell(records: Sequence[Record], max_clicks: int) -> Cell:
    """Compute the metrics of at least one record."""
    counted = measured(records)
    photographs = [record.photograph for record in counted]
    referenced = sum(record.referenced for record in records)
    later = [second for record in counted for second in record.seconds[1:]]

    def mean(values: Iterable[float]) -> Estimate:
        return mean_of(list(values), photographs)

    return Cell(
        count=referenced,
        unreferenced=len(records) - referenced,
        photographs=len(set(photographs)),
        start_iou=_mean_of_known([(record, record.start_iou) for record in counted]),
        iou_after={
            click: mean(iou_after(record.ious, click) for record in counted)
            for click in REPORTED_CLICKS
            if click <= max_clicks
        },
        good_first=mean(record.ious[0] >= GOOD_IOU for record in counted),
        best_candidate=_mean_of_known(
            [(r, max(r.candidate_ious)) for r in counted if len(r.candidate_ious) > 1]
        ),
        clicks_to={iou: mean(clicks_of(record, iou, max_clicks) for record in counted) for iou in NOC_IOUS},
        failed={iou: sum(max([*r.ious, r.start_iou or 0.0]) < iou for r in counted) for iou in NOC_IOUS},
        never_falls=_mean_of_known([(record, _never_falls(record.ious)) for record in counted]),
        removed=_mean_of_known([(record, share) for record in counted for share in record.removed]),
        first_click_s=statistics.median(record.seconds[0] for record in counted),
        later_click_s=statistics.median(later) if later else None,
    )


def _never_falls(ious: Sequence[float]) -> float | None:
    """None for a session with fewer clicks than are looked at."""
    looked_at = ious[: REPORTED_CLICKS[-1]]
    if len(looked_at) < REPORTED_CLICKS[-1]:
        return None
    return float(all(after >= before - FALL for before, after in pairwise(looked_at)))


def _mean_of_known(values: Sequence[tuple[Record, float | None]]) -> Estimate | None:
    """Mean of the values that are not None; None without any."""
    known = [(value, record.photograph) for record, value in values if value is not None]
    if not known:
        return None
    numbers, photographs = zip(*known, strict=True)
    return mean_of(numbers, photographs)
