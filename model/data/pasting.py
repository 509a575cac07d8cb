"""Pairs of touching things, made by pasting a cut-out of one photograph beside or over an object of another.

Where two things touch, a click does not say whether one of them is meant, both, or a part: the object ambiguity of the
RefCut paper. `paste_pair` makes two photographs that show the same two things, so that each is the reference of the
other; `pasted_questions` asks for a part, its object, and both objects.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from model.data.annotated_objects import AnnotatedObject
from model.data.pieces import Photograph
from model.data.target_sampling import NESTED, CropParts, Question, TargetKind, pick, sharing_click
from model.masks import bounding_box, connected
from model.types import BoolMask, RgbImage

HOST, PASTED = "host", "pasted"
"""The two objects of a photograph with a pasted one (`Photograph.objects`)."""
WITH_OBJECTS: tuple[TargetKind, ...] = ("object", "instances", "all_instances")
"""Kinds of sets whose objects are whole, so that something can be pasted beside them."""
MIN_OBJECT_SHARE = 0.01
"""Only objects that cover this share of their photograph are pasted, or pasted onto."""
SIZES = (0.5, 1.25)
"""Side of the pasted object relative to the other one (root of the ratio of their areas)."""
MAX_ENLARGED = 1.6
MIN_SEEN = 0.6
"""Share of either object that must stay visible."""
OUTSIDE = 0.2
"""Share of its height and width by which the pasted object may lie outside the photograph."""
TRIES = 20
BEHIND = 0.3
"""How often the pasted object lies behind the other one."""
EDGE_PX = (0.6, 1.8)
"""Standard deviation of the soft edge, in pixels of the photograph."""
TONE = 0.4
"""The pasted object's mean colour moves up to this far towards the mean of the photograph."""
NESTED_SHARE = 0.6
"""How often the targets of a crop are nested and share a click."""


@dataclass(frozen=True)
class Pair:
    """Two annotated objects that can be references for each other.

    Attributes:
        objects: The two.
        targets: What can be asked for on them, one of `WITH_OBJECTS`.
    """

    objects: tuple[AnnotatedObject, AnnotatedObject]
    targets: TargetKind


def paste_pair(hosts: Pair, cutouts: Pair, rng: Generator) -> list[Photograph] | None:
    """Paste an object onto each photograph of a pair.

    Args:
        hosts: What is pasted onto.
        cutouts: What is pasted: one object onto each host.
        rng: Draws objects, sizes and places.

    Returns:
        Two photographs, whose `objects` name `HOST` and `PASTED`; None if the objects are too small or do not fit.

    Raises:
        DataError: If an image cannot be read.
    """
    onto, cut = (
        [Photograph.of(one, separate=pair.targets == "object") for one in pair.objects]
        for pair in (hosts, cutouts)
    )
    host_keys, cut_keys = _objects(onto, hosts.targets, rng), _objects(cut, cutouts.targets, rng)
    if host_keys is None or cut_keys is None:
        return None
    photographs = []
    for number in range(2):
        pasted = paste(onto[number], host_keys[number], cut[number], cut_keys[number], rng)
        if pasted is None:
            return None
        photographs.append(pasted)
    return photographs


def _objects(
    photographs: Sequence[Photograph], targets: TargetKind, rng: Generator
) -> list[list[str]] | None:
    """The pieces of an object of one kind on each photograph; None if there is none that is large enough."""
    if targets == "object":
        keys = [list(photograph.masks) for photograph in photographs]
        large = all(
            _share(one.union(own)) >= MIN_OBJECT_SHARE for one, own in zip(photographs, keys, strict=True)
        )
        return keys if large else None
    things = [
        {key: name for key, name in one.names.items() if _share(one.masks[key]) >= MIN_OBJECT_SHARE}
        for one in photographs
    ]
    shared = sorted(set.intersection(*(set(names.values()) for names in things)))
    if not shared:
        return None
    name = pick(shared, rng)
    return [[pick([key for key, own in names.items() if own == name], rng)] for names in things]


def _share(mask: BoolMask) -> float:
    return float(np.count_nonzero(mask)) / mask.size


