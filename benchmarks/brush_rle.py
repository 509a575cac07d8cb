"""Our brush RLE beside label-studio-sdk's: `python -m benchmarks.brush_rle [--rounds N]`.

Both encode the same masks and decode the same lists, in turns, so that a drifting machine hits both alike. Medians of CPU
time, which other work on the machine distorts least; the first round is thrown away.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import defaultdict
from collections.abc import Callable

import cv2
import numpy as np
from label_studio_sdk.converter import brush
from numpy.typing import NDArray

from refcut_backend.label_studio import brush_rle

SIZES = {"2 MP": (1200, 1600), "12 MP": (3000, 4000)}
CELL_PX = 8


def blob(height: int, width: int) -> NDArray[np.bool_]:
    """An ellipse: what a click gives."""
    canvas = np.zeros((height, width), np.uint8)
    cv2.ellipse(canvas, (width // 2, height // 2), (width // 3, height // 4), 20, 0, 360, 1, -1)
    return canvas > 0


def ragged(height: int, width: int) -> NDArray[np.bool_]:
    """Random cells of 8 px: more boundary than any object has."""
    cells = np.random.default_rng(0).random((-(-height // CELL_PX), -(-width // CELL_PX))) > 0.5
    return np.kron(cells, np.ones((CELL_PX, CELL_PX), bool))[:height, :width]


def timed(action: Callable[[], object]) -> float:
    """CPU milliseconds."""
    started = time.process_time()
    action()
    return 1000 * (time.process_time() - started)


def measure(mask_hw: NDArray[np.bool_], rounds: int) -> dict[str, float]:
    """Medians of encoding and decoding, ours and the SDK's."""
    height, width = mask_hw.shape
    grey = mask_hw.astype(np.uint8) * 255
    rle = brush_rle.encode(mask_hw)
    actions: dict[str, Callable[[], object]] = {
        "SDK encode": lambda: brush.mask2rle(grey),
        "encode": lambda: brush_rle.encode(mask_hw),
        "SDK decode": lambda: brush.decode_rle(rle).reshape(height, width, 4)[..., 3] > 0,
        "decode": lambda: brush_rle.decode(rle, height, width),
    }
    milliseconds = defaultdict(list)
    for _ in range(rounds + 1):
        for name, action in actions.items():
            milliseconds[name].append(timed(action))
    return {name: statistics.median(values[1:]) for name, values in milliseconds.items()}


def main() -> None:
    """Measure and print the result; see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    print(
        f"| median of {arguments.rounds}, CPU ms | SDK encode | encode | times | SDK decode | decode | times |"
    )
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for size_name, size in SIZES.items():
        for make in (blob, ragged):
            ms = measure(make(*size), arguments.rounds)
            row = [f"{size_name} {make.__name__}"]
            for kind in ("encode", "decode"):
                ratio = ms[f"SDK {kind}"] / ms[kind]
                row += [f"{ms[f'SDK {kind}']:.1f}", f"{ms[kind]:.1f}", f"{ratio:.0f}x"]
            print("| " + " | ".join(row) + " |", flush=True)


if __name__ == "__main__":
    main()
