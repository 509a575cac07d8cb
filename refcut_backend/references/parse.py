"""Reads references from a submitted annotation, warns about weak ones, and converts their masks to PNG and back.

A region that an annotator marks as reference arrives as two results with the same id: the region, and the choice
"Reference" or "Negative reference" (contract, section 8).
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from refcut_backend.errors import BadMaskError, BadRequestError
from refcut_backend.label_studio.label_config import NEGATIVE_REFERENCE_CHOICE, REFERENCE_CHOICE
from refcut_backend.label_studio.regions import Region, joined_mask, read_region


@dataclass(frozen=True)
class LabelReference:
    """The reference that one annotation gives for one label.

    Attributes:
        label: The label.
        to_name: Name of the image that the regions are on (`image_name`).
        positive_hw: Pixels that belong to the label: (H, W) in the frame of the image as the browser shows it.
        negative_hw: Pixels that do not belong to the label, same frame: the regions marked "Negative reference", or else
            the regions of other labels. None if there are none.
        explicitly_added: No region is marked "Reference"; the owner added the annotation by a rule.
    """

    label: str
    to_name: str
    positive_hw: NDArray[np.bool_]
    negative_hw: NDArray[np.bool_] | None
    explicitly_added: bool = False

    def version(self, image_address: str) -> str:
        """Returns 12 hex digits that change with the image's address or a mask."""
        digest = hashlib.sha256(image_address.encode())
        for mask in (self.positive_hw, self.negative_hw):
            digest.update(b"-" if mask is None else str(mask.shape).encode() + np.packbits(mask).tobytes())
        return digest.hexdigest()[:12]


@dataclass(frozen=True)
class FoundReferences:
    """References of an annotation, and one sentence per label or region that could not be used."""

    references: tuple[LabelReference, ...] = ()
    problems: tuple[str, ...] = ()


def read_references(
    result: Sequence[dict[str, Any]], role_controls: Iterable[str], added: Collection[str] = ()
) -> FoundReferences:
    """Reads the references of an annotation: one per label that has a marked region or that the owner added.

    Pixels without a label are unknown; they never count as negative.

    Args:
        result: The annotation's `result`.
        role_controls: Names of the per-region Choices that offer "Reference".
        added: Labels for which the owner added this annotation, so that its regions count although none is marked.
    """
    roles = region_roles(result, frozenset(role_controls))
    if not roles and not added:
        return FoundReferences()
    regions, problems = _regions(result, roles)
    marked = {(label, r.to_name) for r in regions if r.role == REFERENCE_CHOICE for label in r.labels}
    meant = {(label, r.to_name) for r in regions for label in r.labels if label in added}
    negative = {
        (label, r.to_name) for r in regions if r.role == NEGATIVE_REFERENCE_CHOICE for label in r.labels
    }
    problems += [
        f"{label}: a region is marked '{NEGATIVE_REFERENCE_CHOICE}' and none '{REFERENCE_CHOICE}', so it is not used; "
        f"mark a region of '{label}' on the same image as '{REFERENCE_CHOICE}'"
        for label, _ in sorted(negative - marked - meant)
    ]
    references = []
    for label, to_name in sorted(marked | meant):
        try:
            here = [region for region in regions if region.to_name == to_name]
            references.append(_reference(label, to_name, here, (label, to_name) in marked))
        except BadMaskError as error:
            problems.append(f"{label}: {error}")
    return FoundReferences(tuple(references), tuple(problems))


def _reference(label: str, to_name: str, here: list[Region], is_marked: bool) -> LabelReference:
    """Joins the regions of a label on one image. `here` are all regions on it."""
    of_label = [r for r in here if label in r.labels]
    own = [r for r in of_label if r.role == REFERENCE_CHOICE]
    if not is_marked:
        own = [r for r in of_label if r.role != NEGATIVE_REFERENCE_CHOICE]
    if not own:
        raise BadMaskError("all its regions are negative references", hint="mark one as Reference")
    negative_regions = [r for r in of_label if r.role == NEGATIVE_REFERENCE_CHOICE]
    others = negative_regions or [
        r for r in here if label not in r.labels and r.role != NEGATIVE_REFERENCE_CHOICE
    ]
    height, width = own[0].height, own[0].width
    positive = joined_mask(own, height, width)
    if not positive.any():
        raise BadMaskError("its regions are empty", hint="draw them again")
    negative = joined_mask(others, height, width) & ~positive
    return LabelReference(
        label, to_name, positive, negative if negative.any() else None, explicitly_added=not is_marked
    )