def paste(
    photograph: Photograph, host_keys: Sequence[str], source: Photograph, keys: Sequence[str], rng: Generator
) -> Photograph | None:
    """Paste an object of another photograph so that it touches an object of this one, with soft edges.

    Args:
        photograph: What is pasted onto.
        host_keys: Pieces of the object that is touched.
        source: Photograph of the pasted object.
        keys: Its pieces.
        rng: Draws size, place, which of the two is in front, edge and tone.

    Returns:
        The photograph with the object. Masks hold what is visible. None if the object does not fit.
    """
    host = photograph.union(host_keys)
    cutout = _scaled(source, keys, host, rng)
    if cutout is None:
        return None
    whole = np.logical_or.reduce(list(cutout.masks.values()))
    behind = bool(rng.random() < BEHIND)
    borders = _border(host), _border(whole)
    for _ in range(TRIES):
        row, col = (
            borders[0][rng.integers(len(borders[0]))] - borders[1][rng.integers(len(borders[1]))]
        ).tolist()
        top = _nearly_inside(row, whole.shape[0], host.shape[0])
        left = _nearly_inside(col, whole.shape[1], host.shape[1])
        placed = _moved(whole, top, left, host.shape)
        pasted = placed & ~host if behind else placed
        host_left = host if behind else host & ~placed
        seen = pasted.sum() >= MIN_SEEN * whole.sum() and host_left.sum() >= MIN_SEEN * host.sum()
        if seen and connected(pasted, host_left):
            break
    else:
        return None
    masks = {key: mask & ~pasted for key, mask in photograph.masks.items()}
    names = dict(photograph.names)
    objects = dict.fromkeys(host_keys, HOST)
    for key, mask in cutout.masks.items():
        own = f"{key}\0{PASTED}"
        masks[own] = _moved(mask, top, left, host.shape) & pasted
        names[own], objects[own] = cutout.names[key], PASTED
    masks = {key: mask for key, mask in masks.items() if mask.any()}
    image = _blended(photograph.image, cutout.image, (top, left), placed, host if behind else None, rng)
    return Photograph(image, masks, {key: names[key] for key in masks}, objects)


