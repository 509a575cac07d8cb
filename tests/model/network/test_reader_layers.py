"""What the layers of the reader may and may not depend on."""

from __future__ import annotations

import pytest
import torch

from model.network.reader_layers import Affinity, AffinityBlock

GRID = (3, 4)
PATCHES = 12


@torch.no_grad()
def test_what_a_patch_takes_from_all_patches_adds_up_to_one() -> None:
    affinity = Affinity(8, 2, 4)
    found = affinity(affinity.vectors(torch.randn(3, PATCHES, 8)), GRID)
    assert found.shape == (3, 2, PATCHES, PATCHES)
    assert torch.allclose(found.sum(dim=-1), torch.ones(3, 2, PATCHES))


@torch.no_grad()
def test_of_two_patches_that_look_the_same_the_nearer_one_gives_more() -> None:
    affinity = Affinity(8, 2, 4)
    found = affinity(affinity.vectors(torch.ones(1, PATCHES, 8)), GRID)[0]
    for head in found:
        row = head[0].reshape(GRID)  # the patch in the corner
        assert row[0, 0] > row[0, 1] > row[0, 3]
        assert row[0, 1] == pytest.approx(row[1, 0].item())  # as far down as across
    assert found[0, 0, 0] > found[1, 0, 0]  # the second head reaches further


@torch.no_grad()
def test_a_new_block_changes_nothing() -> None:
    x = torch.randn(4, PATCHES, 6)
    affinity = torch.rand(2, 2, PATCHES, PATCHES)
    assert torch.equal(AffinityBlock(6, 2)(x, affinity), x)


@torch.no_grad()
def test_label_sets_of_a_crop_are_mixed_by_its_own_affinity() -> None:
    block = AffinityBlock(6, 2)
    torch.nn.init.ones_(block.scale)
    x = torch.randn(6, PATCHES, 6)  # three label sets of each of two crops
    affinity = torch.rand(2, 2, PATCHES, PATCHES)
    together = block(x, affinity)
    for crop in range(2):
        own = slice(3 * crop, 3 * crop + 3)
        assert torch.allclose(together[own], block(x[own], affinity[crop : crop + 1]), atol=1e-5)


@torch.no_grad()
def test_a_patch_that_takes_from_itself_alone_learns_nothing_from_others() -> None:
    block = AffinityBlock(6, 2)
    torch.nn.init.ones_(block.scale)
    x = torch.randn(1, PATCHES, 6)
    alone = torch.eye(PATCHES).expand(1, 2, -1, -1)
    changed = x.clone()
    changed[0, 5] += torch.randn(6)
    differs = (block(changed, alone) != block(x, alone)).any(dim=-1)[0]
    assert differs.nonzero().flatten().tolist() == [5]
