"""Weights on disk: what is written comes back, and anything else is refused with a reason."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from model.checkpoints import weights
from model.checkpoints.weights import (
    BASE_FILE,
    VERSION_FILE,
    load_network,
    save_base,
    save_network,
    save_version,
    version_name,
)
from model.errors import WeightsError
from model.network.refcut import RefCut
from tests.support.recorded import REPOSITORY
from tests.support.synthetic import TINY_FROZEN, TINY_READING, TINY_SIMPLECLICK, random_network


def two_files(folder: Path, seed: int = 0) -> RefCut:
    network = random_network(TINY_FROZEN, seed)
    save_base(network, folder / BASE_FILE)
    save_version(network.state_dict(), network.config, folder / BASE_FILE, folder / VERSION_FILE)
    return network


def one_file(path: Path) -> RefCut:
    network = random_network(TINY_SIMPLECLICK)
    save_network(network.state_dict(), network.config, path)
    return network


def test_a_folder_of_base_and_version_comes_back_in_half_precision(tmp_path: Path) -> None:
    network = two_files(tmp_path)
    loaded = load_network(tmp_path)
    assert loaded.config == network.config
    assert not loaded.training
    for name, value in network.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value.half().float()), name


def test_a_network_with_a_reader_comes_back_nearly_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "MIN_DIFFERENCE_VALUES", 1000)
    network = RefCut(TINY_READING)
    blocks = network.backbone.blocks[TINY_READING.fusion_block :]
    with torch.no_grad():
        for tuned, frozen in zip(network.click_blocks, blocks, strict=True):
            for own, twin in zip(tuned.parameters(), frozen.parameters(), strict=True):
                own.copy_(twin + 0.01 * torch.randn_like(own))
    save_base(network, tmp_path / BASE_FILE)
    save_version(network.state_dict(), network.config, tmp_path / BASE_FILE, tmp_path / VERSION_FILE)
    stored = load_file(tmp_path / VERSION_FILE)
    assert stored["click_blocks.0.mlp.fc1.weight"].dtype == torch.int8
    loaded = load_network(tmp_path)
    assert loaded.config == network.config
    for name, value in network.state_dict().items():
        assert torch.allclose(loaded.state_dict()[name], value, atol=1e-3), name
    again = tmp_path / "again"
    save_base(loaded, again / BASE_FILE)
    save_version(loaded.state_dict(), loaded.config, again / BASE_FILE, again / VERSION_FILE)
    for name, value in load_network(again).state_dict().items():
        assert torch.allclose(loaded.state_dict()[name], value, atol=1e-6), name


def test_a_version_shares_the_tensors_that_are_equal_in_its_relative_and_loads_the_same_values(
    tmp_path: Path,
) -> None:
    network = random_network(TINY_READING)
    save_base(network, tmp_path / "one" / BASE_FILE)
    save_version(
        network.state_dict(), network.config, tmp_path / "one" / BASE_FILE, tmp_path / "one" / VERSION_FILE
    )
    other = tmp_path / "other"
    save_base(network, other / BASE_FILE)
    with torch.no_grad():
        network.neck.down_4[0].weight.add_(1.0)
    save_version(network.state_dict(), network.config, other / BASE_FILE, other / VERSION_FILE)
    relative, alone = load_network(tmp_path / "one"), load_network(other)
    loaded = load_network(other, relative)
    for name, value in loaded.state_dict().items():
        assert torch.equal(value, alone.state_dict()[name]), name
        is_shared = value.data_ptr() == relative.state_dict()[name].data_ptr()
        assert is_shared == (name != "neck.down_4.0.weight"), name
    assert {n for n, p in loaded.named_parameters() if p.requires_grad} == {
        n for n, p in alone.named_parameters() if p.requires_grad
    }


def test_a_version_is_loaded_beside_its_relative_without_torchs_compiler(tmp_path: Path) -> None:
    """Its import takes four seconds of processor time, and the first click on a project waits for them."""
    network = random_network(TINY_READING)
    save_base(network, tmp_path / BASE_FILE)
    save_version(network.state_dict(), network.config, tmp_path / BASE_FILE, tmp_path / VERSION_FILE)
    code = (
        "import sys; from pathlib import Path; from model.checkpoints.weights import load_network;"
        "folder = Path(sys.argv[1]); load_network(folder, load_network(folder));"
        "sys.exit('torch._dynamo' in sys.modules or 'sympy' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=REPOSITORY, check=True)


def test_base_and_version_share_no_tensor(tmp_path: Path) -> None:
    two_files(tmp_path)
    assert not load_file(tmp_path / BASE_FILE).keys() & load_file(tmp_path / VERSION_FILE).keys()


def test_a_whole_network_in_one_file_comes_back_exactly(tmp_path: Path) -> None:
    network = one_file(tmp_path / "network.safetensors")
    loaded = load_network(tmp_path / "network.safetensors")
    assert loaded.config == network.config
    for name, value in network.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name


def test_the_folder_of_a_training_stands_for_the_network_in_it(tmp_path: Path) -> None:
    network = one_file(tmp_path / "run" / "network.safetensors")
    assert load_network(tmp_path / "run").config == network.config
    assert version_name(tmp_path / "run")[:4] == "run-"
    assert version_name(tmp_path / "run")[4:] == version_name(tmp_path / "run" / "network.safetensors")[-8:]


def test_a_version_of_another_base_is_refused(tmp_path: Path) -> None:
    two_files(tmp_path)
    save_base(random_network(TINY_FROZEN, seed=1), tmp_path / BASE_FILE)
    with pytest.raises(WeightsError, match="another base"):
        load_network(tmp_path)


def test_names_follow_the_content(tmp_path: Path) -> None:
    one_file(tmp_path / "a.safetensors")
    two_files(tmp_path / "s14")
    before = version_name(tmp_path / "s14")
    assert before.startswith("s14-")
    assert version_name(tmp_path / "a.safetensors").startswith("a-")
    two_files(tmp_path / "s14", seed=1)
    assert version_name(tmp_path / "s14") != before


def damage(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def without_a_tensor(path: Path) -> None:
    network = random_network(TINY_SIMPLECLICK)
    tensors = network.state_dict()
    del tensors["neck.down_4.0.bias"]
    save_network(tensors, network.config, path)


def foreign(path: Path) -> None:
    save_file({"weight": torch.zeros(3)}, path)


def without_a_description(path: Path) -> None:
    save_file({"weight": torch.zeros(3)}, path, metadata={"format": "refcut-network-1"})


def with_a_description_from_the_future(path: Path) -> None:
    metadata = {"format": "refcut-network-1", "config": '{"embed_dim": 8, "anti_gravity": true}'}
    save_file({"weight": torch.zeros(3)}, path, metadata=metadata)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (damage, "is damaged"),
        (without_a_tensor, "1 tensors are missing, unknown or of another shape, such as neck.down_4.0.bias"),
        (foreign, "safetensors file of something else"),
        (without_a_description, "network description"),
        (with_a_description_from_the_future, "network description"),
        (Path.unlink, "is missing"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_with_what_to_do(
    tmp_path: Path, spoil: object, message: str
) -> None:
    path = tmp_path / "network.safetensors"
    one_file(path)
    assert callable(spoil)
    spoil(path)
    with pytest.raises(WeightsError, match=message) as caught:
        load_network(path)
    assert caught.value.hint


def test_a_pickle_is_refused_with_the_way_to_convert_it(tmp_path: Path) -> None:
    torch.save({}, tmp_path / "official.pth")
    with pytest.raises(WeightsError, match="python -m model convert"):
        load_network(tmp_path / "official.pth")


def test_one_file_of_two_is_refused_with_the_way_to_give_both(tmp_path: Path) -> None:
    two_files(tmp_path)
    with pytest.raises(WeightsError, match="name the folder"):
        load_network(tmp_path / VERSION_FILE)
    (tmp_path / VERSION_FILE).unlink()
    with pytest.raises(WeightsError, match="is missing"):
        load_network(tmp_path)


def test_equal_weights_are_equal_files(tmp_path: Path) -> None:
    network = random_network(TINY_FROZEN)
    for copy in range(8):  # the library's order of the metadata is another in each call
        save_base(network, tmp_path / str(copy) / BASE_FILE)
        folder = tmp_path / str(copy)
        save_version(network.state_dict(), network.config, folder / BASE_FILE, folder / VERSION_FILE)
    for name in (BASE_FILE, VERSION_FILE):
        assert len({(tmp_path / str(copy) / name).read_bytes() for copy in range(8)}) == 1
    assert load_network(tmp_path / "0").config == network.config


def test_a_network_without_prompts_is_the_same_network_at_each_load(tmp_path: Path) -> None:
    network = random_network(TINY_SIMPLECLICK)
    plain = {n: t for n, t in network.state_dict().items() if not n.startswith("rpg.")}
    save_network(plain, network.config, tmp_path / "plain.safetensors")
    state = torch.get_rng_state()
    first, second = (load_network(tmp_path / "plain.safetensors").state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert torch.equal(state, torch.get_rng_state())
