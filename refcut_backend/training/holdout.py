"""Splits a project's images into training and holdout, on which a new model is compared with the serving one.

An image is identified by its content, so the same photograph under two URLs is one image. Its split is decided once, by a
hash of its content alone, and then stays: no image that any run has trained on is ever in the holdout, and vice versa.
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

    TRAIN: training. HOLDOUT: comparison of models. SPENT: only references. If a held-out image later becomes a reference,
    it leaves the holdout for good, because references are known to the training; it is not trained on either.
    """

    TRAIN = "train"
    HOLDOUT = "holdout"
    SPENT = "spent"


@dataclass(frozen=True)
class HoldoutRules:
    """How many images are held out.

    Attributes:
        share: Share of the new images that is held out, 0..1.
        at_least: Smallest number of held-out images, if the project has twice as many images.
    """

    share: float = 0.2
    at_least: int = 5


def decide_splits(
    contents: Iterable[str],
    known: Mapping[str, Split],
    with_references: Collection[str],
    rules: HoldoutRules,
) -> dict[str, Split]:
    """Decide the split of all images of a run and of all images with references.

    Args:
        contents: SHA-256 of the annotated images, in any order.
        known: Splits of earlier runs, which stay, except that a held-out image with a reference becomes SPENT.
        with_references: SHA-256 of the images with references, which are never held out.
        rules: How many images are held out.

    Returns:
        SHA-256 to split, independent of the order of the images.
    """
    present = set(contents) | set(with_references)
    splits = {
        content: _known_split(known[content], content in with_references)
        for content in present & known.keys()
    }
    undecided = sorted(present - known.keys(), key=_position)
    for content in undecided:
        may_be_held_out = content not in with_references
        splits[content] = (
            Split.HOLDOUT if may_be_held_out and _position(content) < rules.share else Split.TRAIN
        )
    missing = min(rules.at_least, len(present) // 2) - _count_held_out(splits)
    spare = [c for c in undecided if splits[c] is Split.TRAIN and c not in with_references]
    if rules.share > 0:
        splits |= dict.fromkeys(spare[: max(missing, 0)], Split.HOLDOUT)
    return splits


def _known_split(split: Split, has_reference: bool) -> Split:
    return Split.SPENT if split is Split.HOLDOUT and has_reference else split


def _count_held_out(splits: Mapping[str, Split]) -> int:
    return sum(split is Split.HOLDOUT for split in splits.values())


def _position(content: str) -> float:
    """A number in 0..1 that depends only on the image, uniformly distributed over images."""
    return int.from_bytes(hashlib.sha256(f"holdout {content}".encode()).digest()[:6]) / 2**48


Decide = Callable[[Mapping[str, Split]], Mapping[str, Split]]
"""Maps the known splits of a project to the splits of a run."""


class SplitStore:
    """The decided splits of all images in the database."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def known(self, project_id: int) -> dict[str, Split]:
        """Splits of a project's images by SHA-256 of their pixels."""
        query = select(ImageSplit).where(ImageSplit.project_id == project_id)
        with Session(self._engine) as session:
            return {row.content: Split(row.split) for row in session.scalars(query)}

    def settle(self, project_id: int, decide: Decide) -> Mapping[str, Split]:
        """Decide the splits of a run and store them, in one transaction.

        Args:
            project_id: The project.
            decide: Gets the known splits and returns those of the run.

        Returns:
            The splits of the run.
        """
        query = select(ImageSplit).where(ImageSplit.project_id == project_id)
        with Session(self._engine) as session, session.begin():
            rows = {row.content: row for row in session.scalars(query)}
            splits = decide({content: Split(row.split) for content, row in rows.items()})
            for content, split in splits.items():
                row = rows.get(content) or ImageSplit(project_id=project_id, content=content)
                row.split = split.value
                session.add(row)
        return splits
