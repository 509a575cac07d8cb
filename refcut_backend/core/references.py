"""Which regions of a submitted annotation say what a label means."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refcut_backend.core import brush_rle
from refcut_backend.core.label_config import NEGATIVE_REFERENCE_CHOICE, REFERENCE_CHOICE
from refcut_backend.errors import BadMaskError

MAX_MASK_PIXELS = 100_000_000


@dataclass(frozen=True)
class LabelReference:
    """What one annotation says about one label. Masks are (H, W) in the frame of the image as the browser shows it.

    negative_hw: the regions marked "Negative reference", else the other labels' regions; None when there are none.
    to_name: the image tag that the regions lie on.
    """

    label: str
    to_name: str
    positive_hw: NDArray[np.bool_]
    negative_hw: NDArray[np.bool_] | None

    def version(self, image_address: str) -> str:
        """Changes whenever image or masks do: 12 hex digits."""
        digest = hashlib.sha256(image_address.encode())
        for mask in (self.positive_hw, self.negative_hw):
            digest.update(b"-" if mask is None else str(mask.shape).encode() + np.packbits(mask).tobytes())
        return digest.hexdigest()[:12]


@dataclass(frozen=True)
class _Region:
    label: str
    to_name: str
    height: int
    width: int
    rle: Sequence[int]
    role: str | None

    def mask(self) -> NDArray[np.bool_]:
        return brush_rle.decode(self.rle, self.height, self.width)


def read_references(result: Sequence[dict[str, Any]], role_controls: Iterable[str]) -> list[LabelReference]:
    """References in an annotation's result, one a label that has a region marked "Reference".

    A marked region arrives as two results with one id: the brush region, and the choice (contract, section 8).
    "Everything else" is never taken for negative: unlabelled pixels are unknown.
    Raises BadMaskError when a region of a marked annotation cannot be decoded.
    """
    roles = _roles(result, frozenset(role_controls))
    if REFERENCE_CHOICE not in roles.values():
        return []
    regions = [_region(r, roles) for r in result if r.get("type") == "brushlabels"]
    marked = sorted({(r.label, r.to_name) for r in regions if r.role == REFERENCE_CHOICE})
    return [_reference(label, to_name, regions) for label, to_name in marked]


def _reference(label: str, to_name: str, regions: list[_Region]) -> LabelReference:
    here = [r for r in regions if r.to_name == to_name]
    own = [r for r in here if r.label == label and r.role == REFERENCE_CHOICE]
    size = (own[0].height, own[0].width)
    said = [r for r in here if r.role == NEGATIVE_REFERENCE_CHOICE and r.label == label]
    others = said or [r for r in here if r.label != label and r.role != NEGATIVE_REFERENCE_CHOICE]
    positive = _union(own, size)
    negative = _union(others, size) & ~positive if others else None
    return LabelReference(
        label, to_name, positive, negative if negative is not None and negative.any() else None
    )


def _union(regions: list[_Region], size: tuple[int, int]) -> NDArray[np.bool_]:
    joined = np.zeros(size, bool)
    for region in regions:
        if (region.height, region.width) != size:
            raise BadMaskError("regions of one annotation have different image sizes", hint="draw them again")
        joined |= region.mask()
    return joined


def _roles(result: Sequence[dict[str, Any]], role_controls: frozenset[str]) -> dict[str, str]:
    """Region id to the choice made for it."""
    roles: dict[str, str] = {}
    for item in result:
        if item.get("type") == "choices" and item.get("from_name") in role_controls:
            chosen = (item.get("value") or {}).get("choices") or []
            for choice in (REFERENCE_CHOICE, NEGATIVE_REFERENCE_CHOICE):
                if choice in chosen:
                    roles[str(item.get("id"))] = choice
    return roles


def _region(item: dict[str, Any], roles: dict[str, str]) -> _Region:
    try:
        height, width = int(item["original_height"]), int(item["original_width"])
        label, rle = str(item["value"]["brushlabels"][0]), item["value"]["rle"]
    except (KeyError, IndexError, TypeError, ValueError):
        raise BadMaskError(
            "a brush region lacks its label, size or mask", hint="draw the region again"
        ) from None
    if height < 1 or width < 1 or height * width > MAX_MASK_PIXELS:
        raise BadMaskError(
            f"a brush region claims an image of {width} x {height} px", hint="draw the region again"
        )
    return _Region(label, str(item.get("to_name", "")), height, width, rle, roles.get(str(item.get("id"))))
