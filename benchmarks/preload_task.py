"""What preparing a task when it is opened saves its first click: `python -m benchmarks.preload_task [--rounds N]`.

The first click on a photograph of 24 megapixels, with references: on a worker that has seen none of them, and on one that
was told that the task is opened. Images come from a mounted folder, so no network is in it. The model is served as by
default, with caches of the default sizes. Medians over interleaved rounds, each on fresh caches; the first round is left
out.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import torch

from benchmarks.cache_soak import PHOTOGRAPH, address_of, make_engine
from benchmarks.report import machine, print_table
from model.checkpoints.weights import load_network
from model.images import read_image
from model.predictor_config import serving_settings
from model.runtime.select import with_runtime
from refcut_backend.inference.engine import CacheLimits
from refcut_backend.inference.load_model import leave_cores_to_openvino
from refcut_backend.label_studio.prompts import PercentClick
from refcut_backend.queue.messages import ClickJob, PreloadJob
from refcut_backend.references.parse import mask_to_png
from refcut_backend.references.registry import StoredReference
from refcut_backend.settings import Settings

SIZE = (6000, 4000)
CLICK = PercentClick(40, 60, True)


def main() -> None:
    """Measure and print the result; see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--references", type=int, default=4, help="references of the label")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    cv2.setNumThreads(arguments.threads)
    ids = tuple(range(1, arguments.references + 1))
    click = ClickJob(1, 0, address_of(0), "Door", (CLICK,), ids)
    opened = PreloadJob(1, 0, (address_of(0),), (ids,))
    mask_hw = np.zeros(SIZE[::-1], bool)
    mask_hw[1000:2000, 1000:3000] = True
    png = mask_to_png(mask_hw)
    references = {n: StoredReference(f"v{n}", 1, n, address_of(n), png, None) for n in ids}
    network = load_network()
    stages = with_runtime(network, serving_settings(network.config), "auto")
    leave_cores_to_openvino(stages)
    settings = Settings()
    limits = CacheLimits(settings.feature_cache_max_bytes, settings.reference_cache_max_bytes)
    taken: dict[str, list[float]] = {"cold": [], "prepared": []}
    with tempfile.TemporaryDirectory(prefix="refcut-preload-") as name:
        photograph = cv2.resize(read_image(PHOTOGRAPH), SIZE)[..., ::-1]
        for number in (0, *ids):
            cv2.imwrite(str(Path(name) / f"{number}.jpg"), np.roll(photograph, 100 * number, axis=1))
        for _ in range(arguments.rounds + 1):
            for state, milliseconds in taken.items():
                engine = make_engine(
                    Path(name), references, stages, image_bytes=settings.image_cache_max_bytes, limits=limits
                )
                if state == "prepared":
                    engine.preload(opened, lambda: False)
                started = time.perf_counter()
                engine.answer(click)
                milliseconds.append(1000 * (time.perf_counter() - started))
    cold, prepared = (statistics.median(milliseconds[1:]) for milliseconds in taken.values())
    print(f"{machine()}; {arguments.references} references, median of {arguments.rounds}")
    print_table(
        ["24 MP", "cold ms", "prepared ms", "times"],
        [["first click", f"{cold:.0f}", f"{prepared:.0f}", f"{cold / prepared:.1f}"]],
    )


if __name__ == "__main__":
    main()
