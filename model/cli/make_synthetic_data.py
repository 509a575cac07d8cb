"""Draw a small training set of coloured shapes in DATA/synthetic, for trying things out.

An object is a "fish" of two or three parts, each in its own colour. Position, size and background vary.

    python -m model make-synthetic-data DATA
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.random import Generator, default_rng
from numpy.typing import NDArray

from model.cli.common import command_parser
from model.masks import encode, union
from model.types import BoolMask

FOLDER = "synthetic"
SIDE_PX = 128
COLOURS = {"body": (200, 80, 40), "tail": (40, 160, 220), "fin": (90, 210, 60)}


def write_synthetic_data(data_root: Path, pictures: int = 24, seed: int = 0) -> Path:
    """Draw pictures and write them with their masks.

    Args:
        data_root: Folder that gets a folder `FOLDER`.
        pictures: Number of pictures.
        seed: Of the random numbers; the same seed gives the same files.

    Returns:
        Path of parts.json, in the format of docs/data-formats.md.
    """
    folder = data_root / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    rng = default_rng(seed)
    names = sorted(COLOURS)
    annotations = []
    for number in range(pictures):
        image, masks = _picture(rng)
        cv2.imwrite(str(folder / f"{number:03}.png"), image)
        annotations += [
            {
                "image_id": number,
                "category_id": names.index(name),
                "object_id": 0,
                "segmentation": encode(mask),
            }
            for name, mask in masks.items()
        ]
    content = {
        "images": [{"id": number, "file_name": f"{number:03}.png"} for number in range(pictures)],
        "categories": [{"id": names.index(n), "name": n, "supercategory": "fish"} for n in names],
        "annotations": annotations,
    }
    path = folder / "parts.json"
    path.write_text(json.dumps(content))
    return path


def _picture(rng: Generator) -> tuple[NDArray[np.uint8], dict[str, BoolMask]]:
    """A picture (H, W, 3) and the masks of its parts, which do not overlap."""
    backdrop = rng.integers(0, 256, (4, 4, 3)).astype(np.uint8)
    image: NDArray[np.uint8] = cv2.resize(backdrop, (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_LINEAR)  # type: ignore[assignment]
    row, col = rng.integers(45, SIDE_PX - 45, 2)
    length = int(rng.integers(18, 28))
    shapes = {"body": ((col, row), (length, length // 2)), "tail": ((col - length - 8, row), (8, 12))}
    if rng.random() < 0.7:
        shapes["fin"] = ((col, row - length // 2 - 5), (8, 7))
    masks: dict[str, BoolMask] = {}
    for name, (centre, axes) in shapes.items():
        mask = np.zeros((SIDE_PX, SIDE_PX), np.uint8)
        cv2.ellipse(mask, (int(centre[0]), int(centre[1])), axes, 0, 0, 360, 1, -1)
        free = ~union(masks.values(), mask.shape)
        masks[name] = (mask > 0) & free
        image[masks[name]] = COLOURS[name]
    noise = rng.normal(0, 8, image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8), masks


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    parser = command_parser("make-synthetic-data", __doc__)
    parser.add_argument("data", type=Path, help="folder to write into")
    print(write_synthetic_data(parser.parse_args(argv).data))
