"""Finds photographs that are near copies of each other, so that no training set holds a photograph of a val split.

Two photographs are near copies if the signs of their lowest 64 cosine frequencies (a perceptual hash) differ in few
places and their grey thumbnails correlate. Mirrored copies are found, too. Crops of a photograph are not.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from model.errors import DataError

THUMBNAIL_PX = 32
FREQUENCIES = 8
MAX_DIFFERENT_BITS = 14
MIN_CORRELATION = 0.9


@dataclass(frozen=True)
class NearCopy:
    """A photograph that shows the same picture as a protected one."""

    photograph: Path
    protected: Path
    different_bits: int
    correlation: float
    mirrored: bool


@dataclass(frozen=True)
class Fingerprints:
    """What is compared of n photographs.

    Attributes:
        paths: One path per photograph.
        bits: Perceptual hashes, bool (n, 64).
        thumbnails: Grey thumbnails with mean 0 and length 1, float32 (n, 1024).
    """

    paths: list[Path]
    bits: NDArray[np.bool_]
    thumbnails: NDArray[np.float32]


def fingerprints(paths: Sequence[Path], *, mirrored: bool = False) -> Fingerprints:
    """Reads photographs and computes what is compared of them.

    Args:
        paths: Image files; at least one.
        mirrored: Whether to flip each photograph left to right first.

    Raises:
        DataError: If a file cannot be read as an image.
    """
    bits, thumbnails = [], []
    for path in paths:
        grey = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        if grey is None:
            raise DataError(f"{path} cannot be read", hint="check the path and that it is an image")
        small = cv2.resize(grey, (THUMBNAIL_PX, THUMBNAIL_PX), interpolation=cv2.INTER_AREA)
        values = small.astype(np.float32)[:, ::-1] if mirrored else small.astype(np.float32)
        bits.append(_hash(np.ascontiguousarray(values)))
        centred = values - values.mean()
        thumbnails.append((centred / max(float(np.linalg.norm(centred)), 1e-6)).reshape(-1))
    return Fingerprints(list(paths), np.stack(bits), np.stack(thumbnails))


def find_near_copies(photographs: Sequence[Path], protected: Sequence[Path]) -> list[NearCopy]:
    """Finds the photographs that are near copies of protected ones, mirrored or not.

    Args:
        photographs: Image files that may be copies.
        protected: Image files of which there must be no copy.

    Returns:
        At most one match per photograph, the one with the highest correlation, in the order of `photographs`. A file
        is no copy of itself.

    Raises:
        DataError: If a file cannot be read as an image.
    """
    if not photographs or not protected:
        return []
    kept = fingerprints(protected)
    best: dict[Path, NearCopy] = {}
    for mirrored in (False, True):
        found = fingerprints(photographs, mirrored=mirrored)
        different = (found.bits[:, None] != kept.bits[None]).sum(axis=-1)
        correlation = found.thumbnails @ kept.thumbnails.T
        for row, column in np.argwhere((different <= MAX_DIFFERENT_BITS) & (correlation >= MIN_CORRELATION)):
            copy = NearCopy(
                found.paths[row],
                kept.paths[column],
                int(different[row, column]),
                float(correlation[row, column]),
                mirrored,
            )
            same_file = copy.photograph.resolve() == copy.protected.resolve()
            before = best.get(copy.photograph)
            if not same_file and (before is None or copy.correlation > before.correlation):
                best[copy.photograph] = copy
    return [best[path] for path in photographs if path in best]


def read_excluded(path: Path | None) -> dict[str, list[str]]:
    """File names to leave out, by set, as `near-copies` has written them; None excludes nothing.

    Raises:
        DataError: If the file cannot be read.
    """
    if path is None:
        return {}
    try:
        found: dict[str, list[str]] = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is not a list of near copies ({error})", hint="write it again") from error
    return found


def _hash(grey: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Whether each of the lowest frequencies lies above their median, bool (64,)."""
    low = np.asarray(cv2.dct(grey), np.float32)[:FREQUENCIES, :FREQUENCIES].reshape(-1)
    return np.asarray(low > np.median(low[1:]), np.bool_)
