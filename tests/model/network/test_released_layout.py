"""A network of SimpleClick's ViT-B shape has the tensors of the released files, so that those load."""

from __future__ import annotations

import ast

import pytest
import torch

from model.checkpoints.official import DEAD_PREFIXES
from model.checkpoints.weights import PROMPT_PREFIX
from model.network.config import PRESETS
from model.network.refcut import RefCut
from tests.support.recordings import FOLDER

Shapes = dict[str, tuple[int, ...]]


def released() -> Shapes:
    """The tensors of the released ViT-B, from the recorded list."""
    lines = (FOLDER / "vitb_state_dict.txt").read_text().splitlines()
    return {name: ast.literal_eval(shape) for name, shape in (line.split(" ", 1) for line in lines)}


def ours(preset: str) -> Shapes:
    with torch.device("meta"):
        return {name: tuple(t.shape) for name, t in RefCut(PRESETS[preset]).state_dict().items()}


def test_every_live_tensor_of_the_released_vit_b_is_there_with_its_shape() -> None:
    live = {name: shape for name, shape in released().items() if not name.startswith(DEAD_PREFIXES)}
    network = {name: shape for name, shape in ours("vit_b16").items() if not name.startswith(PROMPT_PREFIX)}
    assert network == live


def test_the_tensors_left_out_are_the_ones_that_simpleclick_never_reads() -> None:
    dead = {name for name in released() if name.startswith(DEAD_PREFIXES)}
    up_convolutions = {
        f"head.up_conv{number}.{layer}.{kind}"
        for number in (1, 2)
        for layer in range(4)
        for kind in ("weight", "bias")
    }
    classification = {
        f"backbone.{layer}.{kind}" for layer in ("fc_norm", "head") for kind in ("weight", "bias")
    }
    assert dead == up_convolutions | classification | {"backbone.cls_token"}
    assert len(released()) == 214


@pytest.mark.parametrize(
    ("preset", "tensors", "millions"),
    [("xtiny", 166, 4.05), ("vit_b16", 214, 98.03), ("vit_l16", 358, 324.21), ("vit_h14", 454, 662.18)],
)
def test_presets_have_as_many_values_as_the_released_models_without_the_dead_ones(
    preset: str, tensors: int, millions: float
) -> None:
    network = {name: shape for name, shape in ours(preset).items() if not name.startswith(PROMPT_PREFIX)}
    dead_tensors = sum(name.startswith(DEAD_PREFIXES) for name in released())
    assert len(network) == tensors - dead_tensors
    values = sum(torch.Size(shape).numel() for shape in network.values())
    assert values / 1e6 == pytest.approx(millions, rel=0.02, abs=0.25)
    assert values / 1e6 < millions
