"""The references of an evaluation: which other object serves as a sample's reference, and which of its parts it shows."""

from __future__ import annotations

import zlib
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from model.data.annotated_objects import AnnotatedObject
from model.evaluation.modes import Mode
from model.evaluation.samples import Sample


@dataclass(frozen=True)
class ReferenceChoice:
    """One reference of a sample.

    Attributes:
        annotated_object: Number of the annotated object in its set.
        positive: Parts in the reference's positive mask.
        negative: Parts in its negative mask.
    """

    annotated_object: int
    positive: tuple[str, ...]
    negative: tuple[str, ...]


class ReferenceFinder:
    """Finds references by the paper's rule: the next object by file name that has the same parts, wrapping around.

    A reference is never on the sample's own image. The reference of a whole object is the next object of its class,
    whichever of its parts are labelled.
    """

    def __init__(self, annotated_objects: Sequence[AnnotatedObject]) -> None:
        """Index a set's annotated objects, which must be in the order of their file names, as readers return them."""
        self._annotated_objects = annotated_objects
        self._of_class: dict[str, list[int]] = defaultdict(list)
        for number, annotated_object in enumerate(annotated_objects):
            if annotated_object.names_carry:
                self._of_class[annotated_object.object_class].append(number)

    def choose(self, sample: Sample, mode: Mode) -> list[ReferenceChoice]:
        """Choose the references of a sample in a mode.

        Returns:
            As many references as the mode asks for, or fewer if the set has fewer; empty for a mode without references.
            A repeat of a sample begins with a later reference, and wraps around.
        """
        if mode.reference == "none":
            return []
        choices = (self._choice(sample, number, mode) for number in self.following(sample))
        usable = (choice for choice in choices if choice is not None)
        if not sample.repeat:
            return list(islice(usable, mode.references))
        every = list(usable)
        first = sample.repeat % max(len(every), 1)
        return [*every[first:], *every[:first]][: mode.references]

    def following(self, sample: Sample) -> Iterator[int]:
        """Yield the numbers of the annotated objects that can be a reference of a sample, the next one first."""
        own = self._annotated_objects[sample.annotated_object]
        if not own.names_carry:
            return
        numbers = self._of_class[own.object_class]
        after = bisect_right(numbers, sample.annotated_object)
        for number in (*numbers[after:], *numbers[:after]):
            annotated_object = self._annotated_objects[number]
            if annotated_object.image_path == own.image_path:
                continue
            if (
                len(annotated_object.part_rles) > 1
                if sample.kind == "whole"
                else set(sample.parts) <= set(annotated_object.part_rles)
            ):
                yield number

    def _choice(self, sample: Sample, number: int, mode: Mode) -> ReferenceChoice | None:
        """None if the annotated object cannot show what the mode needs."""
        names = tuple(sorted(self._annotated_objects[number].part_rles))
        shown = names if sample.kind == "whole" else sample.parts
        if mode.reference == "wrong":
            shown = _other_parts(sample, names)
        rest = tuple(name for name in names if name not in shown)
        positive = () if mode.reference == "negative" else shown
        negative = () if mode.reference == "positive" else rest
        return ReferenceChoice(number, positive, negative) if shown and (positive or negative) else None


def _other_parts(sample: Sample, names: tuple[str, ...]) -> tuple[str, ...]:
    """Pick as many parts as the sample has (1 for a whole) that are not its own; the same in every run."""
    others = list(names) if sample.kind == "whole" else [name for name in names if name not in sample.parts]
    wanted = 1 if sample.kind == "whole" else len(sample.parts)
    start = zlib.crc32(sample.key.encode())
    return tuple(sorted(others[(start + step) % len(others)] for step in range(min(wanted, len(others)))))
