"""Which images a model is judged on: never one that any run has trained on, and the other way round.

Images are known by their content, so the same photograph under two addresses is one image. Whatever was decided for an
image holds for ever; only what is seen for the first time is decided anew, by a hash of its content alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from refcut_backend.database.tables import ImageSplit


class Split(StrEnum):
    """What an image may be used for.

    SPENT: was held out until a label's reference was given on it. What references show is known to the training, so
    such an image is neither trained on nor judged on, also when the reference is taken back.
    """

    TRAIN = "train"
    HOLDOUT = "holdout"
    SPENT = "spent"


@dataclass(frozen=True)
class HoldoutRules:
    """share: of the images that are seen for the first time, 0..1. at_least: images, where there are twice as many."""

    share: float = 0.2
    at_least: int = 5


def decide_splits(
    contents: Iterable[str],
    known: Mapping[str, Split],
    with_references: Collection[str],
    rules: HoldoutRules,
) -> dict[str, Split]:
    """The side of every image of a run and of every reference's image; those in `known` keep theirs.

    contents: SHA-256 of the annotated images. known: what was decided at earlier runs. with_references: images that
    labels' references are on. The same whatever the order of the images.
    """
    present = set(contents) | set(with_references)
    splits = {
        content: _kept(known[content], content in with_references) for content in present & known.keys()
    }
    undecided = sorted(present - known.keys(), key=_place)
    for content in undecided:
        may_be_held_out = content not in with_references
        splits[content] = Split.HOLDOUT if may_be_held_out and _place(content) < rules.share else Split.TRAIN
    missing = min(rules.at_least, len(present) // 2) - _held_out(splits)
    spare = [c for c in undecided if splits[c] is Split.TRAIN and c not in with_references]
    if rules.share > 0:
        splits |= dict.fromkeys(spare[: max(missing, 0)], Split.HOLDOUT)
    return splits


def _kept(split: Split, has_reference: bool) -> Split:
    return Split.SPENT if split is Split.HOLDOUT and has_reference else split


def _held_out(splits: Mapping[str, Split]) -> int:
    return sum(split is Split.HOLDOUT for split in splits.values())


def _place(content: str) -> float:
    """A number in 0..1 that depends on the image alone."""
    return int.from_bytes(hashlib.sha256(f"holdout {content}".encode()).digest()[:6]) / 2**48


Decide = Callable[[Mapping[str, Split]], Mapping[str, Split]]
"""What is known of the project's images to the sides of those of a run."""


class SplitStore:
    """Sides of images, known by the SHA-256 of their pixels."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def known(self, project_id: int) -> dict[str, Split]:
        """Everything that was decided for a project."""
        query = select(ImageSplit).where(ImageSplit.project_id == project_id)
        with Session(self._engine) as session:
            return {row.content: Split(row.split) for row in session.scalars(query)}

    def settle(self, project_id: int, decide: Decide) -> Mapping[str, Split]:
        """Decides and remembers in one transaction; when this returns, later runs will know. Returns what was decided."""
        query = select(ImageSplit).where(ImageSplit.project_id == project_id)
        with Session(self._engine) as session, session.begin():
            rows = {row.content: row for row in session.scalars(query)}
            splits = decide({content: Split(row.split) for content, row in rows.items()})
            for content, split in splits.items():
                row = rows.get(content) or ImageSplit(project_id=project_id, content=content)
                row.split = split.value
                session.add(row)
        return splits
