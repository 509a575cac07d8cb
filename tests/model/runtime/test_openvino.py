"""OpenVINO computes what torch computes: the same in float32, nearly the same masks with 8-bit weights."""

from __future__ import annotations

import functools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from model.checkpoints.weights import load_network
from model.data.annotated_objects import read_annotated_objects
from model.images import read_image
from model.masks import deepest_point
from model.network.candidates import Segmentation
from model.network.click_maps import disk_maps
from model.network.config import PRESETS, NetworkConfig
from model.network.prompts import ReferenceTokens
from model.network.refcut import RefCut
from model.predictor import RefCutPredictor
from model.predictor_config import SERVING, PredictorSettings
from model.runtime import openvino
from model.runtime.base import NetworkStages
from model.runtime.openvino import OpenVinoStages
from model.runtime.openvino_export import openvino_package, quantisation_group
from model.transforms import crop_image, crop_mask
from model.types import Box, Click
from tests.support.recorded import REPOSITORY
from tests.support.synthetic import (
    TINY_CONFIGS,
    TINY_FROZEN,
    TINY_READING,
    drawn_image,
    obedient_network,
    random_network,
)

DEMO = REPOSITORY / "label_studio_demo"

BOTH = pytest.mark.parametrize("config", TINY_CONFIGS.values(), ids=TINY_CONFIGS)


Reference = tuple[torch.Tensor, torch.Tensor]
"""Image (1, 3, S, S) and positive mask (1, 1, S, S); what is not in it is the negative mask."""


def logits(
    stages: NetworkStages,
    image: torch.Tensor,
    reference: Reference | None,
    click_rc: tuple[float, float] = (20, 30),
) -> torch.Tensor:
    return segmentation(stages, image, reference, click_rc).logits


def segmentation(
    stages: NetworkStages, image: torch.Tensor, reference: Reference | None, click_rc: tuple[float, float]
) -> Segmentation:
    """After one click."""
    size = image.shape[-1]
    with torch.inference_mode():
        features = stages.encode_image(image)
        prepared = None
        if reference is not None:
            tokens = stages.encode_reference(reference[0], reference[1], 1 - reference[1])
            prepared = stages.prepare_reference(features, tokens)
        click = torch.tensor([[[*click_rc, 0.0], [-1.0, -1.0, -1.0]]])
        maps = [torch.zeros(1, 1, size, size), disk_maps(click, size, size)]
        if stages.config.box_input:
            maps.append(torch.zeros(1, 1, size, size))
        return stages.segment(features, torch.cat(maps, dim=1), prepared)


def noise(size: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(seed))


@functools.cache
def converted(config: NetworkConfig) -> tuple[RefCut, OpenVinoStages]:
    """A network of random weights, and what it is converted to, in float32."""
    network = random_network(config)
    return network, OpenVinoStages(network, config.network_px, None, bfloat16=False)


