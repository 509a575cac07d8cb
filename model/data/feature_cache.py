"""Frozen features of training photographs on disk, so that what reads them trains without running the encoder.

A photograph is cached in several crops: the whole, close-ups of a part, random ones, mirrored or not, some recoloured.
One folder holds one crop of every photograph of one set:

    index.json    what the crops are of, which pieces they show, and what they were computed with
    features.npy  (crops, N, D) float16: standardised outputs of the comparison blocks, joined
    shares.npy    (pieces, N) uint8: how much of each patch a labelled piece covers, 255 = all of it

N is the number of patches of a crop and D the network's `comparison_dim`. The files are memory-mapped.
"""

from __future__ import annotations

import json
import os
import shutil
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.random import Generator, default_rng
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from model.data.annotated_objects import AnnotatedObject
from model.errors import DataError
from model.masks import bounding_box
from model.runtime.base import NetworkStages
from model.types import BoolMask, RgbImage

FORMAT = "refcut-features-1"
INDEX_FILE = "index.json"
FEATURES_FILE = "features.npy"
SHARES_FILE = "shares.npy"
MIN_VISIBLE_SHARE = 0.2
"""A piece of which less is left in a crop is no target there: nobody could tell what was meant."""
MIN_PATCHES = 0.28
"""A piece that covers less than this many patches of a crop is no target there."""
CROP_KINDS = ("whole", "close-up", "whole", "random", "close-up", "random")
"""What crop 0, 1, 2, ... of a photograph shows. Crop 0 is neither mirrored nor recoloured."""


@dataclass(frozen=True)
class CachedPiece:
    """One connected or separately labelled piece of a part.

    Attributes:
        name: The part's name. Several pieces of one crop may share it (two headlights, three bears).
        row: Its row in shares.npy.
        visible: Whether enough of it lies in the crop for it to be a target.
    """

    name: str
    row: int
    visible: bool


@dataclass(frozen=True)
class CachedCrop:
    """One crop of one annotated object or photograph."""

    photograph: str
    object_class: str
    pieces: tuple[CachedPiece, ...]


@dataclass(frozen=True)
class CropPlan:
    """Where a crop lies on its photograph, and how it is changed.

    Attributes:
        top, bottom, left, right: In pixels of the photograph; ends exclusive.
        mirrored: Whether it is flipped left to right.
        recoloured: Whether brightness, contrast and channels are shifted.
    """

    top: int
    bottom: int
    left: int
    right: int
    mirrored: bool
    recoloured: bool


class FeatureSet:
    """One cached crop of every photograph of a set."""

    def __init__(self, folder: Path) -> None:
        """Opens a folder that `write_features` has written.

        Raises:
            DataError: If the folder is incomplete or of another format.
        """
        try:
            index = json.loads((folder / INDEX_FILE).read_text())
            if index["format"] != FORMAT:
                raise DataError(f"{folder} is not a feature cache of this version", hint=f"expected {FORMAT}")
            self.crops = [
                CachedCrop(
                    crop["photograph"],
                    crop["object_class"],
                    tuple(CachedPiece(**piece) for piece in crop["pieces"]),
                )
                for crop in index["crops"]
            ]
            self.grid: int = index["grid"]
            self._features = np.load(folder / FEATURES_FILE, mmap_mode="r")
            self._shares = np.load(folder / SHARES_FILE, mmap_mode="r")
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"{folder} is not a complete feature cache ({type(error).__name__}: {error})",
                hint="write it again",
            ) from error

    def features(self, number: int) -> NDArray[np.float16]:
        """Features (N, D) of a crop."""
        return np.array(self._features[number])

    def shares(self, rows: Sequence[int]) -> NDArray[np.float32]:
        """Shares 0..1 of each patch inside pieces, float32 (pieces, N)."""
        shares: NDArray[np.float32] = np.asarray(self._shares[list(rows)], np.float32) / np.float32(255)
        return shares


def write_features(
    network: NetworkStages,
    annotated_objects: Sequence[AnnotatedObject],
    folder: Path,
    crop_number: int,
    size_px: int,
    base_digest: str,
) -> None:
    """Computes and writes one crop of every photograph. An existing folder is left as it is.

    Args:
        network: Computes frozen features; best by the runtime that serves, as its features are rounded, too.
        annotated_objects: Annotated objects or photographs; one crop of each.
        folder: Where the files go.
        crop_number: Which crop of each photograph: decides its kind (`CROP_KINDS`) and is part of its random seed.
        size_px: Side of the network's input; a multiple of the patch.
        base_digest: Names the frozen encoder in the index.

    Raises:
        DataError: If a photograph cannot be read.
    """
    if folder.exists():
        return
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    grid = size_px // network.config.patch_px
    features = np.lib.format.open_memmap(  # type: ignore[no-untyped-call]
        partial / FEATURES_FILE,
        mode="w+",
        dtype=np.float16,
        shape=(len(annotated_objects), grid * grid, network.config.comparison_dim),
    )
    crops: list[CachedCrop] = []
    shares: list[NDArray[np.uint8]] = []
    for number, annotated_object in enumerate(annotated_objects):
        image, pieces = _cropped(annotated_object, crop_number, size_px, grid)
        features[number] = encode(network, image)
        crops.append(_described(annotated_object, pieces, len(shares)))
        shares += [share for _, share, _ in pieces]
    features.flush()
    np.save(partial / SHARES_FILE, np.stack(shares))
    index = {
        "format": FORMAT,
        "crop_number": crop_number,
        "size_px": size_px,
        "grid": grid,
        "base_sha256": base_digest,
        "crops": [asdict(crop) for crop in crops],
    }
    (partial / INDEX_FILE).write_text(json.dumps(index) + "\n")
    os.replace(partial, folder)


