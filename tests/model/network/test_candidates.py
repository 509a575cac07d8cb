"""Three nested masks, and what they are worth."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from model.network.candidates import FIRST_STEP, LARGER, MEANT, SMALLER, CandidateMasks, Segmentation
from model.network.config import NetworkConfig
from tests.support.synthetic import TINY_FROZEN, TINY_READING, random_network

GRID = (4, 4)


def inputs(seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Logits (2, 1, 16, 16), fused map (2, 6, 16, 16), evidence (2, 16, 5) and click maps (2, 4, 56, 56)."""
    generator = torch.Generator().manual_seed(seed)
    logits = 6 * torch.randn(2, 1, 16, 16, generator=generator)
    fused = torch.randn(2, 6, 16, 16, generator=generator)
    evidence = torch.randn(2, 16, 5, generator=generator)
    return logits, fused, evidence, torch.rand(2, 4, 56, 56, generator=generator)


def trained() -> CandidateMasks:
    """Without a layer at zero."""
    torch.manual_seed(1)
    module = CandidateMasks(6, 5)
    torch.nn.init.normal_(module.steps.weight)
    return module.eval()


def test_the_smaller_mask_lies_inside_the_meant_one_and_that_inside_the_larger_one() -> None:
    answer = trained()(*inputs(), GRID)
    masks = answer.logits > 0
    for inner, outer in ((SMALLER, MEANT), (MEANT, LARGER)):
        assert bool((masks[:, inner] <= masks[:, outer]).all())
        assert bool((masks[:, inner] < masks[:, outer]).any()), "else all masks are the same"


def test_the_meant_mask_is_what_the_network_says_without_candidates() -> None:
    logits, *others = inputs()
    answer = trained()(logits, *others, GRID)
    assert torch.equal(answer.meant, logits)
    assert torch.equal(Segmentation(logits).meant, logits)
    assert torch.equal(Segmentation(logits).best(), logits)


def test_untrained_candidates_differ_by_one_step() -> None:
    logits, *others = inputs()
    answer = CandidateMasks(6, 5)(logits, *others, GRID)
    assert torch.allclose(answer.logits[:, :1], logits - FIRST_STEP, atol=1e-4)
    assert torch.allclose(answer.logits[:, 2:], logits + FIRST_STEP, atol=1e-4)


def test_the_best_mask_is_the_one_with_the_largest_expected_iou() -> None:
    answer = trained()(*inputs(), GRID)
    chosen = Segmentation(answer.logits, torch.tensor([[0.0, 1.0, 2.0], [3.0, 1.0, 2.0]])).best()
    assert torch.equal(chosen[:, 0], torch.stack([answer.logits[0, LARGER], answer.logits[1, SMALLER]]))


def test_the_iou_estimate_does_not_shape_what_it_reads() -> None:
    logits, fused, evidence, coords = (tensor.requires_grad_() for tensor in inputs())
    answer = trained()(logits, fused, evidence, coords, GRID)
    assert answer.quality is not None
    gradients = torch.autograd.grad(answer.quality.sum(), [logits, fused, evidence], allow_unused=True)
    assert all(gradient is None for gradient in gradients)


def test_calibration_scales_and_shifts_the_expected_ious_logit() -> None:
    module = trained()
    before = module(*inputs(), GRID).quality
    module.calibration.copy_(torch.tensor([0.5, -1.0]))
    assert torch.allclose(module(*inputs(), GRID).quality, 0.5 * before - 1)


def test_the_worth_of_a_mask_depends_on_the_mask() -> None:
    answer = trained()(*inputs(), GRID)
    assert answer.quality is not None
    assert answer.quality.std(dim=1).min() > 1e-3


def test_mirrored_answers_are_averaged() -> None:
    logits = torch.arange(6.0).reshape(2, 1, 1, 3)
    averaged = Segmentation(logits, torch.tensor([[1.0], [3.0]])).with_mirrored()
    assert averaged.logits.tolist() == [[[[2.5, 2.5, 2.5]]]]
    assert averaged.quality is not None
    assert averaged.quality.tolist() == [[2.0]]


def test_candidates_need_similarity_and_are_one_or_three() -> None:
    with pytest.raises(ValueError, match="candidates need similarity"):
        dataclasses.replace(TINY_FROZEN, similarity=False, learned_similarity_dim=0, candidates=3)
    with pytest.raises(ValueError, match="1 or 3"):
        dataclasses.replace(TINY_FROZEN, candidates=2)  # type: ignore[arg-type]


def test_a_description_without_candidates_is_as_older_versions_write_it() -> None:
    assert "candidates" not in TINY_FROZEN.to_json()
    assert "box_input" not in TINY_FROZEN.to_json()
    assert NetworkConfig.from_json(TINY_READING.to_json()) == TINY_READING


@torch.no_grad()
def test_a_box_changes_the_answer_of_a_network_with_an_input_for_it() -> None:
    network = random_network(TINY_READING)
    features = network.encode_image(torch.rand(1, 3, 56, 56, generator=torch.Generator().manual_seed(0)))
    coords = torch.zeros(1, 4, 56, 56)
    without = network.segment(features, coords)
    coords[:, 3, 10:40, 20:50] = 1
    assert not torch.allclose(network.segment(features, coords).logits, without.logits)
