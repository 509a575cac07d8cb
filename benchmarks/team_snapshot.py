"""A snapshot as a project of a team would have it, made without Label Studio."""

from __future__ import annotations

import hashlib
import shutil
import zlib
from collections.abc import Sequence
from pathlib import Path

import cv2

from model.data.annotated_objects import AnnotatedObject, read_annotated_objects
from model.data.snapshot import (
    IMAGES_DIR,
    Snapshot,
    SnapshotMask,
    SnapshotObject,
    SnapshotReference,
    write_snapshot,
)
from model.masks import encode, union


def in_annotation_order(annotated_objects: Sequence[AnnotatedObject]) -> list[AnnotatedObject]:
    """The order in which the team annotates: mixed, the same in every run."""
    return sorted(
        annotated_objects, key=lambda annotated_object: zlib.crc32(annotated_object.image_path.name.encode())
    )


def photographs(folder: Path, split: str) -> list[AnnotatedObject]:
    """Those of `team.json` or `fresh.json` of benchmarks.face_parts or fish_parts, in the order of annotation."""
    return in_annotation_order(
        read_annotated_objects(folder / f"{split}.json", folder / "images", grouping="object")
    )


def team_snapshot(
    folder: Path,
    train: Sequence[AnnotatedObject],
    holdout: Sequence[AnnotatedObject],
    reference: AnnotatedObject,
) -> Snapshot:
    """Written anew. reference: shows every label; what else is labelled on it is what each label is not."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / IMAGES_DIR).mkdir(parents=True)
    return write_snapshot(
        folder,
        train=[_annotated_object(folder, annotated_object) for annotated_object in train],
        holdout=[_annotated_object(folder, annotated_object) for annotated_object in holdout],
        references=_references(folder, reference),
        made_of={"images": len(train)},
    )


def _annotated_object(folder: Path, annotated_object: AnnotatedObject) -> SnapshotObject:
    masks = [SnapshotMask(label, encode(mask_hw)) for label, mask_hw in annotated_object.masks().items()]
    height, width = annotated_object.image().shape[:2]
    return SnapshotObject(
        _copied(folder, annotated_object), width, height, annotated_object.image_path.stem, masks
    )


def _references(folder: Path, annotated_object: AnnotatedObject) -> list[SnapshotReference]:
    masks = annotated_object.masks()
    name = _copied(folder, annotated_object)
    return [
        SnapshotReference(
            label,
            name,
            encode(mask_hw),
            encode(union(other for key, other in masks.items() if key != label) & ~mask_hw),
            "0" * 12,
        )
        for label, mask_hw in masks.items()
    ]


def _copied(folder: Path, annotated_object: AnnotatedObject) -> str:
    image = annotated_object.image()
    name = f"{hashlib.sha256(image.tobytes()).hexdigest()}.png"
    cv2.imwrite(str(folder / IMAGES_DIR / name), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    return name