@torch.inference_mode()
def encode(network: NetworkStages, image: RgbImage) -> NDArray[np.float16]:
    """Frozen features (N, D) of a square image."""
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None].to(network.device).float() / 255
    comparison = network.encode_image(pixels).comparison
    if comparison is None:
        raise ValueError("the network does not compare references in frozen features")
    return comparison[0].half().cpu().numpy()


def plan_crop(annotated_object: AnnotatedObject, masks: Sequence[BoolMask], crop_number: int) -> CropPlan:
    """Chooses a crop. The same photograph, masks and number always give the same crop.

    Args:
        annotated_object: What is cropped; its file name is part of the random seed.
        masks: Masks (H, W) of its pieces; close-ups are centred on one of them.
        crop_number: See `write_features`.
    """
    height, width = masks[0].shape
    if crop_number == 0:
        return CropPlan(0, height, 0, width, False, False)
    rng = default_rng([crop_number, zlib.crc32(annotated_object.image_path.name.encode())])
    kind = CROP_KINDS[crop_number % len(CROP_KINDS)]
    recoloured = bool(rng.random() < 0.5)
    if kind == "whole":
        return CropPlan(0, height, 0, width, True, recoloured)
    mirrored = bool(rng.random() < 0.5)
    side = np.array([height, width])
    if kind == "close-up":
        mask = masks[int(rng.integers(len(masks)))]
        box = bounding_box(mask)
        size = np.array([box.height, box.width])
        extent = np.maximum(size * rng.uniform(1.2, 3.0), np.minimum(100, side))
        centre = np.array([box.row_min, box.col_min]) + size / 2
        centre = centre + rng.uniform(-0.15, 0.15, 2) * extent
    else:
        extent = side * rng.uniform(0.45, 0.9) * np.exp(rng.uniform(-0.15, 0.15, 2))
        centre = side * rng.uniform(0.3, 0.7, 2)
    return _plan_around(centre, extent, side, mirrored, recoloured)


def _plan_around(
    centre: NDArray[np.float64],
    extent: NDArray[np.float64],
    side: NDArray[np.int64],
    mirrored: bool,
    recoloured: bool,
) -> CropPlan:
    start = np.clip(np.round(centre - extent / 2), 0, side - 32).astype(int)
    end = np.clip(np.round(centre + extent / 2), start + 32, side).astype(int)
    return CropPlan(int(start[0]), int(end[0]), int(start[1]), int(end[1]), mirrored, recoloured)


def _cropped(
    annotated_object: AnnotatedObject, crop_number: int, size_px: int, grid: int
) -> tuple[RgbImage, list[tuple[str, NDArray[np.uint8], bool]]]:
    """The pixels of a crop (S, S, 3), and each of its pieces: name, shares of the patches (N,), visible."""
    masks = list(_piece_masks(annotated_object))
    plan = plan_crop(annotated_object, [mask for _, mask in masks], crop_number)
    cut = np.s_[plan.top : plan.bottom, plan.left : plan.right]
    pieces: list[tuple[str, NDArray[np.uint8], bool]] = []
    for name, mask in masks:
        inside = mask[cut]
        share = cv2.resize(inside.astype(np.float32), (size_px, size_px), interpolation=cv2.INTER_AREA)
        share = cv2.resize(share, (grid, grid), interpolation=cv2.INTER_AREA)
        share = share[:, ::-1] if plan.mirrored else share
        visible = inside.sum() >= MIN_VISIBLE_SHARE * mask.sum() and share.sum() >= MIN_PATCHES
        pieces.append((name, np.round(share * 255).astype(np.uint8).reshape(-1), bool(visible)))
    pixels = annotated_object.image()[cut]
    shrinks = pixels.shape[0] > size_px or pixels.shape[1] > size_px
    pixels = cv2.resize(
        pixels, (size_px, size_px), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    )  # type: ignore[assignment]
    pixels = pixels[:, ::-1] if plan.mirrored else pixels
    if plan.recoloured:
        pixels = _recoloured(
            pixels, default_rng([crop_number, zlib.crc32(annotated_object.image_path.name.encode()), 1])
        )
    return np.ascontiguousarray(pixels), pieces


def _piece_masks(annotated_object: AnnotatedObject) -> Iterator[tuple[str, BoolMask]]:
    for name, rles in annotated_object.part_rles.items():
        for rle in rles:
            mask = coco_mask.decode(rle).astype(bool)
            if mask.any():
                yield name, mask


def _described(
    annotated_object: AnnotatedObject, pieces: Sequence[tuple[str, NDArray[np.uint8], bool]], first_row: int
) -> CachedCrop:
    return CachedCrop(
        annotated_object.image_path.name,
        annotated_object.object_class,
        tuple(
            CachedPiece(name, first_row + place, visible) for place, (name, _, visible) in enumerate(pieces)
        ),
    )


def _recoloured(image: RgbImage, rng: Generator) -> RgbImage:
    shifted = image.astype(np.float32) * rng.uniform(0.75, 1.3) + rng.uniform(-30, 30)
    shifted += rng.uniform(-12, 12, 3).astype(np.float32)
    if rng.random() < 0.1:
        shifted = np.repeat(shifted.mean(axis=2, keepdims=True), 3, axis=2)
    return np.clip(shifted, 0, 255).astype(np.uint8)
