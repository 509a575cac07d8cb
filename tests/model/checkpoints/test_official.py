"""Files that are not SimpleClick checkpoints are refused with what they are, and nothing in them runs."""

from __future__ import annotations

import argparse
import os
import pickle
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from model.checkpoints.official import convert
from model.errors import WeightsError
from tests.support.official_files import MICRO, SIMPLECLICK, official
from tests.support.recordings import CHECKPOINT


class Hostile:
    """Runs something when it is unpickled, if it is unpickled."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self._call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self._call


def hostile_values(canary: Path) -> dict[str, Hostile]:
    return {
        "system": Hostile(os.system, f"touch {canary}"),
        "exec": Hostile(exec, f"open({str(canary)!r}, 'w').close()"),
        "popen": Hostile(subprocess.Popen, ["touch", str(canary)]),
        "path": Hostile(Path.touch, canary),
        "nested": Hostile(pickle.loads, pickle.dumps(Hostile(os.system, f"touch {canary}"))),
    }


@pytest.mark.parametrize("position", ["top", "config", "state_dict", "pickle 2", "pickle 4", "legacy"])
@pytest.mark.parametrize("kind", ["system", "exec", "popen", "path", "nested"])
def test_a_hostile_pickle_is_refused_and_nothing_runs(tmp_path: Path, kind: str, position: str) -> None:
    canary, source = tmp_path / "canary", tmp_path / "hostile.pth"
    value = hostile_values(canary)[kind]
    content: Any = {
        "top": value,
        "config": {"state_dict": MICRO.tensors, "config": {"class": SIMPLECLICK, "params": {"x": value}}},
        "state_dict": {"state_dict": MICRO.tensors | {"extra": value}},
    }.get(position, {"state_dict": value})
    if position.startswith("pickle"):
        source.write_bytes(pickle.dumps(content, protocol=int(position[-1])))
    else:
        torch.save(content, source, _use_new_zipfile_serialization=position != "legacy")
    with pytest.raises(WeightsError, match="nothing was run"):
        convert(source, tmp_path / "out.safetensors")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hostile.pth"]


def test_the_canary_does_sing_when_such_a_pickle_is_trusted(tmp_path: Path) -> None:
    for number, value in enumerate(hostile_values(tmp_path / "canary").values()):
        loaded = pickle.loads(pickle.dumps(value))
        if isinstance(loaded, subprocess.Popen):
            loaded.wait()
        assert (tmp_path / "canary").exists(), number
        (tmp_path / "canary").unlink()


def cut(path: Path, share: float) -> Path:
    path.write_bytes(CHECKPOINT.read_bytes()[: int(CHECKPOINT.stat().st_size * share)])
    return path


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def saved(path: Path, content: object) -> Path:
    torch.save(content, path)
    return path


def mfp(path: Path) -> Path:
    clicks = {"patch_embed_coords.proj.weight": torch.zeros(48, 4, 16, 16)}
    return official(path, tensors=MICRO.tensors | clicks)


def truncated_legacy(path: Path) -> Path:
    torch.save({"state_dict": MICRO.tensors}, path, _use_new_zipfile_serialization=False)
    return written(path, path.read_bytes()[:-5000])


def as_safetensors(path: Path) -> Path:
    save_file({"backbone.pos_embed": torch.zeros(1, 5, 8)}, path)
    return path


MAE = {"model": {"cls_token": torch.zeros(1, 1, 48), "pos_embed": torch.zeros(1, 197, 48)}}
RITM_TENSORS = {"feature_extractor.conv1.weight": torch.zeros(4, 3, 3, 3)}
FOREIGN: dict[str, tuple[Callable[[Path], Path], str]] = {
    "mae": (lambda p: saved(p, MAE), "MAE file"),
    "mae training": (lambda p: saved(p, MAE | {"args": argparse.Namespace(lr=1), "epoch": 3}), "MAE file"),
    "mfp": (mfp, "MFP file"),
    "ritm": (
        lambda p: official(p, tensors=RITM_TENSORS, class_name="isegm.model.is_hrnet_model.HRNetModel"),
        "RITM",
    ),
    "ritm list": (lambda p: saved(p, [{"state_dict": RITM_TENSORS}]), "list of checkpoints, as RITM"),
    "graco": (
        lambda p: official(p, tensors={"backbone.gra_embed.weight": torch.zeros(10, 48)}),
        "GraCo file",
    ),
    "another network": (lambda p: saved(p, {"state_dict": {"fc.weight": torch.zeros(2, 2)}}), "no plain ViT"),
    "bare tensors": (lambda p: saved(p, {"fc.weight": torch.zeros(2, 2)}), "no state_dict"),
    "a number": (lambda p: saved(p, 3), "no state_dict"),
    "no tensors": (lambda p: saved(p, {"state_dict": {"a": 1}}), "other things than tensors"),
    "half": (lambda p: cut(p, 0.5), "truncated or damaged"),
    "almost whole": (lambda p: cut(p, 0.999), "truncated or damaged"),
    "a few bytes": (lambda p: cut(p, 0.00001), "truncated or damaged"),
    "half legacy": (truncated_legacy, "damaged"),
    "empty": (lambda p: written(p, b""), "is empty"),
    "web page": (lambda p: written(p, b"\n<!DOCTYPE html><html>Quota exceeded"), "web page"),
    "lfs pointer": (lambda p: written(p, b"version https://git-lfs.github.com/spec/v1\n"), "Git LFS pointer"),
    "photo": (lambda p: written(p, b"\xff\xd8\xff\xe0" + bytes(200)), "not a checkpoint"),
    "text": (lambda p: written(p, b"hello"), "not a checkpoint"),
    "junk after the first byte": (lambda p: written(p, b"\x80\x02" + bytes(range(255))), "damaged"),
    "safetensors": (as_safetensors, "safetensors file already"),
    "missing": (lambda p: p, "cannot be read"),
    "folder": (lambda p: p.parent, "cannot be read"),
}


@pytest.mark.parametrize("kind", sorted(FOREIGN))
def test_any_other_file_is_refused_with_what_it_is_and_what_to_do(tmp_path: Path, kind: str) -> None:
    make, message = FOREIGN[kind]
    source = make(tmp_path / "given.pth")
    with pytest.raises(WeightsError, match=message) as caught:
        convert(source, tmp_path / "out.safetensors")
    assert caught.value.hint
    assert not (tmp_path / "out.safetensors").exists()
