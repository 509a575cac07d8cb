"""Clicks a second on one device: `python -m benchmarks.click_throughput [--workers 1 2 4 8] [--seconds S]`.

Each worker is a process with a predictor of its own, as `refcut worker` has, and goes through what an annotator does all
day: a photograph, a label whose reference is known, a first click and two corrections, the next photograph. Queue, web
server and Label Studio are left out: this is what the device can give. The workers share out the cores. A table: workers,
clicks a second of all of them together, and the median and 95th percentile of a click in milliseconds.
"""

from __future__ import annotations

import argparse
import dataclasses
import multiprocessing
import os
import time
from concurrent.futures import ProcessPoolExecutor
from threading import Barrier

import numpy as np
import torch

from benchmarks.click_latency import PHOTOGRAPH, REFERENCE, REFERENCE_MASK, device_name
from model.checkpoints.weights import load_network
from model.images import read_image, read_mask
from model.predictor import RefCutPredictor
from model.predictor_config import serving_settings
from model.runtime.select import with_runtime
from model.types import Click

WARM_UP_S = 3.0
CLICKS_A_TASK = 3


def click_for(seconds: float, threads: int, bfloat16: bool, ready: Barrier) -> list[float]:
    """Milliseconds of every click that one worker answered within `seconds`, counted from when all are warm."""
    torch.set_num_threads(threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = load_network().to(device)
    settings = dataclasses.replace(serving_settings(network.config), bfloat16=bfloat16)
    predictor = RefCutPredictor(with_runtime(network, settings, "auto"), settings)
    image, photograph = read_image(PHOTOGRAPH), read_image(REFERENCE)
    mask_hw = read_mask(REFERENCE_MASK, (photograph.shape[0], photograph.shape[1]))
    reference = predictor.encode_reference(photograph, mask_hw, None)
    height, width = image.shape[:2]
    clicks = [Click(height * 0.65, width * (0.49 - 0.02 * number)) for number in range(CLICKS_A_TASK)]

    def work_for(duration_s: float) -> list[float]:
        end = time.perf_counter() + duration_s
        milliseconds: list[float] = []
        while time.perf_counter() < end:
            done = len(milliseconds) % CLICKS_A_TASK
            started = time.perf_counter()
            if done == 0:
                predictor.set_image(image)
                predictor.set_reference(reference)
            predictor.predict(clicks[: done + 1])
            milliseconds.append(1000 * (time.perf_counter() - started))
        return milliseconds

    work_for(WARM_UP_S)
    ready.wait()
    return work_for(seconds)


def measure(workers: int, seconds: float, bfloat16: bool) -> list[float]:
    """Milliseconds of the clicks of all workers."""
    threads = max((os.cpu_count() or 1) // workers, 1)
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager, ProcessPoolExecutor(workers, mp_context=context) as pool:
        ready = manager.Barrier(workers)
        running = [pool.submit(click_for, seconds, threads, bfloat16, ready) for _ in range(workers)]
        return [click for worker in running for click in worker.result()]


def main() -> None:
    """Measure and print the result; see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--bfloat16", action="store_true")
    arguments = parser.parse_args()
    print(f"{device_name()}, torch {torch.__version__}\n")
    print("| workers | clicks a second | median, ms | 95th percentile, ms |\n| ---: | ---: | ---: | ---: |")
    for workers in arguments.workers:
        clicks = measure(workers, arguments.seconds, arguments.bfloat16)
        median, late = np.percentile(clicks, [50, 95])
        print(
            f"| {workers} | {len(clicks) / arguments.seconds:.1f} | {median:.1f} | {late:.1f} |", flush=True
        )


if __name__ == "__main__":
    main()
