"""What preparing a task when it is opened saves its first click: `python -m benchmarks.preload_task [--rounds N]`.

The first click on a photograph of 24 megapixels, with a reference: on a worker that has seen neither, and on one that was
told that the task is opened. Images come from a mounted folder, so no network is in it. Medians over interleaved rounds,
each on fresh caches; the first round is thrown away.
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
from model.checkpoints.weights import load_network
from model.images import read_image
from refcut_backend.label_studio.prompts import PercentClick
from refcut_backend.queue.messages import ClickJob, PreloadJob
from refcut_backend.references.parse import mask_to_png
from refcut_backend.references.registry import StoredReference

SIZE = (6000, 4000)
CLICK = ClickJob(1, 0, address_of(0), "Door", (PercentClick(40, 60, True),), (1,))
OPENED = PreloadJob(1, 0, (address_of(0),), (1,))


def main() -> None:
    """Measure and print the result; see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    cv2.setNumThreads(arguments.threads)
    mask_hw = np.zeros(SIZE[::-1], bool)
    mask_hw[1000:2000, 1000:3000] = True
    references = {1: StoredReference("v1", 1, 1, address_of(1), mask_to_png(mask_hw), None)}
    network = load_network()
    taken: dict[str, list[float]] = {"cold": [], "prepared": []}
    with tempfile.TemporaryDirectory(prefix="refcut-preload-") as name:
        photograph = cv2.resize(read_image(PHOTOGRAPH), SIZE)[..., ::-1]
        for number in (0, 1):
            cv2.imwrite(str(Path(name) / f"{number}.jpg"), np.roll(photograph, 100 * number, axis=1))
        for _ in range(arguments.rounds + 1):
            for state, milliseconds in taken.items():
                engine = make_engine(Path(name), references, network)
                if state == "prepared":
                    engine.preload(OPENED, lambda: False)
                started = time.perf_counter()
                engine.answer(CLICK)
                milliseconds.append(1000 * (time.perf_counter() - started))
    cold, prepared = (statistics.median(milliseconds[1:]) for milliseconds in taken.values())
    print(
        f"first click, median of {arguments.rounds}, {arguments.threads} threads: cold {cold:.0f} ms, ",
        end="",
    )
    print(f"prepared {prepared:.0f} ms ({cold / prepared:.1f} times as fast)")


if __name__ == "__main__":
    main()
