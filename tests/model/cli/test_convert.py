"""Official checkpoints become safetensors without what they do not need; what contradicts itself is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from model.checkpoints.official import DEAD_PREFIXES, convert
from model.checkpoints.weights import load_network, version_name
from model.cli.convert import main
from model.errors import WeightsError
from tests.support.official_files import MICRO, PARAMS, SIMPLECLICK, official, with_param
from tests.support.recordings import CHECKPOINT


def prompts(hidden: int, *, norm: bool = False) -> dict[str, Tensor]:
    """Prompt networks as a RefCut file of the micro network's shape holds them."""
    shapes = {
        "fc1.weight": (hidden, 48),
        "fc1.bias": (hidden,),
        "fc2.weight": (48, hidden),
        "fc2.bias": (48,),
    }
    if norm:
        shapes |= {"norm.weight": (48,), "norm.bias": (48,)}
    return {f"rpg.{sign}.{n}": torch.rand(s) for sign in ("positive", "negative") for n, s in shapes.items()}


def test_an_official_checkpoint_converts_without_its_dead_tensors(tmp_path: Path) -> None:
    config = convert(CHECKPOINT, tmp_path / "micro.safetensors")
    written = load_file(tmp_path / "micro.safetensors")
    live = {name for name in MICRO.tensors if not name.startswith(DEAD_PREFIXES)}
    assert set(written) == live
    assert len(MICRO.tensors) - len(live) == 21
    assert all(torch.equal(written[name], MICRO.tensors[name]) for name in live)
    assert (config.embed_dim, config.depth, config.heads, config.patch_px) == (48, 12, 2, 16)
    assert (config.neck_channels, config.head_channels) == ((16, 32, 64, 96), 64)
    assert (config.network_px, config.fusion_block, config.reference_features) == (448, 0, "shared")


def test_the_converted_network_loads_and_knows_that_its_prompts_are_untrained(tmp_path: Path) -> None:
    convert(CHECKPOINT, tmp_path / "micro.safetensors")
    network = load_network(tmp_path / "micro.safetensors")
    assert not network.training
    assert not network.rpg.trained
    assert torch.equal(network.backbone.pos_embed, MICRO.tensors["backbone.pos_embed"])
    assert version_name(tmp_path / "micro.safetensors").startswith("micro-")


@pytest.mark.parametrize(("hidden", "norm"), [(48, False), (20, True)])
def test_a_refcut_file_brings_its_prompts(tmp_path: Path, hidden: int, norm: bool) -> None:
    trained = prompts(hidden, norm=norm)
    source = official(tmp_path / "refcut.pth", tensors=MICRO.tensors | trained)
    config = convert(source, tmp_path / "refcut.safetensors")
    network = load_network(tmp_path / "refcut.safetensors")
    assert config.prompt_norm == norm
    assert network.rpg.trained
    assert all(torch.equal(network.state_dict()[name], value) for name, value in trained.items())


def test_a_legacy_file_without_zip_converts_too(tmp_path: Path) -> None:
    content = {
        "state_dict": MICRO.tensors,
        "config": {"class": SIMPLECLICK, "params": PARAMS, "seen": {1, 2}},
    }
    torch.save(content, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert convert(tmp_path / "old.pth", tmp_path / "old.safetensors").embed_dim == 48


def test_image_sizes_may_be_lists_as_in_old_files(tmp_path: Path) -> None:
    source = official(tmp_path / "list.pth", params=with_param("backbone_params", "img_size", [448, 448]))
    assert convert(source, tmp_path / "list.safetensors").network_px == 448


def without(name: str) -> dict[str, Tensor]:
    return {key: value for key, value in MICRO.tensors.items() if key != name}


CONTRADICTIONS: dict[str, tuple[dict[str, Tensor], dict[str, Any], str]] = {
    "depth": (MICRO.tensors, with_param("backbone_params", "depth", 11), "depth = 11"),
    "width": (MICRO.tensors, with_param("backbone_params", "embed_dim", 64), "embed_dim = 64"),
    "size": (MICRO.tensors, with_param("backbone_params", "img_size", (224, 224)), "img_size"),
    "head": (MICRO.tensors, with_param("head_params", "upsample", "x2"), "upsample = x2"),
    "radius": (MICRO.tensors, PARAMS | {"norm_radius": {"value": 3}}, "norm_radius = 3"),
    "heads": (MICRO.tensors, with_param("backbone_params", "num_heads", 5), "heads 5"),
    "no heads": (MICRO.tensors, {}, "number of heads"),
    "missing": (without("neck.down_8.3.bias"), PARAMS, "such as neck.down_8.3.bias"),
    "missing block": (without("backbone.blocks.11.norm1.weight"), PARAMS, "blocks.11.norm1"),
    "unknown": (MICRO.tensors | {"extra.bias": torch.zeros(1)}, PARAMS, "such as extra.bias"),
    "shape": (MICRO.tensors | {"head.conv_seg.bias": torch.zeros(2)}, PARAMS, "head.conv_seg.bias"),
    "one prompt": (MICRO.tensors | {"rpg.positive.fc1.weight": torch.zeros(48, 48)}, PARAMS, "rpg."),
    "no neck": (without("neck.down_16.0.weight"), PARAMS, "not its shapes"),
    "positions": (MICRO.tensors | {"backbone.pos_embed": torch.zeros(1, 12, 48)}, PARAMS, "square grid"),
    "flat": (MICRO.tensors | {"backbone.pos_embed": torch.zeros(12)}, PARAMS, "not its shapes"),
    "not finite": (MICRO.tensors | {"head.conv_seg.bias": torch.tensor([torch.nan])}, PARAMS, "not finite"),
}


@pytest.mark.parametrize("kind", sorted(CONTRADICTIONS))
def test_a_checkpoint_that_contradicts_itself_is_refused(tmp_path: Path, kind: str) -> None:
    tensors, params, message = CONTRADICTIONS[kind]
    source = official(tmp_path / "odd.pth", tensors=tensors, params=params)
    with pytest.raises(WeightsError, match=message):
        convert(source, tmp_path / "out.safetensors")
    assert not (tmp_path / "out.safetensors").exists()


def test_the_command_says_what_it_wrote(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([str(CHECKPOINT), str(tmp_path / "out.safetensors")])
    assert "12 blocks of 48, 2 heads" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments", [["missing.pth", "out.safetensors"], [str(CHECKPOINT), "out.pth"], [str(CHECKPOINT)]]
)
def test_the_command_ends_with_one_line_and_status_2_on_bad_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    assert not captured.out
