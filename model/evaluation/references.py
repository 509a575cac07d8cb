"""Which other object serves as a sample's reference, and which of its parts it shows."""

from __future__ import annotations

import zlib
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from model.data.scenes import Scene
from model.evaluation.modes import Mode
from model.evaluation.samples import Sample


@dataclass(frozen=True)
class ReferenceChoice:
    """Parts of one scene: those that the reference says are meant, and those it says are not."""

    scene: int
    positive: tuple[str, ...]
    negative: tuple[str, ...]


class ReferenceFinder:
    """The paper's rule: the next sample by file name that has the same parts, wrapping around at the end.

    Never the sample's own photograph. A whole object takes the next object of its class, whichever of its parts are
    labelled there. Scenes must come in the order of their file names, as the readers give them.
    """

    def __init__(self, scenes: Sequence[Scene]) -> None:
        self._scenes = scenes
        self._of_class: dict[str, list[int]] = defaultdict(list)
        for number, scene in enumerate(scenes):
            if scene.names_carry:
                self._of_class[scene.object_class].append(number)

    def choose(self, sample: Sample, mode: Mode) -> list[ReferenceChoice]:
        """The references of a sample in a mode, as many as it asks for and the set has; empty = none at all."""
        if mode.reference == "none":
            return []
        choices = (self._choice(sample, number, mode) for number in self.following(sample))
        return list(islice((choice for choice in choices if choice is not None), mode.references))

    def following(self, sample: Sample) -> Iterator[int]:
        """Numbers of the scenes that can be references of a sample, the next one first."""
        own = self._scenes[sample.scene]
        if not own.names_carry:
            return
        numbers = self._of_class[own.object_class]
        after = bisect_right(numbers, sample.scene)
        for number in (*numbers[after:], *numbers[:after]):
            scene = self._scenes[number]
            if scene.image_path == own.image_path:
                continue
            if (
                len(scene.part_rles) > 1
                if sample.kind == "whole"
                else set(sample.parts) <= set(scene.part_rles)
            ):
                yield number

    def _choice(self, sample: Sample, number: int, mode: Mode) -> ReferenceChoice | None:
        """None where this scene cannot show what the mode wants shown."""
        names = tuple(sorted(self._scenes[number].part_rles))
        meant = names if sample.kind == "whole" else sample.parts
        if mode.reference == "wrong":
            meant = _other_parts(sample, names)
        rest = tuple(name for name in names if name not in meant)
        positive = () if mode.reference == "negative" else meant
        negative = () if mode.reference == "positive" else rest
        return ReferenceChoice(number, positive, negative) if meant and (positive or negative) else None


def _other_parts(sample: Sample, names: tuple[str, ...]) -> tuple[str, ...]:
    """As many of the reference's parts as the sample has (one for a whole), none of them meant; the same every run."""
    others = list(names) if sample.kind == "whole" else [name for name in names if name not in sample.parts]
    wanted = 1 if sample.kind == "whole" else len(sample.parts)
    start = zlib.crc32(sample.key.encode())
    return tuple(sorted(others[(start + step) % len(others)] for step in range(min(wanted, len(others)))))
