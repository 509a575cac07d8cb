"""A snapshot as a project of faces would have it, made without Label Studio."""

from __future__ import annotations

import hashlib
import shutil
import zlib
from collections.abc import Sequence
from pathlib import Path

import cv2

from model.data.scenes import Scene, read_scenes
from model.data.snapshot import (
    IMAGES_DIR,
    Snapshot,
    SnapshotMask,
    SnapshotReference,
    SnapshotScene,
    write_snapshot,
)
from model.masks import encode, union


def in_annotation_order(scenes: Sequence[Scene]) -> list[Scene]:
    """The order in which the team annotates: mixed, the same in every run."""
    return sorted(scenes, key=lambda scene: zlib.crc32(scene.image_path.name.encode()))


def faces(folder: Path, split: str) -> list[Scene]:
    """The photographs of `team.json` or `fresh.json` of benchmarks.face_parts, in the order of annotation."""
    return in_annotation_order(read_scenes(folder / f"{split}.json", folder / "images", grouping="object"))


def face_snapshot(
    folder: Path, train: Sequence[Scene], holdout: Sequence[Scene], reference: Scene
) -> Snapshot:
    """Written anew. reference: shows every label; what else is labelled on it is what each label is not."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / IMAGES_DIR).mkdir(parents=True)
    return write_snapshot(
        folder,
        train=[_scene(folder, scene) for scene in train],
        holdout=[_scene(folder, scene) for scene in holdout],
        references=_references(folder, reference),
        made_of={"images": len(train)},
    )


def _scene(folder: Path, scene: Scene) -> SnapshotScene:
    masks = [SnapshotMask(label, encode(mask_hw)) for label, mask_hw in scene.masks().items()]
    height, width = scene.image().shape[:2]
    return SnapshotScene(_copied(folder, scene), width, height, scene.image_path.stem, masks)


def _references(folder: Path, scene: Scene) -> list[SnapshotReference]:
    masks = scene.masks()
    name = _copied(folder, scene)
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


def _copied(folder: Path, scene: Scene) -> str:
    image = scene.image()
    name = f"{hashlib.sha256(image.tobytes()).hexdigest()}.png"
    cv2.imwrite(str(folder / IMAGES_DIR / name), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    return name