def region_roles(result: Sequence[dict[str, Any]], role_controls: frozenset[str]) -> dict[str, str]:
    """Maps region ids to the role that was chosen for them: "Reference" or "Negative reference".

    Args:
        result: The annotation's `result`.
        role_controls: Names of the per-region Choices that offer "Reference".
    """
    roles: dict[str, str] = {}
    for item in result:
        if item.get("type") == "choices" and item.get("from_name") in role_controls:
            value = item.get("value")
            chosen = value.get("choices") if isinstance(value, dict) else None
            for choice in (REFERENCE_CHOICE, NEGATIVE_REFERENCE_CHOICE):
                if isinstance(chosen, list) and choice in chosen:
                    roles[str(item.get("id"))] = choice
    return roles


def _regions(result: Sequence[dict[str, Any]], roles: dict[str, str]) -> tuple[list[Region], list[str]]:
    regions, problems = [], []
    for item in result:
        try:
            region = read_region(item, roles.get(str(item.get("id"))))
        except BadMaskError as error:
            problems.append(str(error))
            continue
        if region is not None:
            regions.append(region)
    return regions, problems


SMALL_SHARE = 0.01
LARGE_SHARE = 0.9
SPECK_SHARE = 0.02
"""A part smaller than this share of the largest part does not count: it is a slip of the brush."""


class Weakness(StrEnum):
    """A reason to check a reference, in the words that the team lead reads."""

    SMALL = "target is less than 1 % of the image"
    LARGE = "covers nearly the whole image"
    PARTS = "several disconnected parts"
    NO_NEGATIVE = "nothing says what must stay out"
    NO_LABEL = "the label is no longer in the config"

    @property
    def remedy(self) -> str:
        """What helps."""
        return _REMEDIES[self]


_REMEDIES = {
    Weakness.SMALL: "use another photograph, on which the part is larger",
    Weakness.LARGE: "use a photograph with something around the part",
    Weakness.PARTS: "fine if the label means all of them; otherwise mark one region",
    Weakness.NO_NEGATIVE: "annotate the neighbouring parts, too",
    Weakness.NO_LABEL: "restore the label, or delete the annotation",
}


def weaknesses(
    positive_hw: NDArray[np.bool_], negative_hw: NDArray[np.bool_] | None, *, label_in_config: bool = True
) -> tuple[Weakness, ...]:
    """Finds reasons why a reference may work badly.

    Args:
        positive_hw: Pixels that belong to the label, (H, W).
        negative_hw: Pixels that do not, (H, W); None if unknown.
        label_in_config: Whether the label config still has the label.
    """
    share = float(positive_hw.mean())
    found = {
        Weakness.SMALL: share < SMALL_SHARE,
        Weakness.LARGE: share > LARGE_SHARE,
        Weakness.PARTS: _parts(positive_hw) > 1,
        Weakness.NO_NEGATIVE: negative_hw is None or not negative_hw.any(),
        Weakness.NO_LABEL: not label_in_config,
    }
    return tuple(weakness for weakness, applies in found.items() if applies)


def _parts(mask_hw: NDArray[np.bool_]) -> int:
    count, _, boxes, _ = cv2.connectedComponentsWithStats(mask_hw.astype(np.uint8), connectivity=8)
    areas = boxes[1:count, cv2.CC_STAT_AREA]
    return int((areas >= SPECK_SHARE * areas.max()).sum()) if len(areas) else 0


def mask_to_png(mask_hw: NDArray[np.bool_]) -> bytes:
    """Encodes a mask (H, W) as a 1-bit PNG file."""
    ok, data = cv2.imencode(".png", mask_hw.astype(np.uint8) * 255, [cv2.IMWRITE_PNG_BILEVEL, 1])
    assert ok, "OpenCV always writes PNG"
    return data.tobytes()


def png_to_mask(data: bytes) -> NDArray[np.bool_]:
    """Decodes a file that `mask_to_png` wrote to a mask (H, W)."""
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
    return pixels > 127  # type: ignore[return-value, operator]


MAX_MASK_BYTES = 2 * 2**20


def read_mask_png(png: bytes, size_hw: tuple[int, ...]) -> NDArray[np.bool_]:
    """Decodes a mask that somebody sent.

    Args:
        png: White on black.
        size_hw: The size that it must have.

    Raises:
        BadRequestError: It is no PNG file of that size.
    """
    fault = BadRequestError("the mask is no PNG of the photograph's size", hint="mark it again")
    if len(png) > MAX_MASK_BYTES or not png.startswith(b"\x89PNG\r\n\x1a\n"):
        raise fault
    # The size stands in the header, so that a small file cannot claim a large picture.
    width, height = int.from_bytes(png[16:20], "big"), int.from_bytes(png[20:24], "big")
    if (height, width) != tuple(size_hw):
        raise fault
    try:
        return png_to_mask(png)
    except (TypeError, ValueError):
        raise fault from None
