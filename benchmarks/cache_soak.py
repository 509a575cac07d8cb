"""Whether a worker's memory stays flat: `python -m benchmarks.cache_soak [--images N] [--threads N] [--small]`.

One worker's engine, with the model that ships in the runtime that serves it, is clicked through N different photographs
that it reads from a mounted folder, each with a reference. Its caches are small here, so that they are full after the
first few dozen images: from then on, memory should not grow. Prints resident memory as it goes, and its slope over the
last two thirds. --small takes a small random network, for machines that have other things to do: images, masks and caches
are the same.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil
import torch

from model.checkpoints.weights import load_network
from model.images import read_image
from model.network.config import PRESETS
from model.network.refcut import RefCut
from model.predictor_config import serving_settings
from model.runtime.base import NetworkStages
from model.runtime.select import with_runtime
from refcut_backend.images.address import TaskImage
from refcut_backend.images.cache import ImageCache
from refcut_backend.images.decode import decode_image
from refcut_backend.images.fetch import Fetched, ImageFetcher, Stamp
from refcut_backend.images.mounted_files import MountedFolders
from refcut_backend.inference.engine import CacheLimits, ClickEngine
from refcut_backend.label_studio.connection import Connection
from refcut_backend.label_studio.prompts import PercentClick
from refcut_backend.queue.messages import ClickJob, PreloadJob
from refcut_backend.references.parse import mask_to_png
from refcut_backend.references.registry import StoredReference
from tests.support.one_model import OneModel

PHOTOGRAPH = Path(__file__).parents[1] / "label_studio_demo" / "car_parts_te66.jpg"
MIB = 2**20
IMAGE_BYTES, LIMITS = 48 * MIB, CacheLimits(features=128 * MIB, references=16 * MIB)
SMALL: dict[str, Any] = {
    "embed_dim": 48,
    "depth": 3,
    "heads": 2,
    "fusion_block": 1,
    "comparison_blocks": (1, 2),
    "head_channels": 8,
}
NOWHERE = Connection("http://127.0.0.1:9", "no token is needed")


def write_photographs(folder: Path, count: int) -> None:
    """Copies of a photograph, each with other noise on it, 1600 x 1050 px."""
    photograph = cv2.resize(read_image(PHOTOGRAPH), (1600, 1050))[..., ::-1]
    for number in range(count):
        noise = np.random.default_rng(number).integers(0, 24, photograph.shape, np.uint8)
        cv2.imwrite(str(folder / f"{number}.jpg"), cv2.add(photograph, noise))


def make_engine(
    folder: Path,
    references: dict[int, StoredReference],
    network: NetworkStages,
    *,
    image_bytes: int = IMAGE_BYTES,
    limits: CacheLimits = LIMITS,
) -> ClickEngine:
    """The engine as a worker has it, over small caches if no others are asked for."""
    fetcher = ImageFetcher(64 * MIB, limit_s=6, folders=MountedFolders(local_files=folder))

    def fetch(where: TaskImage, known: Stamp, limit_s: float) -> Fetched:
        return fetcher.fetch(where.address, where.task_id, NOWHERE, known, limit_s)

    image_cache = ImageCache(
        fetch, lambda data: decode_image(data, 10**8), max_bytes=image_bytes, limit_s=6, recheck_s=60
    )
    return ClickEngine(OneModel(network, "soak"), image_cache, references.get, limits)


def address_of(number: int) -> str:
    """Return the address of the photograph with this number in the mounted folder."""
    return f"/data/local-files/?d={number}.jpg"


def visit(engine: ClickEngine, number: int) -> None:
    """A task is opened and clicked twice; its label's reference changes every tenth image."""
    reference = number // 10
    engine.preload(PreloadJob(1, number, (address_of(number),), ((reference,),)), lambda: False)
    clicks = (PercentClick(40, 60, True), PercentClick(60, 60, True))
    for count in (1, 2):
        engine.answer(ClickJob(1, number, address_of(number), "Door", clicks[:count], (reference,)))
    if number % 7 == 6:  # someone goes back to an earlier task
        earlier = address_of(number // 2)
        engine.answer(ClickJob(1, number // 2, earlier, "Door", clicks[:1], (reference,)))


def soak(folder: Path, images: int, network: NetworkStages) -> list[tuple[int, float, float]]:
    """(image, resident MiB, kept MiB) as it goes."""
    mask_hw = np.zeros((1050, 1600), bool)
    mask_hw[300:700, 400:900] = True
    references = {
        number: StoredReference(f"v{number}", 1, number, address_of(number), mask_to_png(mask_hw), None)
        for number in range(images // 10 + 1)
    }
    engine, process = make_engine(folder, references, network), psutil.Process()
    engine.warm_up()
    measured = []
    for number in range(images):
        visit(engine, number)
        if number % 10 == 9:
            measured.append((number + 1, process.memory_info().rss / MIB, engine.nbytes / MIB))
            print(f"{number + 1} of {images} images", file=sys.stderr, flush=True)
    return measured


def network_of(*, small: bool) -> NetworkStages:
    """The model that ships, in the runtime that serves it, or a small random network."""
    if small:
        return RefCut(dataclasses.replace(PRESETS["s14"], **SMALL)).eval()
    network = load_network()
    return with_runtime(network, serving_settings(network.config), "auto")


def main() -> None:
    """Measure and print the result; see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--small", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    cv2.setNumThreads(arguments.threads)
    with tempfile.TemporaryDirectory(prefix="refcut-soak-") as name:
        write_photographs(Path(name), arguments.images)
        started = time.monotonic()
        measured = soak(Path(name), arguments.images, network_of(small=arguments.small))
    print("| image | resident, MiB | in the caches, MiB |\n| ---: | ---: | ---: |")
    for image, resident, held in measured[:: max(len(measured) // 10, 1)] + measured[-1:]:
        print(f"| {image} | {resident:.0f} | {held:.0f} |")
    late = measured[len(measured) // 3 :]
    slope = np.polyfit([m[0] for m in late], [m[1] for m in late], 1)[0]
    print(
        f"\nslope over the last two thirds: {100 * slope:+.1f} MiB per 100 images, "
        f"{time.monotonic() - started:.0f} s in all"
    )


if __name__ == "__main__":
    main()
