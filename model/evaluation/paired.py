"""Compares modes, or two networks, mask by mask: differences with standard errors, and what they show.

`compare_modes` compares each mode of a run with clicks alone and with the right reference. `compare_results` compares two
runs over the same work.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from model.evaluation.metrics import GOOD_IOU, GROUPS, clicks_of, groups_of, measured
from model.evaluation.modes import Mode
from model.evaluation.records import Record
from model.evaluation.standard_errors import Paired, difference_of, ratio_of

NOC_RATIOS = (0.85, 0.9)


@dataclass(frozen=True)
class PairedCell:
    """Two ways of doing the same work, on one group of targets of one set.

    Attributes:
        set_name: The set.
        first: Name of the first way.
        second: Name of the second way, which is compared with the first.
        group: The group of targets (`model.evaluation.metrics.GROUPS`).
        first_iou: IoU after the first click.
        good_first: Share of the first clicks with an IoU of `GOOD_IOU`.
        clicks_to: Ratio of the numbers of clicks to an IoU (NoC), by that IoU.
    """

    set_name: str
    first: str
    second: str
    group: str
    first_iou: Paired
    good_first: Paired
    clicks_to: dict[float, Paired]


def compare_modes(records: Sequence[Record], max_clicks: int) -> list[PairedCell]:
    """Compare each mode with clicks alone ("none") and with the right reference ("right"), as far as they were run.

    Jittered modes are compared with jittered ones. Modes with worse references are compared on all targets only.

    Args:
        records: Results of any sets and modes.
        max_clicks: Number of clicks after which a session ended.
    """
    cells = []
    for set_name, mode_name in dict.fromkeys((record.set_name, record.mode) for record in records):
        mode = Mode.parse(mode_name)
        for base in ("none", "right"):
            base_name = f"{base}+jitter" if mode.jitter else base
            if mode_name == base_name or (base == "right" and mode.reference == "none"):
                continue
            pairs = pair_up(
                [r for r in records if (r.set_name, r.mode) == (set_name, base_name)],
                [r for r in records if (r.set_name, r.mode) == (set_name, mode_name)],
            )
            worse = mode.polygon_vertices is not None or mode.scale != 1
            groups = ("total",) if worse else GROUPS
            cells += compare_pairs(set_name, base_name, mode_name, pairs, max_clicks, groups)
    return cells


def compare_results(
    first: Sequence[Record], second: Sequence[Record], max_clicks: int
) -> dict[str, list[PairedCell]]:
    """Compare two runs on the samples and modes that both have.

    Args:
        first: Results of the first network.
        second: Results of the second network, which is compared with the first.
        max_clicks: Number of clicks after which a session ended.

    Returns:
        Cells by mode, with `first` and `second` as names of the networks. Modes that only one run has are left out.
    """
    found: dict[str, list[PairedCell]] = {}
    for set_name, mode in dict.fromkeys((record.set_name, record.mode) for record in second):
        pairs = pair_up(
            [r for r in first if (r.set_name, r.mode) == (set_name, mode)],
            [r for r in second if (r.set_name, r.mode) == (set_name, mode)],
        )
        cells = compare_pairs(set_name, "first", "second", pairs, max_clicks)
        if cells:
            found.setdefault(mode, []).extend(cells)
    return found


def compare_pairs(
    set_name: str,
    first: str,
    second: str,
    pairs: Sequence[tuple[Record, Record]],
    max_clicks: int,
    groups: Sequence[str] = GROUPS,
) -> list[PairedCell]:
    """Compare results that are paired already.

    Args:
        set_name: Their set.
        first: Name of the first way.
        second: Name of the second way.
        pairs: The result of the first and of the second way, for each sample.
        max_clicks: Number of clicks after which a session ended.
        groups: Names of groups of targets.

    Returns:
        A cell for each group that has samples.
    """
    chosen = {group: [pair for pair in pairs if group in groups_of(pair[1])] for group in groups}
    return [_cell(set_name, first, second, group, own, max_clicks) for group, own in chosen.items() if own]


def pair_up(first: Sequence[Record], second: Sequence[Record]) -> list[tuple[Record, Record]]:
    """The results of the same samples. Samples without a reference are left out, unless there are no others."""
    kept = {record.sample for record in measured(second)}
    of_sample = {record.sample: record for record in measured(first)}
    return [(of_sample[r.sample], r) for r in second if r.sample in kept and r.sample in of_sample]


def _cell(
    set_name: str,
    first: str,
    second: str,
    group: str,
    pairs: Sequence[tuple[Record, Record]],
    max_clicks: int,
) -> PairedCell:
    photographs = [record.photograph for _, record in pairs]
    before, after = ([record.ious[0] for record in own] for own in zip(*pairs, strict=True))
    return PairedCell(
        set_name=set_name,
        first=first,
        second=second,
        group=group,
        first_iou=difference_of(before, after, photographs),
        good_first=difference_of(
            [float(iou >= GOOD_IOU) for iou in before], [float(iou >= GOOD_IOU) for iou in after], photographs
        ),
        clicks_to={
            iou: ratio_of(
                [clicks_of(record, iou, max_clicks) for record, _ in pairs],
                [clicks_of(record, iou, max_clicks) for _, record in pairs],
                photographs,
            )
            for iou in NOC_RATIOS
        },
    )
