"""A ViT-B in SimpleClick's shape: how much faster OpenVINO is than torch, and how many pixels that changes.

    python -m benchmarks.simpleclick_speed [--photographs N] [--threads N]

torch in float32 computes what SimpleClick's own predictor computes, without flip: the whole network for each click. Each
form gets the same three clicks on each photograph of the demo. The weights are random, because SimpleClick's are not part
of this repository; the last layer is shifted so that about half of the pixels belong to a mask. Far more pixels lie near
the threshold than with trained weights: the share that differs compares forms with each other and says little of a model.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import defaultdict

import numpy as np
import torch

from benchmarks.report import machine, print_table
from model.cli.common import add_threads
from model.images import read_image
from model.masks import evenly_spaced
from model.network.config import PRESETS
from model.network.refcut import RefCut
from model.predictor import RefCutPredictor
from model.predictor_config import PredictorSettings, serving_settings
from model.runtime.base import NetworkStages
from model.runtime.openvino import OpenVinoStages
from model.transforms import crop_image
from model.types import BoolMask, Box, Click, RgbImage
from refcut_backend.playground.demo import PHOTOGRAPHS

CLICKS = 3
BASELINE = "torch, float32"


def undecided_network(image: RgbImage) -> RefCut:
    """A ViT-B of random weights whose masks cover half of an image."""
    torch.manual_seed(0)
    network = RefCut(PRESETS["vit_b16"]).eval()
    size = network.config.network_px
    with torch.inference_mode():
        pixels = crop_image(image, Box.whole(*image.shape[:2]), size, "aligned")
        logits = network.segment(network.encode_image(pixels), torch.zeros(1, 3, size, size)).logits
    scale = 3 / float(logits.std())
    with torch.no_grad():
        last = network.head.conv_seg
        assert last.bias is not None
        last.weight.mul_(scale)
        last.bias.sub_(float(logits.median())).mul_(scale)
    return network


def clicks_on(image: RgbImage, seed: int) -> list[Click]:
    """Clicks anywhere; the second one is negative."""
    random, (height, width) = np.random.default_rng(seed), image.shape[:2]
    return [
        Click(float(random.uniform(0.2, 0.8)) * height, float(random.uniform(0.2, 0.8)) * width, number != 1)
        for number in range(CLICKS)
    ]


def measure(
    stages: NetworkStages, settings: PredictorSettings, image: RgbImage, clicks: list[Click]
) -> tuple[list[BoolMask], list[float]]:
    """The mask after each click, and the processor time of each in ms."""
    predictor = RefCutPredictor(stages, settings)
    predictor.set_image(image)
    masks, spent = [], []
    for count in range(1, len(clicks) + 1):
        started = time.process_time()
        masks.append(predictor.predict(clicks[:count]).mask_hw)
        spent.append(1000 * (time.process_time() - started))
    return masks, spent


def main() -> None:
    """Measure and print the result; see the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photographs", type=int, default=8, help="number of photographs, evenly spaced")
    add_threads(parser)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    images = [
        read_image(path) for path in evenly_spaced(sorted(PHOTOGRAPHS.glob("*.jpg")), arguments.photographs)
    ]
    network = undecided_network(images[0])
    settings = serving_settings(network.config)
    forms: dict[str, NetworkStages] = {
        BASELINE: network,
        "OpenVINO, 8 bits and float32": OpenVinoStages(network, settings.network_px, None, bfloat16=False),
        "as served": OpenVinoStages(network, settings.network_px, None),
    }
    spent, changed = defaultdict[str, list[float]](list), defaultdict[str, list[float]](list)
    for number, image in enumerate(images):
        clicks = clicks_on(image, number)
        expected: list[BoolMask] = []
        for form, stages in forms.items():
            masks, times = measure(stages, settings, image, clicks)
            expected = expected or masks
            spent[form] += times
            changed[form] += [
                100 * float((one != other).mean()) for one, other in zip(expected, masks, strict=True)
            ]
    print(f"{machine()}; {len(images)} photographs, {CLICKS} clicks each\n")
    print_table(
        ["form", "processor time of a click", "times as fast", "pixels that differ", "largest"],
        [
            [
                form,
                f"{statistics.median(times):.0f} ms",
                f"{statistics.median(spent[BASELINE]) / statistics.median(times):.2f}",
                f"{statistics.mean(changed[form]):.2f} %",
                f"{max(changed[form]):.2f} %",
            ]
            for form, times in spent.items()
        ],
    )


if __name__ == "__main__":
    main()
