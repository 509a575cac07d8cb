"""What 200 existing masks add to a click: `python -m benchmarks.body_with_masks [--masks N] [--rounds N]`.

First the parsing alone, three ways on the same bodies in turns. Then a real server process that answers every click at
once: its own CPU time a request, reading the body off the socket included. Medians of CPU time; first round thrown away.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import cv2
import httpx
import numpy as np
import psutil

from benchmarks.instant_server import LABEL_CONFIG, PORT_LINE
from refcut_backend.label_studio import brush_rle
from refcut_backend.label_studio.payloads import PredictRequest, without_masks

SIZE = (1200, 1600)
MEGABYTES = (2, 5, 10)


def mask(share_of_rows: float) -> list[int]:
    """The RLE of an uneven shape in the upper rows: the more rows, the longer."""
    height = SIZE[0]
    noise = np.random.default_rng(0).random(SIZE, np.float32)
    smooth_hw = cv2.GaussianBlur(noise, (0, 0), 12)
    uneven_hw = np.asarray(smooth_hw > smooth_hw.mean())
    uneven_hw[round(share_of_rows * height) :] = False
    return brush_rle.encode(uneven_hw)


def mask_of_bytes(wanted: int) -> list[int]:
    """A mask whose JSON is about `wanted` bytes."""
    share = 0.02
    while len(json.dumps(mask(share))) < wanted and share < 1:
        share *= 1.2
    return mask(min(share, 1.0))


def click_body(masks: int, megabytes: float) -> bytes:
    """A click on a task whose draft has so many masks of so many megabytes together."""
    height, width = SIZE
    size = {"original_width": width, "original_height": height, "image_rotation": 0}
    rle = mask_of_bytes(round(1e6 * megabytes / masks)) if masks else []
    value = {"format": "rle", "rle": rle, "brushlabels": ["Door"]}
    region = {"type": "brushlabels", "from_name": "brush", "to_name": "image", **size, "value": value}
    regions = [{"id": f"mask{number}", **region} for number in range(masks)]
    dot = {"x": 50, "y": 50, "width": 0.4, "keypointlabels": ["Door"]}
    click = {
        "id": "dot",
        "type": "keypointlabels",
        "from_name": "click",
        "to_name": "image",
        **size,
        "value": dot,
    }
    task: dict[str, Any] = {"id": 1, "data": {"image": "/data/upload/1/a.jpg"}}
    task["drafts"] = [{"id": 1, "result": regions}]
    params = {"context": {"result": [click | {"is_positive": True}]}}
    body = {"tasks": [task], "project": "1.1", "label_config": LABEL_CONFIG, "params": params}
    return json.dumps(body, separators=(",", ":")).encode()


PARSERS: dict[str, Callable[[bytes], PredictRequest]] = {
    "json, then pydantic": lambda body: PredictRequest.model_validate(json.loads(body)),
    "pydantic from JSON": PredictRequest.model_validate_json,
    "without masks": lambda body: PredictRequest.model_validate_json(without_masks(body)),
}


def time_parsers(bodies: dict[str, bytes], rounds: int) -> dict[str, dict[str, float]]:
    """Milliseconds a body and way."""
    taken: dict[str, dict[str, list[float]]] = {name: defaultdict(list) for name in bodies}
    for _ in range(rounds + 1):
        for name, body in bodies.items():
            for way, parse in PARSERS.items():
                started = time.process_time()
                parse(body)
                taken[name][way].append(1000 * (time.process_time() - started))
    return {
        name: {way: statistics.median(values[1:]) for way, values in ways.items()}
        for name, ways in taken.items()
    }


def time_server(bodies: dict[str, bytes], rounds: int) -> dict[str, float]:
    """Milliseconds of the server's CPU a body, each the mean of a few requests in a row (CPU clocks tick slowly)."""
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks.instant_server"], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            url = f"http://127.0.0.1:{process.stdout.readline().removeprefix(PORT_LINE).strip()}"
            server = psutil.Process(process.pid)
            taken: dict[str, list[float]] = defaultdict(list)
            with httpx.Client(base_url=url, timeout=120, trust_env=False) as client:
                for _ in range(rounds + 1):
                    for name, body in bodies.items():
                        taken[name].append(server_milliseconds(client, server, body))
        finally:
            process.terminate()
    return {name: statistics.median(values[1:]) for name, values in taken.items()}


def server_milliseconds(client: httpx.Client, server: psutil.Process, body: bytes, repeat: int = 10) -> float:
    """Return the server's processor time per request in milliseconds, over `repeat` requests."""
    before = server.cpu_times()
    for _ in range(repeat):
        answer = client.post("/predict", content=body, headers={"Content-Type": "application/json"})
        assert answer.json()["results"][0]["result"], answer.text
    after = server.cpu_times()
    return 1000 * (after.user + after.system - before.user - before.system) / repeat


def main() -> None:
    """Measure and print the result; see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--masks", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    bodies = {"no masks": click_body(0, 0)}
    for megabytes in MEGABYTES:
        body = click_body(arguments.masks, megabytes)
        bodies[f"{arguments.masks} masks, {len(body) / 1e6:.1f} MB"] = body
    parsing = time_parsers(bodies, arguments.rounds)
    server = time_server(bodies, arguments.rounds)
    print(
        f"| median of {arguments.rounds}, CPU ms | "
        + " | ".join(PARSERS)
        + " | whole request in the server | masks add |"
    )
    print("| --- |" + " ---: |" * (len(PARSERS) + 2))
    for name, ways in parsing.items():
        row = [f"{ways[way]:.1f}" for way in PARSERS]
        row += [f"{server[name]:.1f}", f"{server[name] - server['no masks']:.1f}"]
        print(f"| {name} | " + " | ".join(row) + " |")


if __name__ == "__main__":
    main()