def _scaled(source: Photograph, keys: Sequence[str], host: BoolMask, rng: Generator) -> Photograph | None:
    """The object alone, at its new size, mirrored or not; None if it would have to be enlarged too much."""
    whole = source.union(keys)
    box = bounding_box(whole)
    ratio = math.exp(rng.uniform(math.log(SIZES[0]), math.log(SIZES[1])))
    scale = ratio * math.sqrt(host.sum() / whole.sum())
    scale = min(scale, 0.9 * host.shape[0] / box.height, 0.9 * host.shape[1] / box.width)
    if scale > MAX_ENLARGED:
        return None
    size = max(round(box.width * scale), 4), max(round(box.height * scale), 4)
    mirrored = rng.random() < 0.5
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR

    def resized(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        out = cv2.resize(np.ascontiguousarray(pixels[box.slices]), size, interpolation=interpolation)
        return out[:, ::-1] if mirrored else out  # type: ignore[return-value]

    masks = {key: resized(source.masks[key].view(np.uint8) * 255) > 127 for key in keys}
    masks = {key: mask for key, mask in masks.items() if mask.any()}
    if not masks:
        return None
    return Photograph(resized(source.image), masks, {key: source.names[key] for key in masks})


def _nearly_inside(start: int, length: int, plane: int) -> int:
    """The nearest start at which at most `OUTSIDE` of the length lies beyond either end of the plane."""
    margin = int(OUTSIDE * length)
    return int(np.clip(start, -margin, plane - length + margin))


def _border(mask: BoolMask) -> NDArray[np.intp]:
    """(row, column) of the pixels of a mask that touch the outside."""
    inner = cv2.erode(mask.astype(np.uint8), np.ones((3, 3), np.uint8), borderValue=0) > 0
    return np.argwhere(mask & ~inner)


def _moved(mask: BoolMask, top: int, left: int, shape: tuple[int, ...]) -> BoolMask:
    """A mask on an empty plane of the photograph's shape; what lies outside is cut off."""
    plane = np.zeros(shape, bool)
    here, there = _overlap(mask.shape, top, left, shape)
    plane[here] = mask[there]
    return plane


def _overlap(
    size: tuple[int, ...], top: int, left: int, shape: tuple[int, ...]
) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Where a picture of `size` lies on a plane of `shape`, in both frames."""
    start = max(top, 0), max(left, 0)
    end = min(top + size[0], shape[0]), min(left + size[1], shape[1])
    return (slice(start[0], end[0]), slice(start[1], end[1])), (
        slice(start[0] - top, end[0] - top),
        slice(start[1] - left, end[1] - left),
    )


def _blended(
    image: RgbImage,
    cutout: RgbImage,
    place: tuple[int, int],
    placed: BoolMask,
    in_front: BoolMask | None,
    rng: Generator,
) -> RgbImage:
    """The photograph with the cut-out blended in; `in_front` covers it."""
    sigma = float(rng.uniform(*EDGE_PX))
    inner = cv2.erode(placed.astype(np.uint8), np.ones((3, 3), np.uint8))
    alpha = np.asarray(cv2.GaussianBlur(inner.astype(np.float32), (0, 0), sigma), np.float32)
    if in_front is not None:
        hidden = np.asarray(cv2.GaussianBlur(in_front.astype(np.float32), (0, 0), sigma), np.float32)
        alpha = alpha * (1 - hidden)
    here, there = _overlap(cutout.shape[:2], *place, image.shape[:2])
    pixels = cutout[there].astype(np.float32)
    pixels += rng.uniform(0, TONE) * (image[::8, ::8].mean(axis=(0, 1)) - pixels[::4, ::4].mean(axis=(0, 1)))
    out = image.copy()
    share = alpha[here][..., None]
    out[here] = np.clip(image[here] * (1 - share) + pixels * share, 0, 255).astype(np.uint8)
    return out


def shows_both(parts: CropParts) -> bool:
    """Whether a crop shows enough of the host and of the pasted object."""
    shown = {own for own, seen in zip(parts.objects, parts.visible, strict=False) if seen}
    return {HOST, PASTED} <= shown


def pasted_questions(here: CropParts, there: CropParts, count: int, rng: Generator) -> list[Question]:
    """Choose the targets of a crop with a pasted object: a part, the object that it belongs to, and both objects.

    Args:
        here: The crop; it shows both objects.
        there: Its reference; it shows both objects, too.
        count: Number of targets.
        rng: Draws everything random.
    """
    objects = {own: _question(here, there, [own]) for own in (HOST, PASTED)}
    both = _question(here, there, [HOST, PASTED])
    asked: list[Question] = []
    if count >= NESTED and rng.random() < NESTED_SHARE:
        own = pick((HOST, PASTED), rng)
        names = sorted(_visible_names(here, own) & _visible_names(there, own))
        part = [_question(here, there, [own], pick(names, rng))] if len(names) > 1 else []
        nested = [*part, objects[own], both]
        asked = sharing_click(nested, nested[0].click_on)
    while len(asked) < count:
        asked.append(pick([*objects.values(), both], rng))
    return asked


def _visible_names(parts: CropParts, own: str) -> set[str]:
    return {parts.names[piece] for piece in _pieces(parts, [own]) if parts.visible[piece]}


def _pieces(parts: CropParts, objects: Sequence[str], name: str | None = None) -> list[int]:
    """The pieces of objects, or of one of their parts."""
    return [
        piece
        for piece, own in enumerate(parts.objects)
        if own in objects and name in (None, parts.names[piece])
    ]


def _question(here: CropParts, there: CropParts, objects: Sequence[str], name: str | None = None) -> Question:
    """Objects, or one of their parts. All else is in the reference's negative mask."""
    pieces = _pieces(here, objects, name)
    meant = [_pieces(there, objects, name)]
    wanted = {here.names[piece] for piece in pieces}
    others = {own for piece, own in enumerate(here.names) if piece not in pieces}
    click_on = [piece for piece in pieces if here.visible[piece]]
    return Question(pieces, click_on, meant, meant, needs_click=bool(wanted & others))
