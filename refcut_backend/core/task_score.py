"""How sure a prediction is of a whole task, so that a list sorted by it begins with what a person should look at."""

from __future__ import annotations

from collections.abc import Collection, Sequence


def task_score(mask_scores: Collection[Sequence[float]]) -> float:
    """The mean over labels of each label's least sure mask, 0..1; a label that was found nowhere counts as 0.

    mask_scores: for each label that has references, the scores of its masks. Without any label: 0.
    """
    if not mask_scores:
        return 0.0
    return sum(min(scores, default=0.0) for scores in mask_scores) / len(mask_scores)