@pytest.mark.slow
@BOTH
@pytest.mark.parametrize("referenced", [False, True])
def test_small_layers_are_computed_as_torch_computes_them(config: NetworkConfig, referenced: bool) -> None:
    network, stages = converted(config)
    upper_half = torch.zeros(1, 1, config.network_px, config.network_px)
    upper_half[..., : config.network_px // 2, :] = 1
    image, reference = (
        noise(config.network_px),
        (noise(config.network_px, 1), upper_half) if referenced else None,
    )
    expected = logits(network, image, reference)
    assert expected.std() > 0.05
    assert (logits(stages, image, reference) - expected).abs().max() < 1e-3


@pytest.mark.slow
@BOTH
def test_a_session_of_clicks_gives_the_same_masks(config: NetworkConfig) -> None:
    settings = PredictorSettings(network_px=config.network_px, second_look=True)
    network = obedient_network(config)
    clicks = [Click(40.0, 60.0), Click(55.0, 80.0), Click(20.0, 20.0, positive=False)]
    masks = []
    for stages in (network, OpenVinoStages(network, config.network_px, None, bfloat16=False)):
        predictor = RefCutPredictor(stages, settings)
        predictor.set_image(drawn_image(96, 128))
        masks.append([predictor.predict(clicks[: count + 1]).mask_hw for count in range(3)])
    assert all((one != other).mean() < 1e-3 for one, other in zip(*masks, strict=True))
    assert masks[0][0].any()


@pytest.mark.slow
def test_candidate_masks_and_what_they_are_worth_are_the_same() -> None:
    network = obedient_network(TINY_READING)
    network.candidates.calibration.copy_(torch.tensor([0.5, -0.3]))
    image, settings = drawn_image(96, 128), PredictorSettings(network_px=TINY_READING.network_px)
    part_hw = np.zeros(image.shape[:2], bool)
    part_hw[20:60, 30:90] = True
    results = []
    for stages in (network, OpenVinoStages(network, TINY_READING.network_px, None, bfloat16=False)):
        predictor = RefCutPredictor(stages, settings)
        predictor.set_reference(predictor.encode_reference(image[:, ::-1].copy(), part_hw, ~part_hw))
        predictor.set_image(image)
        results.append(predictor.predict([Click(40.0, 60.0)]))
    expected, found = results
    assert len(expected.candidates) == len(found.candidates) == 3
    assert expected.chosen == found.chosen
    for one, other in zip(expected.candidates, found.candidates, strict=True):
        assert np.abs(one.probability_hw - other.probability_hw).max() < 1e-3
        assert other.expected_iou == pytest.approx(one.expected_iou, abs=1e-4)
    assert len({round(one.expected_iou or 0, 3) for one in expected.candidates}) == 3


@pytest.mark.parametrize("count", [1, 4])
def test_a_reference_is_prepared_as_torch_prepares_it(count: int) -> None:
    network, stages = converted(TINY_READING)
    size = TINY_READING.network_px
    upper_half = torch.zeros(1, 1, size, size)
    upper_half[..., : size // 2, :] = 1
    with torch.inference_mode():
        features = network.encode_image(noise(size))
        encoded = [network.encode_reference(noise(size, seed), upper_half, None) for seed in range(count)]
        reference = ReferenceTokens.join(encoded)
        expected = network.prepare_reference(features, reference)
        found = stages.prepare_reference(features, reference)
    for name, one in vars(expected).items():
        assert one.abs().max() > 0, name
        torch.testing.assert_close(getattr(found, name), one, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_large_stages_are_computed_in_bfloat16_where_the_processor_has_it() -> None:
    capabilities = openvino_package().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    short = "bf16" if "BF16" in capabilities else "f32"
    network = random_network(TINY_READING)
    stages = OpenVinoStages(network, TINY_READING.network_px, None, threads=1)
    exact = converted(TINY_READING)[1]
    for name, request in stages._requests.items():
        model = request.get_compiled_model()
        precision = model.get_property("INFERENCE_PRECISION_HINT").to_string()
        assert precision == ("f32" if name == "match" else short), name
        assert model.get_property("INFERENCE_NUM_THREADS") == 1
        other = exact._requests[name].get_compiled_model()
        assert other.get_property("INFERENCE_PRECISION_HINT").to_string() == "f32"


@pytest.mark.slow
def test_nothing_is_computed_in_bfloat16_where_the_processor_lacks_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(openvino_package().Core, "get_property", lambda *_: ["FP32", "INT8"])
    network = random_network(TINY_READING)
    for request in OpenVinoStages(network, TINY_READING.network_px, None, threads=1)._requests.values():
        hint = request.get_compiled_model().get_property("INFERENCE_PRECISION_HINT")
        assert hint.to_string() == "f32"


@pytest.mark.slow
def test_the_model_that_ships_gives_nearly_the_same_masks_on_photographs() -> None:
    network = load_network()
    size = SERVING.network_px
    stages = OpenVinoStages(network, size, None)
    differing, errors, expectations = [], [], []
    for part in ("front_door", "wheel", "hood"):
        for here, there in (("te20", "car118"), ("te66", "te20"), ("car118", "te66")):
            crop, other = (_square(_photograph(name)) for name in (here, there))
            target, meant = (_mask(name, part) for name in (here, there))
            row, col = (size * share for share in _middle(target))
            expected, found = (
                segmentation(one, crop, (other, crop_mask(meant, Box.whole(*meant.shape), size)), (row, col))
                for one in (network, stages)
            )
            assert expected.quality is not None
            assert found.quality is not None
            # All three candidates.
            differing.append(float(((expected.logits > 0) != (found.logits > 0)).float().mean()))
            errors.append(float((expected.logits - found.logits).abs().max()))
            worth = torch.sigmoid(expected.quality) - torch.sigmoid(found.quality)
            expectations.append(float(worth.abs().max()))
    print(f"differing {np.mean(differing):.5f} (max {max(differing):.5f}), logit error {max(errors):.2f}")
    print(f"expected IoU {np.mean(expectations):.3f} (max {max(expectations):.3f})")
    assert np.mean(differing) < 0.005
    assert 0 < max(errors) < 2, "8-bit weights: not the same, but near"
    assert np.mean(expectations) < 0.02


def _square(path: Path) -> torch.Tensor:
    image = read_image(path)
    return crop_image(image, Box.whole(*image.shape[:2]), SERVING.network_px, "area")


def _mask(name: str, part: str) -> NDArray[np.bool_]:
    annotated_objects = read_annotated_objects(DEMO / "parts.json", DEMO, grouping="object")
    return next(s for s in annotated_objects if s.image_path == _photograph(name)).masks()[part]


def _photograph(name: str) -> Path:
    return DEMO / f"car_parts_{name}.jpg"


def _middle(mask_hw: NDArray[np.bool_]) -> tuple[float, float]:
    """The deepest point, as shares of height and width."""
    row, col = deepest_point(mask_hw)
    return row / mask_hw.shape[0], col / mask_hw.shape[1]


def test_images_of_another_size_are_left_to_torch() -> None:
    network, stages = converted(TINY_FROZEN)
    image, mask = noise(84), torch.ones(1, 1, 84, 84)
    assert torch.equal(logits(stages, image, (image, mask)), logits(network, image, (image, mask)))


def test_outputs_are_not_overwritten_by_the_next_call() -> None:
    _, stages = converted(TINY_FROZEN)
    first = stages.encode_image(torch.zeros(1, 3, 56, 56)).tokens
    before = first.clone()
    stages.encode_image(torch.ones(1, 3, 56, 56))
    assert torch.equal(first, before)


@pytest.mark.slow
def test_a_cached_network_is_not_converted_again_and_a_damaged_one_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openvino, "KEPT_NETWORKS", 2)
    network = random_network(TINY_FROZEN)
    image = noise(56)
    expected = logits(OpenVinoStages(network, 56, tmp_path), image, None)
    conversions = []
    convert = openvino.convert
    monkeypatch.setattr(openvino, "convert", lambda *given: conversions.append(given) or convert(*given))
    torch.testing.assert_close(logits(OpenVinoStages(network, 56, tmp_path), image, None), expected)
    assert not conversions
    (folder,) = tmp_path.iterdir()
    (folder / "clicks.xml").write_text("damaged")
    torch.testing.assert_close(logits(OpenVinoStages(network, 56, tmp_path), image, None), expected)
    assert len(conversions) == 1
    OpenVinoStages(random_network(TINY_FROZEN, seed=1), 56, tmp_path)
    assert len(conversions) == 2, "other weights are another network"
    for seed in range(2, 4):
        OpenVinoStages(random_network(TINY_FROZEN, seed=seed), 56, tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


def test_activations_are_rounded_in_groups_that_divide_the_width() -> None:
    groups = {}
    for name, config in PRESETS.items():
        with torch.device("meta"):
            groups[name] = quantisation_group(RefCut(config))
    assert groups == {
        "s14": 128,
        "s14_reader": 128,
        "xtiny": 32,
        "vit_b16": 256,
        "vit_l16": 256,
        "vit_h14": 256,
    }


@pytest.mark.slow
def test_openvino_reports_its_use_to_nobody() -> None:
    code = """
import sys
connections = []
def watch(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo"):
        connections.append((event, arguments))
sys.addaudithook(watch)
from model.runtime.openvino import OpenVinoStages
from tests.support.synthetic import TINY_FROZEN, random_network
OpenVinoStages(random_network(TINY_FROZEN), 56, None)
import time; time.sleep(1)
print("openvino" in sys.modules, sys.modules["openvino_telemetry"], connections)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, timeout=300, check=True
    )
    assert done.stdout.splitlines()[-1] == "True None []"
