"""A snapshot of a project's annotations on disk: training images, holdout, references, and the logged clicks.

It is written once, and read by fine-tuning and by the comparison of two versions. Training on the same snapshot with the
same settings gives the same run.

    snapshot.json     what it was made of, and the digests of the other files
    train.json        COCO-style part file (docs/data-formats.md): images that may be trained on
    holdout.json      the same: images that no run has ever trained on
    references.json   what each label means: image, positive and negative mask
    images/           one file per image, named by the SHA-256 of its pixels
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from model.data.annotated_objects import AnnotatedObject, read_annotated_objects
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
"""Clicks of one mask in order: [row, column, 1 or 0 (negative)] in pixels of the image."""


@dataclass(frozen=True)
class SnapshotMask:
    """All regions of one label in one annotation.

    Attributes:
        label: The label.
        rle: Their union, in the size of the image.
        sessions: Logged clicks that the regions were made with; empty if there are none.
    """

    label: str
    rle: CocoRle
    sessions: list[ClickSession] = field(default_factory=list)


@dataclass(frozen=True)
class SnapshotObject:
    """One annotation of one image.

    Attributes:
        file_name: Name of the image in `images/`.
        width: Width of the image in pixels, with its EXIF orientation applied.
        height: Height of the image in pixels, with its EXIF orientation applied.
        annotation: Name that is unique within the image, such as Label Studio's id of the annotation.
        masks: One entry per label.
    """

    file_name: str
    width: int
    height: int
    annotation: str
    masks: list[SnapshotMask]


@dataclass(frozen=True)
class SnapshotReference:
    """One reference of a label, on an image of the snapshot.

    Attributes:
        label: The label.
        file_name: Name of the image in `images/`.
        positive: Pixels that belong to the label.
        negative: Pixels that do not; None if nothing is known about them.
        version: Version of the reference, as in Label Studio's predictions; it changes when the reference does.
    """

    label: str
    file_name: str
    positive: CocoRle
    negative: CocoRle | None
    version: str


@dataclass(frozen=True)
class Snapshot:
    """A snapshot that was read from disk.

    Attributes:
        folder: Its folder.
        digest: SHA-256 (hex) of its whole content, images included, because their names are their hashes.
        labels: Labels, sorted.
        train: Annotations to train on.
        holdout: Annotations to compare versions on.
        references: What the labels mean.
    """

    folder: Path
    digest: str
    labels: list[str]
    train: list[SnapshotObject]
    holdout: list[SnapshotObject]
    references: list[SnapshotReference]

    @property
    def image_dir(self) -> Path:
        """Folder of the images."""
        return self.folder / IMAGES_DIR

    def train_objects(self) -> list[AnnotatedObject]:
        """Read the training annotated objects. Each annotation is an object whose parts are its labels."""
        return read_annotated_objects(self.folder / TRAIN_FILE, self.image_dir, grouping="object")

    def holdout_objects(self) -> list[AnnotatedObject]:
        """Read the holdout annotated objects; see `train_objects`."""
        return read_annotated_objects(self.folder / HOLDOUT_FILE, self.image_dir, grouping="object")


def write_snapshot(
    folder: Path,
    *,
    train: Sequence[SnapshotObject],
    holdout: Sequence[SnapshotObject],
    references: Sequence[SnapshotReference],
    made_of: dict[str, Any],
) -> Snapshot:
    """Write the files of a snapshot; `snapshot.json` is written last.

    Args:
        folder: Folder of the snapshot. Its `images/` must be complete.
        train: Annotations to train on.
        holdout: Annotations to compare versions on, of other images than `train`.
        references: What the labels mean.
        made_of: JSON values for people, such as the project and the annotations with their times. Part of the digest.

    Raises:
        DataError: If an image is in both splits, or is missing.
    """
    both = {annotated_object.file_name for annotated_object in train} & {
        annotated_object.file_name for annotated_object in holdout
    }
    if both:
        raise DataError(f"training images and holdout overlap, such as {min(both)}", hint="split by image")
    named = [annotated_object.file_name for annotated_object in (*train, *holdout)] + [
        r.file_name for r in references
    ]
    for name in named:
        if not (folder / IMAGES_DIR / name).is_file():
            raise DataError(f"{folder / IMAGES_DIR / name} is missing", hint="write the images first")
    labels = sorted(
        {mask.label for annotated_object in (*train, *holdout) for mask in annotated_object.masks}
    )
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
    """Read a snapshot and verify its digests.

    Args:
        folder: Folder of the snapshot.

    Raises:
        DataError: If the folder has no complete snapshot, or a file was changed after it was written.
    """
    try:
        text = (folder / HEAD_FILE).read_text()
        head = json.loads(text)
        if head.get("format") != FORMAT:
            raise DataError(f"{folder} is not a snapshot of this version", hint=f"expected {FORMAT}")
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
            train=_annotated_objects(contents[TRAIN_FILE]),
            holdout=_annotated_objects(contents[HOLDOUT_FILE]),
            references=[SnapshotReference(**r) for r in contents[REFERENCES_FILE]["references"]],
        )
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{folder} is not a complete snapshot ({type(error).__name__}: {error})", hint="make a new one"
        ) from error


def _part_file(annotated_objects: Sequence[SnapshotObject], labels: Sequence[str]) -> dict[str, Any]:
    """Make the COCO-style file of some annotations. An object is one annotation; all labels are parts of one class."""
    category_ids = {label: number for number, label in enumerate(labels, 1)}
    names = sorted({(s.file_name, s.width, s.height) for s in annotated_objects})
    image_ids = {name: number for number, (name, _, _) in enumerate(names, 1)}
    annotations = [
        {
            "image_id": image_ids[annotated_object.file_name],
            "category_id": category_ids[mask.label],
            "object_id": annotated_object.annotation,
            "segmentation": mask.rle,
            "sessions": mask.sessions,
            "iscrowd": 0,
        }
        for annotated_object in annotated_objects
        for mask in annotated_object.masks
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
        "annotations": [{"id": number, **one} for number, one in enumerate(annotations, 1)],
    }


def _annotated_objects(content: dict[str, Any]) -> list[SnapshotObject]:
    images = {image["id"]: image for image in content["images"]}
    labels = {category["id"]: category["name"] for category in content["categories"]}
    grouped: dict[tuple[int, str], list[SnapshotMask]] = {}
    for annotation in content["annotations"]:
        label = labels[annotation["category_id"]]
        mask = SnapshotMask(label, annotation["segmentation"], annotation["sessions"])
        grouped.setdefault((annotation["image_id"], annotation["object_id"]), []).append(mask)
    return [
        SnapshotObject(
            images[image_id]["file_name"], images[image_id]["width"], images[image_id]["height"], name, masks
        )
        for (image_id, name), masks in sorted(grouped.items(), key=lambda item: item[0])
    ]
