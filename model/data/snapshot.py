"""A snapshot of a project's annotations on disk: what one fine-tuning learns from, what it is judged on, and how clicks
were really made. Written once, read by `model.finetuning.run` and `model.evaluation.compare`; a run on the same snapshot
is the same run.

    snapshot.json     what it was made of, and the digests of everything else
    train.json        COCO-style part file (docs/data-formats.md): images that may be trained on
    holdout.json      the same: images that no run has ever trained on
    references.json   what each label means: image, positive and negative mask
    images/           one file an image, named by the SHA-256 of its pixels
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from model.data.scenes import Scene, read_scenes
from model.errors import DataError

FORMAT = "refcut-snapshot-1"
HEAD_FILE = "snapshot.json"
TRAIN_FILE = "train.json"
HOLDOUT_FILE = "holdout.json"
REFERENCES_FILE = "references.json"
IMAGES_DIR = "images"

CocoRle = dict[str, Any]
"""`{"size": [height, width], "counts": "..."}`, compressed as by pycocotools."""
ClickSession = list[list[float]]
"""Clicks of one mask in the order in which they were made: [row, column, 1 or 0 (negative)], pixels of the image."""


@dataclass(frozen=True)
class SnapshotMask:
    """All of one label in one annotation. sessions: the logged clicks that its masks came from, if there were any."""

    label: str
    rle: CocoRle
    sessions: list[ClickSession] = field(default_factory=list)


@dataclass(frozen=True)
class SnapshotScene:
    """One annotation of one image. file_name: in images/. annotation: a name that is the image's own, such as
    Label Studio's id of the annotation. width, height: of the image as shown (EXIF orientation applied)."""

    file_name: str
    width: int
    height: int
    annotation: str
    masks: list[SnapshotMask]


@dataclass(frozen=True)
class SnapshotReference:
    """What a label means, on an image of the snapshot. version: as in Label Studio's predictions; changes with it."""

    label: str
    file_name: str
    positive: CocoRle
    negative: CocoRle | None
    version: str


@dataclass(frozen=True)
class Snapshot:
    """A snapshot as it was read. digest: names its whole content, images included (their names are their hashes)."""

    folder: Path
    digest: str
    labels: list[str]
    train: list[SnapshotScene]
    holdout: list[SnapshotScene]
    references: list[SnapshotReference]

    @property
    def image_dir(self) -> Path:
        return self.folder / IMAGES_DIR

    def train_scenes(self) -> list[Scene]:
        """For training: every annotation an object whose parts are its labels."""
        return read_scenes(self.folder / TRAIN_FILE, self.image_dir, grouping="object")

    def holdout_scenes(self) -> list[Scene]:
        """For judging."""
        return read_scenes(self.folder / HOLDOUT_FILE, self.image_dir, grouping="object")


def write_snapshot(
    folder: Path,
    *,
    train: Sequence[SnapshotScene],
    holdout: Sequence[SnapshotScene],
    references: Sequence[SnapshotReference],
    made_of: dict[str, Any],
) -> Snapshot:
    """Writes the files beside images/, which must be complete by then; snapshot.json comes last.

    made_of: JSON for people: project, annotations with their times. It counts for the digest.
    Raises DataError when an image is on both sides, or is not there.
    """
    both = {scene.file_name for scene in train} & {scene.file_name for scene in holdout}
    if both:
        raise DataError(
            f"images to train and to judge on overlap, such as {min(both)}", hint="split by image"
        )
    named = [scene.file_name for scene in (*train, *holdout)] + [r.file_name for r in references]
    for name in named:
        if not (folder / IMAGES_DIR / name).is_file():
            raise DataError(f"{folder / IMAGES_DIR / name} is missing", hint="write the images first")
    labels = sorted({mask.label for scene in (*train, *holdout) for mask in scene.masks})
    contents = {
        TRAIN_FILE: _part_file(train, labels),
        HOLDOUT_FILE: _part_file(holdout, labels),
        REFERENCES_FILE: {"references": [asdict(r) for r in references]},
    }
    digests = {}
    for name, content in contents.items():
        text = json.dumps(content, sort_keys=True) + "\n"
        (folder / name).write_text(text)
        digests[name] = hashlib.sha256(text.encode()).hexdigest()
    head = {"format": FORMAT, "made_of": made_of, "labels": labels, "files": digests}
    (folder / HEAD_FILE).write_text(json.dumps(head, sort_keys=True, indent=2) + "\n")
    return read_snapshot(folder)


def read_snapshot(folder: Path) -> Snapshot:
    """Raises DataError when it is none, incomplete, or was changed since it was written."""
    try:
        text = (folder / HEAD_FILE).read_text()
        head = json.loads(text)
        if head.get("format") != FORMAT:
            raise DataError(f"{folder} is no snapshot of this version", hint=f"expected {FORMAT}")
        contents = {}
        for name, digest in head["files"].items():
            data = (folder / name).read_bytes()
            if hashlib.sha256(data).hexdigest() != digest:
                raise DataError(f"{folder / name} was changed", hint="make a new snapshot")
            contents[name] = json.loads(data)
        return Snapshot(
            folder=folder,
            digest=hashlib.sha256(text.encode()).hexdigest(),
            labels=list(head["labels"]),
            train=_scenes(contents[TRAIN_FILE]),
            holdout=_scenes(contents[HOLDOUT_FILE]),
            references=[SnapshotReference(**r) for r in contents[REFERENCES_FILE]["references"]],
        )
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{folder} is no complete snapshot ({type(error).__name__}: {error})", hint="make a new one"
        ) from error


def _part_file(scenes: Sequence[SnapshotScene], labels: Sequence[str]) -> dict[str, Any]:
    """The COCO-style file of these scenes. An object is one annotation; all labels are parts of one class."""
    category_ids = {label: number for number, label in enumerate(labels, 1)}
    names = sorted({(s.file_name, s.width, s.height) for s in scenes})
    image_ids = {name: number for number, (name, _, _) in enumerate(names, 1)}
    annotations = [
        {
            "image_id": image_ids[scene.file_name],
            "category_id": category_ids[mask.label],
            "object_id": scene.annotation,
            "segmentation": mask.rle,
            "sessions": mask.sessions,
            "iscrowd": 0,
        }
        for scene in scenes
        for mask in scene.masks
    ]
    return {
        "images": [
            {"id": image_ids[name], "file_name": name, "width": width, "height": height}
            for name, width, height in names
        ],
        "categories": [
            {"id": number, "name": label, "supercategory": "project"}
            for label, number in category_ids.items()
        ],
        "annotations": [{"id": number, **said} for number, said in enumerate(annotations, 1)],
    }


def _scenes(content: dict[str, Any]) -> list[SnapshotScene]:
    images = {image["id"]: image for image in content["images"]}
    labels = {category["id"]: category["name"] for category in content["categories"]}
    grouped: dict[tuple[int, str], list[SnapshotMask]] = {}
    for said in content["annotations"]:
        mask = SnapshotMask(labels[said["category_id"]], said["segmentation"], said["sessions"])
        grouped.setdefault((said["image_id"], said["object_id"]), []).append(mask)
    return [
        SnapshotScene(
            images[image_id]["file_name"], images[image_id]["width"], images[image_id]["height"], name, masks
        )
        for (image_id, name), masks in sorted(grouped.items(), key=lambda item: item[0])
    ]
