"""What the reader may and may not depend on."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from model.network.config import ReaderConfig
from model.network.reader import Reader, Reading, label_shares, thin_out
from model.network.similarity import PatchCosines
from tests.support.synthetic import TINY_READER, TINY_READING, random_network

GRID = (6, 6)
PATCHES, DIM = 36, 16


@pytest.fixture(params=[2, 0], ids=["affinity", "no_affinity"])
def reader(request: pytest.FixtureRequest) -> Reader:
    torch.manual_seed(0)
    made = Reader(DIM, dataclasses.replace(TINY_READER, affinity_heads=request.param)).eval()
    for block in made.affinity_blocks:
        torch.nn.init.constant_(block.scale, 0.3)
    return made


def features(seed: int, batch: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(batch, PATCHES, DIM, generator=generator), dim=-1)


def masks(seed: int, sets: int = 1) -> tuple[Tensor, Tensor]:
    """Positive and negative shares (1, PATCHES, sets) that do not overlap."""
    chosen = torch.rand(1, PATCHES, sets, generator=torch.Generator().manual_seed(seed))
    return (chosen > 0.8).float(), (chosen < 0.3).float()


def clicks(positive: list[int], negative: list[int], sets: int = 1) -> Tensor:
    maps = torch.zeros(1, sets, 2, PATCHES)
    maps[:, :, 0, positive] = 0.4
    maps[:, :, 1, negative] = 0.4
    return maps


@torch.no_grad()
def reading(
    reader: Reader, target: Tensor, references: list[Tensor], labels: Tensor, clicked: Tensor
) -> Reading:
    tokens = reader.encode(target, GRID)
    encoded = torch.cat([reader.encode(reference, GRID) for reference in references], dim=1)
    frozen = PatchCosines.of(target, torch.cat(references, dim=1))
    matched = reader.match(tokens, encoded, frozen, labels)
    return reader.read(tokens, target, matched, clicked, GRID)


def test_label_sets_are_read_as_if_each_were_alone(reader: Reader) -> None:
    positive, negative = masks(1, sets=3)
    clicked = torch.cat([clicks([3], []), clicks([9, 20], [30]), clicks([], [])], dim=1)
    together = reading(reader, features(1), [features(2)], label_shares(positive, negative), clicked)
    for number in range(3):
        one = only(number)
        alone = reading(
            reader,
            features(1),
            [features(2)],
            label_shares(positive[..., one], negative[..., one]),
            clicked[:, one],
        )
        assert torch.allclose(together.logits[:, one], alone.logits, atol=1e-5)
        assert torch.allclose(together.hidden[:, one], alone.hidden, atol=1e-5)


def only(number: int) -> slice:
    return slice(number, number + 1)


def test_the_same_reference_twice_reads_like_once(reader: Reader) -> None:
    labels = label_shares(*masks(1))
    once = reading(reader, features(1), [features(2)], labels, clicks([7], [30]))
    twice = reading(reader, features(1), [features(2)] * 2, torch.cat([labels, labels], 1), clicks([7], [30]))
    assert torch.allclose(once.logits, twice.logits, atol=1e-4)


def test_the_order_of_references_does_not_matter(reader: Reader) -> None:
    first, second = label_shares(*masks(1)), label_shares(*masks(2))
    there = [features(2), features(3)]
    one = reading(reader, features(1), there, torch.cat([first, second], 1), clicks([7], []))
    other = reading(reader, features(1), there[::-1], torch.cat([second, first], 1), clicks([7], []))
    assert torch.allclose(one.logits, other.logits, atol=1e-5)


@pytest.mark.parametrize(
    ("positive", "negative"),
    [([7], []), ([8], []), ([7, 22], []), ([7], [30]), ([], [30]), ([7, 22], [30, 2])],
)
def test_every_click_matters(reader: Reader, positive: list[int], negative: list[int]) -> None:
    labels = label_shares(*masks(1))
    without = reading(reader, features(1), [features(2)], labels, clicks([], []))
    with_clicks = reading(reader, features(1), [features(2)], labels, clicks(positive, negative))
    assert not torch.allclose(without.logits, with_clicks.logits, atol=1e-4)


def test_negative_clicks_are_told_from_positive_ones(reader: Reader) -> None:
    labels = label_shares(*masks(1))
    one = reading(reader, features(1), [features(2)], labels, clicks([7], [30]))
    other = reading(reader, features(1), [features(2)], labels, clicks([30], [7]))
    assert not torch.allclose(one.logits, other.logits, atol=1e-4)


@pytest.mark.parametrize("absent", ["positive", "negative", "both"])
def test_an_absent_mask_gives_finite_numbers(reader: Reader, absent: str) -> None:
    positive, negative = masks(1)
    positive = positive * (absent == "negative")
    negative = negative * (absent == "positive")
    found = reading(reader, features(1), [features(2)], label_shares(positive, negative), clicks([7], []))
    assert torch.isfinite(found.logits).all()
    assert torch.isfinite(found.hidden).all()


def test_thinned_out_references_keep_the_sums_of_their_labels() -> None:
    positive, negative = torch.zeros(2, 1, 4 * 576)
    positive[0, ::40] = 1
    negative[0, 10:900] = 1
    labels = label_shares(positive, negative)
    kept, thinned = thin_out(positive, labels, 576)
    assert len(kept[0].unique()) == 576
    assert torch.allclose(thinned.sum(dim=1), labels.sum(dim=1), rtol=0.05)
    assert thinned[0, :, 0].sum() == labels[0, :, 0].sum()


def test_the_order_of_thinned_out_references_does_not_matter() -> None:
    positive, negative = torch.rand(2, 1, 3 * PATCHES, generator=torch.Generator().manual_seed(0)) > 0.6
    shares = torch.stack([positive.float(), (negative & ~positive).float()])
    turned = shares.roll(PATCHES, dims=-1)
    chosen = []
    for first, second in (shares, turned):
        kept, thinned = thin_out(first, label_shares(first, second), PATCHES)
        every = torch.zeros(3 * PATCHES, 3).index_add(0, kept[0], thinned[0])
        chosen.append(every)
    assert torch.allclose(chosen[0].roll(PATCHES, dims=0), chosen[1], atol=1e-5)


def test_few_references_need_no_thinning_out() -> None:
    positive, negative = masks(1)
    labels = label_shares(positive[..., 0], negative[..., 0])
    kept, thinned = thin_out(positive[..., 0], labels, PATCHES)
    assert torch.equal(torch.gather(labels, 1, kept[..., None].expand(-1, -1, 3)), thinned)


def test_labels_of_a_reference_add_up_to_its_patches() -> None:
    positive, negative = masks(1)
    assert torch.equal(label_shares(positive, negative).sum(dim=-1), torch.ones(1, PATCHES, 1))


def test_without_any_mask_all_labels_are_zero() -> None:
    nothing = torch.zeros(1, PATCHES, 1)
    assert not label_shares(nothing, nothing).any()


def test_the_best_covered_patch_counts_as_a_whole_one() -> None:
    positive = torch.zeros(1, PATCHES, 1)
    positive[0, 3], positive[0, 4] = 0.1, 0.05
    labels = label_shares(positive, torch.zeros_like(positive))
    assert labels[0, 3, 0].tolist() == pytest.approx([1, 0, 0])
    assert labels[0, 4, 0].tolist() == pytest.approx([0.5, 0, 0.5])


def test_bfloat16_says_nearly_the_same(reader: Reader) -> None:
    labels = label_shares(*masks(1))
    exact = reading(reader, features(1), [features(2)], labels, clicks([7], [30]))
    with torch.autocast("cpu", torch.bfloat16):
        rounded = reading(reader, features(1), [features(2)], labels, clicks([7], [30]))
    assert rounded.logits.dtype == torch.float32
    assert (exact.logits - rounded.logits).abs().max() < 0.1


def test_everything_in_it_learns(reader: Reader) -> None:
    reader.train()
    target, there = features(1), features(2)
    tokens = reader.encode(torch.cat([target, there]), GRID)
    matched = reader.match(tokens[:1], tokens[1:], PatchCosines.of(target, there), label_shares(*masks(1)))
    read = reader.read(tokens[:1], target, matched, clicks([7], [30]), GRID)
    read.logits.square().sum().backward()  # type: ignore[no-untyped-call]
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in reader.parameters())


@pytest.mark.parametrize("shape", [{"width": 20, "heads": 6}, {"hidden": 96, "affinity_heads": 5}])
def test_a_width_that_heads_do_not_divide_is_refused(shape: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="not divisible"):
        ReaderConfig(**shape)


@torch.no_grad()
def test_without_a_reference_its_channels_are_exactly_zero() -> None:
    network = random_network(TINY_READING)
    image, there = torch.rand(2, 1, 3, 56, 56, generator=torch.Generator().manual_seed(0))
    coords = torch.zeros(1, network.config.click_map_channels, 56, 56)
    coords[:, 1, 20:30, 20:30] = 1
    features = network.encode_image(image)
    empty = network.prepare_reference(features, network.encode_reference(there, None, None))
    assert empty.present is not None
    assert not empty.present.any()
    channels = network.compare(features, coords, empty)
    assert channels is not None
    assert not channels[..., -network.reader_channels :].any()
    answers = network.segment(features, coords, empty), network.segment(features, coords)
    assert torch.equal(answers[0].logits, answers[1].logits)


@torch.no_grad()
def test_one_batch_reads_like_its_samples_alone() -> None:
    network = random_network(TINY_READING)
    generator = torch.Generator().manual_seed(0)
    images, there = torch.rand(2, 3, 3, 56, 56, generator=generator)
    masks = (torch.rand(3, 1, 56, 56, generator=generator) > 0.5).float()
    masks[1] = 0
    coords = torch.zeros(3, network.config.click_map_channels, 56, 56)
    coords[0, 1, 20:30, 20:30] = 1

    def logits(rows: slice) -> Tensor:
        features = network.encode_image(images[rows])
        reference = network.encode_reference(there[rows], masks[rows], None)
        return network.segment(features, coords[rows], network.prepare_reference(features, reference)).logits

    together = logits(slice(0, 3))
    for number in range(3):
        assert torch.allclose(together[number], logits(slice(number, number + 1))[0], atol=1e-4)


def test_a_reader_that_is_not_trained_stays_without_dropout() -> None:
    network = random_network(TINY_READING).train()
    assert not network.reader.training
    network.reader.requires_grad_(True)
    assert network.train().reader.training
