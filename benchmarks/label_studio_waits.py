"""What Label Studio itself waits for: `python -m benchmarks.label_studio_waits [--rounds N]`.

/health, /setup fifty times at once, and the acknowledgement of webhooks while their work goes on: annotations that are
marked as a reference, with masks of several megabytes. A real server process; milliseconds as the callers see them.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx

from benchmarks.body_with_masks import SIZE, mask_of_bytes
from benchmarks.instant_server import LABEL_CONFIG, PORT_LINE

AT_ONCE = 50
SETUP = json.dumps(
    {"project": "1.1", "schema": LABEL_CONFIG, "hostname": "http://label-studio", "access_token": "t"}
).encode()


def webhook(masks: int, megabytes: float) -> bytes:
    """A submitted annotation with so many masks, the first of them a reference."""
    height, width = SIZE
    size = {"original_width": width, "original_height": height, "image_rotation": 0}
    rle = mask_of_bytes(round(1e6 * megabytes / masks))
    region = {"type": "brushlabels", "from_name": "brush", "to_name": "image", **size}
    result: list[dict[str, Any]] = [
        {"id": f"mask{number}", **region, "value": {"format": "rle", "rle": rle, "brushlabels": ["Door"]}}
        for number in range(masks)
    ]
    role = {"format": "rle", "rle": rle, "choices": ["Reference"]}
    result.append({**result[0], "type": "choices", "from_name": "refcut_role", "value": role})
    body = {
        "action": "ANNOTATION_CREATED",
        "project": {"id": 1, "label_config": LABEL_CONFIG},
        "task": {"id": 1, "data": {"image": "/data/upload/1/a.jpg"}},
        "annotation": {"id": 1, "result": result, "updated_at": "2026-01-01"},
    }
    return json.dumps(body, separators=(",", ":")).encode()


def timed(call: Callable[[], httpx.Response]) -> float:
    """Return the seconds that a call takes. Raises httpx.HTTPStatusError if it fails."""
    started = time.perf_counter()
    call().raise_for_status()
    return 1000 * (time.perf_counter() - started)


def measure(client: httpx.Client, rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each call, by what is called; the first round of each kind is thrown away."""

    def post(path: str, body: bytes) -> Callable[[], httpx.Response]:
        return lambda: client.post(path, content=body, headers={"Content-Type": "application/json"})

    def in_turn(call: Callable[[], httpx.Response]) -> list[float]:
        return [timed(call) for _ in range(rounds + 1)][1:]

    def at_once(call: Callable[[], httpx.Response]) -> list[float]:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            of_rounds = [list(pool.map(lambda _: timed(call), range(AT_ONCE))) for _ in range(rounds + 1)]
        return [milliseconds for of_round in of_rounds[1:] for milliseconds in of_round]

    setup = post("/setup", SETUP)
    taken = {"health": in_turn(lambda: client.get("/health")), "setup": in_turn(setup)}
    taken[f"setup, {AT_ONCE} at once"] = at_once(setup)
    for megabytes in (0.2, 2, 10):
        taken[f"webhook, {megabytes} MB"] = in_turn(post("/webhook", webhook(20, megabytes)))
    return taken


def main() -> None:
    """Measure and print the result; see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    arguments = parser.parse_args()
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks.instant_server"], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            url = f"http://127.0.0.1:{process.stdout.readline().removeprefix(PORT_LINE).strip()}"
            limits = httpx.Limits(max_connections=AT_ONCE, max_keepalive_connections=AT_ONCE)
            with httpx.Client(base_url=url, timeout=60, trust_env=False, limits=limits) as client:
                taken = measure(client, arguments.rounds)
        finally:
            process.terminate()
    print("| ms | median | largest |\n| --- | ---: | ---: |")
    for name, values in taken.items():
        print(f"| {name} | {statistics.median(values):.1f} | {max(values):.1f} |")


if __name__ == "__main__":
    main()
