"""OpenVINO computes what torch computes: the same in float32, nearly the same masks with 8-bit weights."""

from __future__ import annotations

import copy
import functools
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

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
from model.network.features import CondensedReference, ImageFeatures, PreparedReference
from model.network.prompts import ReferenceTokens
from model.network.refcut import RefCut
from model.network.similarity import NEAREST
from model.predictor import RefCutPredictor
from model.predictor_config import SERVING, PredictorSettings
from model.runtime import openvino, openvino_export
from model.runtime.base import NetworkStages
from model.runtime.openvino import OpenVinoStages
from model.runtime.openvino_export import (
    openvino_package,
    quantisation_group,
    reader_inputs,
    stage_keys,
    stages_of,
)
from model.runtime.stage_inputs import click_inputs, compare_inputs, match_inputs
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
FROZEN = pytest.mark.parametrize("config", [TINY_FROZEN, TINY_READING], ids=["frozen", "reader"])


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


def upper_half(size: int) -> torch.Tensor:
    """A mask (1, 1, size, size)."""
    mask = torch.zeros(1, 1, size, size)
    mask[..., : size // 2, :] = 1
    return mask


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
    image, reference = (
        noise(config.network_px),
        (noise(config.network_px, 1), upper_half(config.network_px)) if referenced else None,
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
    with torch.inference_mode():
        features = network.encode_image(noise(size))
        encoded = [
            network.encode_reference(noise(size, seed), upper_half(size), None) for seed in range(count)
        ]
        reference = ReferenceTokens.join(encoded)
        expected = network.prepare_reference(features, reference)
        found = stages.prepare_reference(features, reference)
        evidence = network.condense_reference(reference, features.grid[0] * features.grid[1]).evidence
    assert (evidence.tokens.shape[1] > 0) == (count > 1), (
        "the reader leaves out patches of several references"
    )
    for name, one in vars(expected).items():
        assert one.abs().max() > 0, name
        torch.testing.assert_close(getattr(found, name), one, rtol=1e-4, atol=1e-4)


def test_where_a_reference_lets_its_label_be_expected_is_read_as_torch_reads_it() -> None:
    network, stages = converted(TINY_READING)
    size = TINY_READING.network_px
    with torch.inference_mode():
        features = network.encode_image(noise(size))
        prepared = network.prepare_reference(
            features, network.encode_reference(noise(size, 1), upper_half(size), None)
        )
        expected, found = (
            network.read_reference(features, prepared),
            stages.read_reference(features, prepared),
        )
    assert expected is not None
    assert found is not None
    assert expected.shape == (1, *features.grid)
    assert 0 <= expected.min() < expected.max() <= 1
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("inside", [0, 1, 5, 16])
def test_a_reference_with_any_number_of_patches_is_prepared_as_torch_prepares_it(
    inside: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openvino, "EVIDENCE_STEP", 1)
    network, stages = converted(TINY_READING)
    size, patch = TINY_READING.network_px, TINY_READING.patch_px
    patches = (size // patch) ** 2
    assert patches == 16
    shares = (torch.arange(patches) < inside).float().reshape(1, 1, size // patch, size // patch)
    mask = shares.repeat_interleave(patch, dim=2).repeat_interleave(patch, dim=3)
    seen: list[tuple[int, ...]] = []
    with torch.inference_mode():
        features = network.encode_image(noise(size))
        reference = network.encode_reference(noise(size, 1), mask, None)
        expected = network.prepare_reference(features, reference)
        with monkeypatch.context() as patched:
            run = stages._run
            patched.setattr(
                stages, "_run", lambda name, given: seen.append(given[-1].shape) or run(name, given)
            )
            found = stages.prepare_reference(features, reference)
    assert seen == [(1, 2, max(inside, NEAREST))]
    assert (found.present is not None and bool(found.present.any())) == bool(inside)
    for name, one in vars(expected).items():
        torch.testing.assert_close(getattr(found, name), one, rtol=1e-4, atol=1e-4)


def test_what_depends_on_a_reference_alone_is_computed_once_for_all_images(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    network, stages = converted(TINY_READING)
    size = TINY_READING.network_px
    condensed: list[tuple[str, ...]] = []
    condense = network.condense_reference

    def counting(reference: ReferenceTokens, count: int, multiple: int) -> CondensedReference:
        condensed.append(reference.sources)
        return condense(reference, count, multiple)

    monkeypatch.setattr(network, "condense_reference", counting)
    monkeypatch.setattr(openvino, "KEPT_REFERENCES", 2)
    mask = torch.ones(1, 1, size, size)
    with torch.inference_mode():
        images = [network.encode_image(noise(size, seed)) for seed in range(3)]
        first, second, third = (
            ReferenceTokens.join(
                [network.encode_reference(noise(size, 10 * seed + one), mask, None) for one in range(4)]
            )
            for seed in (1, 2, 3)
        )
        for image in images:
            stages.prepare_reference(image, first)
        assert condensed == [first.sources]
        for reference in (second, first, third, first):
            stages.prepare_reference(images[0], reference)
        assert condensed == [one.sources for one in (first, second, third)], "the first was used last"
        stages.prepare_reference(images[0], second)
        assert condensed[3:] == [second.sources]


def test_stages_read_features_where_they_lie() -> None:
    network, stages = converted(TINY_READING)
    size = TINY_READING.network_px
    with torch.inference_mode():
        features = stages.encode_image(noise(size))
        stages.prepare_reference(
            features, network.encode_reference(noise(size, 1), torch.ones(1, 1, size, size), None)
        )
    assert features.reader is not None
    given = stages._requests["match"].input_tensors[0].data
    assert np.shares_memory(given, features.reader.numpy())


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


def test_only_layers_whose_activations_can_be_rounded_get_8_bit_weights() -> None:
    layers = torch.nn.Sequential(torch.nn.Linear(128, 192), torch.nn.Linear(192, 128))
    model = openvino_export._converted(layers, [torch.zeros(1, 4, 128)], group=64)
    assert _rounded_shapes(model) == [(192, 128), (128, 192)]
    model = openvino_export._converted(layers, [torch.zeros(1, 4, 128)], group=128)
    assert _rounded_shapes(model) == [(192, 128)]


def _rounded_shapes(model: Any) -> list[tuple[int, ...]]:
    """Shapes of the 8-bit weights of an OpenVINO model, in the order of its layers."""
    constants = (node for node in model.get_ordered_ops() if node.get_type_name() == "Constant")
    return [tuple(one.shape) for one in constants if one.get_element_type().get_type_name() == "i8"]


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


@pytest.fixture
def conversions(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The stages that are converted from here on. No stage is compiled at first."""
    found: list[str] = []
    convert = openvino.convert

    def counting(network: RefCut, size_px: int, stages: Sequence[str]) -> dict[str, Any]:
        found.extend(stages)
        return convert(network, size_px, stages)

    monkeypatch.setattr(openvino, "convert", counting)
    forget_compiled_stages(monkeypatch)
    return found


def forget_compiled_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on this process has compiled nothing, as after its start."""
    monkeypatch.setattr(openvino, "_compiled", WeakValueDictionary())


@pytest.mark.slow
def test_a_cached_network_is_not_converted_again_and_a_damaged_stage_is(
    tmp_path: Path, conversions: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    network = random_network(TINY_FROZEN)
    image = noise(56)
    expected = logits(OpenVinoStages(network, 56, tmp_path), image, None)
    assert conversions == ["image", "detail", "compare", "clicks"]
    conversions.clear()
    forget_compiled_stages(monkeypatch)
    assert torch.equal(logits(OpenVinoStages(network, 56, tmp_path), image, None), expected)
    assert not conversions
    forget_compiled_stages(monkeypatch)
    (clicks,) = tmp_path.glob("clicks-*")
    (clicks / openvino.MODEL_FILE).write_text("damaged")
    assert torch.equal(logits(OpenVinoStages(network, 56, tmp_path), image, None), expected)
    assert conversions == ["clicks"]


def fine_tuned(network: RefCut, seed: int = 1) -> RefCut:
    """A network that differs from another one in what a fine-tuning changes."""
    child = copy.deepcopy(network)
    child.backbone.requires_grad_(False)
    if network.config.reader is not None:
        child.reader.requires_grad_(True)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in child.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return child


@pytest.mark.slow
@FROZEN
def test_a_version_converts_and_stores_only_what_its_training_changed(
    config: NetworkConfig, tmp_path: Path, conversions: list[str]
) -> None:
    shared = random_network(config)
    first = OpenVinoStages(shared, 56, tmp_path)
    conversions.clear()
    second = OpenVinoStages(fine_tuned(shared), 56, tmp_path)
    trained = ["reader", "detail", "match", "compare", "clicks"] if config.reader else ["detail", "clicks"]
    assert conversions == trained
    assert {len(list(tmp_path.glob(f"{stage}-*"))) for stage in trained} == {2}
    assert len(list(tmp_path.glob("image-*"))) == 1
    for name, stage in first._stages.items():
        assert (second._stages[name] is stage) == (name not in conversions), name


@pytest.mark.slow
@FROZEN
def test_a_version_computes_the_same_bits_whether_it_shares_stages_or_not(
    config: NetworkConfig, conversions: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    image, mask = noise(56), torch.zeros(1, 1, 56, 56)
    mask[..., :28, :] = 1
    parent, child = random_network(config), fine_tuned(random_network(config))
    together = [OpenVinoStages(network, 56, None) for network in (parent, child)]
    sharing = [logits(stages, image, (noise(56, 1), mask)) for stages in together]
    for network, expected in zip((parent, child), sharing, strict=True):
        forget_compiled_stages(monkeypatch)
        conversions.clear()
        alone = OpenVinoStages(network, 56, None)
        assert "image" in conversions, "nothing is shared"
        assert torch.equal(logits(alone, image, (noise(56, 1), mask)), expected)
    assert not torch.equal(*sharing)


@pytest.mark.slow
def test_a_stage_is_compiled_as_long_as_a_network_uses_it(conversions: list[str]) -> None:
    stages = OpenVinoStages(random_network(TINY_FROZEN), 56, None)
    assert len(openvino._compiled) == len(stages._stages)
    del stages
    assert not openvino._compiled


@BOTH
def test_the_key_of_a_stage_covers_every_weight_that_changes_what_it_computes(config: NetworkConfig) -> None:
    network = random_network(config)
    size = config.network_px
    before, keys = stage_outputs(network), stage_keys(network, size)
    changing: dict[str, set[str]] = {stage: set() for stage in keys}
    for name, tensor in network.state_dict().items():
        kept = tensor.clone()
        tensor.add_(torch.rand(tensor.shape, generator=torch.Generator().manual_seed(0)))
        for stage, output in stage_outputs(network).items():
            if any(not torch.equal(*pair) for pair in zip(before[stage], output, strict=True)):
                changing[stage].add(name)
                assert stage_keys(network, size)[stage] != keys[stage], f"{stage} depends on {name}"
        tensor.copy_(kept)
    assert all(changing[stage] for stage in keys if stage != "compare" or config.reader is not None)


@dataclass(frozen=True)
class StageInputs:
    """What the stages of networks of one configuration are given: the outputs of a network that stays as it is."""

    fixed: RefCut
    image: torch.Tensor
    coords: torch.Tensor
    features: ImageFeatures
    tokens: ReferenceTokens
    reference: PreparedReference
    channels: torch.Tensor | None


@functools.cache
def inputs_of_stages(config: NetworkConfig) -> StageInputs:
    size = config.network_px
    image, mask = noise(size), torch.zeros(1, 1, size, size)
    mask[..., : size // 2, :] = 1
    fixed = random_network(config, seed=9)
    with torch.inference_mode():
        coords = torch.rand(
            1, config.click_map_channels, size, size, generator=torch.Generator().manual_seed(3)
        )
        features = fixed.encode_image(image)
        tokens = fixed.encode_reference(noise(size, 1), mask, 1 - mask)
        reference = fixed.prepare_reference(features, tokens)
        channels = fixed.compare(features, coords, reference)
    return StageInputs(fixed, image, coords, features, tokens, reference, channels)


def stage_outputs(network: RefCut) -> dict[str, list[torch.Tensor]]:
    """What torch computes for each stage of a network, for the same inputs."""
    config, given = network.config, inputs_of_stages(network.config)
    fixed, image, features, reference = given.fixed, given.image, given.features, given.reference
    side = config.network_px // config.patch_px
    with torch.inference_mode():
        run: dict[str, tuple[torch.nn.Module, list[torch.Tensor]]] = {
            "image": (openvino_export._Image(network), [image]),
            "clicks": (
                openvino_export._Clicks(network, (side, side)),
                click_inputs(fixed, features, given.coords, reference, given.channels),
            ),
        }
        if config.reference_features != "frozen":
            run["reference"] = openvino_export._Reference(network), [image]
        if config.detail_channels:
            run["detail"] = openvino_export._Detail(network), [image]
        if config.similarity:
            inputs = compare_inputs(fixed, features, given.coords, reference)
            run["compare"] = openvino_export._Compare(network, (side, side)), inputs
        if config.reader is not None:
            run["reader"] = openvino_export._Reader(network, (side, side)), reader_inputs(features)
            run["match"] = (
                openvino_export._Match(network),
                match_inputs(features, fixed.condense_reference(given.tokens, side * side)),
            )
        assert set(run) == set(stages_of(config))
        outputs = {stage: module(*inputs) for stage, (module, inputs) in run.items()}
    return {stage: list(out) if isinstance(out, tuple) else [out] for stage, out in outputs.items()}


@pytest.mark.slow
def test_weights_that_only_openvino_computes_with_leave_the_memory_and_come_back_for_another_size() -> None:
    expected, network = random_network(TINY_READING), random_network(TINY_READING)
    reloads = []
    stages = OpenVinoStages(
        network, 56, None, bfloat16=False, reload=lambda: reloads.append(1) or random_network(TINY_READING)
    )
    assert network.click_blocks[0].mlp.fc1.weight.is_meta
    image, mask = noise(56), torch.ones(1, 1, 56, 56)
    found = logits(stages, image, (image, mask))
    assert (found - logits(expected, image, (image, mask))).abs().max() < 1e-3
    assert not reloads
    larger, mask = noise(84), torch.ones(1, 1, 84, 84)
    assert torch.equal(logits(stages, larger, (larger, mask)), logits(expected, larger, (larger, mask)))
    assert len(reloads) == 1


@pytest.mark.slow
def test_what_was_used_last_stays_in_the_cache_when_it_is_full(
    tmp_path: Path, conversions: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = random_network(TINY_FROZEN)

    def use(seed: int) -> None:
        forget_compiled_stages(monkeypatch)
        OpenVinoStages(fine_tuned(shared, seed), 56, tmp_path)
        for age, folder in enumerate(sorted(tmp_path.iterdir(), key=lambda path: path.stat().st_mtime_ns)):
            os.utime(folder, (age, age))

    use(1)
    size = sum(file.stat().st_size for file in tmp_path.rglob("*"))
    own = sum(file.stat().st_size for stage in ("detail", "clicks") for file in tmp_path.glob(f"{stage}-*/*"))
    monkeypatch.setattr(openvino, "KEPT_BYTES", size + own + own // 2)
    for seed in (2, 1, 3):
        use(seed)
    conversions.clear()
    use(1)
    assert not conversions, "it was used again before the third came"
    use(2)
    assert conversions == ["detail", "clicks"], "the oldest was removed, but for what the others use"


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
