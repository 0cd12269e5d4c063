"""Augmentation: pure in (seed, epoch, row), whatever the batch; uniform; and what each operation does to an image."""

import json
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter
from scipy import stats
from torch import Tensor
from torch.nn import functional

from core.engine.datasets.augment import Augmentation, apply_chosen, build_change
from core.engine.datasets.draws import Draws, splitmix64
from core.engine.datasets.images import ValueTransform
from core.engine.datasets.mixing import BetaQuantile
from core.engine.datasets.prepared_split import PreparedSplit, partner_indices
from core.engine.datasets.source import RowSource
from core.engine.datasets.split import EpochOrder, iterate_chunks
from core.engine.gradients.closed_form import cross_entropy
from core.recipe.data.augment import Augmentation as Operation
from core.recipe.data.augment import Contrast, Crop, Erase

CPU = torch.device("cpu")
CLASSES = 5
EXAMPLES = 40
OPERATIONS: dict[str, dict[str, Any]] = {
    "crop": {"padding": 2},
    "hflip": {},
    "vflip": {},
    "rotate90": {},
    "erase": {"size": 0.3, "share": 0.7},
    "brightness": {"strength": 0.6},
    "contrast": {"strength": 0.6},
    "saturation": {"strength": 0.6},
    "mixup": {"alpha": 0.3},
    "cutmix": {"alpha": 1.0, "share": 0.6},
    "randaugment": {"operations": 3, "magnitude": 20},
}
ALL = tuple({"op": name, **fields} for name, fields in OPERATIONS.items())


def augmentation(*operations: dict[str, Any]) -> Augmentation:
    adapter: TypeAdapter[Any] = TypeAdapter(tuple[Operation, ...])
    return Augmentation(adapter.validate_json(json.dumps(operations)), CLASSES)


def images(count: int = EXAMPLES, channels: int = 3, size: int = 9) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randint(0, 256, (count, channels, size, size), generator=generator, dtype=torch.uint8)


def split(*operations: dict[str, Any], pixels: Tensor | None = None) -> PreparedSplit:
    """Rows 100 to 100 + n of a source; its targets are the classes in turn."""
    pixels = images() if pixels is None else pixels
    count = len(pixels)
    source = RowSource({"pixels": torch.cat([torch.zeros(100, *pixels.shape[1:], dtype=torch.uint8), pixels])}, CPU)
    transform = ValueTransform("pixels", tuple(pixels.shape[1:]), None, CPU)
    rows, targets = torch.arange(100, 100 + count), torch.arange(count) % CLASSES
    return PreparedSplit(source, rows, targets, transform, augmentation(*operations) if operations else None)


def epoch_of(part: PreparedSplit, size: int, epoch: int = 0, seed: int = 7) -> dict[int, tuple[Tensor, Tensor]]:
    """Every example of an epoch, by its index, from batches of `size`."""
    indices = torch.randperm(len(part), generator=torch.Generator().manual_seed(11))
    batches = list(part.epoch_batches(EpochOrder(indices, seed, epoch), size, 0))
    inputs, targets = (torch.cat(each) for each in zip(*batches, strict=True))
    return {index: (inputs[place], targets[place]) for place, index in enumerate(indices.tolist())}


@pytest.mark.parametrize("operations", [*((each,) for each in ALL), ALL], ids=[*OPERATIONS, "all"])
def test_an_example_is_the_same_in_every_batch(operations: tuple[dict[str, Any], ...]) -> None:
    part = split(*operations)
    together, alone, sevens = (epoch_of(part, size) for size in (EXAMPLES, 1, 7))
    for index, (image, target) in together.items():
        for other in (alone[index], sevens[index]):
            assert torch.equal(image, other[0])
            assert torch.equal(target, other[1])
    again, later = epoch_of(part, 7), epoch_of(part, 7, epoch=1)
    assert all(torch.equal(again[index][0], sevens[index][0]) for index in again)
    assert any(not torch.equal(later[index][0], sevens[index][0]) for index in later)
    other_seed = epoch_of(part, 7, seed=8)
    assert any(not torch.equal(other_seed[index][0], sevens[index][0]) for index in other_seed)


@pytest.mark.parametrize("name", [name for name in OPERATIONS if name not in {"mixup", "cutmix"}])
def test_an_example_does_not_depend_on_the_order(name: str) -> None:
    """A subset in another order: what is drawn belongs to the row of the dataset."""
    part = split({"op": name, **OPERATIONS[name]})
    chosen = torch.tensor([8, 30, 2, 17])
    few = part.select(chosen)
    ((inputs, _),) = few.epoch_batches(EpochOrder(torch.arange(4), 7, 0), 4, 0)
    whole = epoch_of(part, 13)
    assert all(torch.equal(image, whole[index][0]) for image, index in zip(inputs, chosen.tolist(), strict=True))


def test_the_middle_of_an_epoch_is_that_of_the_whole() -> None:
    part = split(*ALL)
    order = EpochOrder(torch.randperm(EXAMPLES, generator=torch.Generator().manual_seed(0)), 1, 3)
    whole = list(part.epoch_batches(order, 6, 0))
    for first in range(len(whole)):
        rest = list(part.epoch_batches(order, 6, first))
        assert len(rest) == len(whole) - first
        for ours, theirs in zip(rest, whole[first:], strict=True):
            assert torch.equal(ours[0], theirs[0])
            assert torch.equal(ours[1], theirs[1])


def test_only_training_is_augmented_and_re_estimation_without_mixtures() -> None:
    part, plain = split(*ALL), split()
    assert torch.equal(part.whole()[0], plain.whole()[0])
    assert torch.equal(part.take(torch.tensor([3]))[0], plain.take(torch.tensor([3]))[0])
    changed = torch.cat([inputs for inputs, _ in iterate_chunks(part, 7, augmented=True)])
    again = torch.cat([inputs for inputs, _ in iterate_chunks(part, 16, augmented=True)])
    assert torch.equal(changed, again)
    assert not torch.equal(changed, part.whole()[0])
    assert all(not targets.is_floating_point() for _, targets in iterate_chunks(part, 7, augmented=True))


def test_splitmix64_is_the_published_one() -> None:
    """The first outputs for the seed 1234567: the state is advanced by the constant before each output."""
    gamma = 0x9E3779B97F4A7C15
    counters = torch.tensor(
        [1234567 * pow(gamma, -1, 2**64) % 2**64 + step for step in range(1, 4)], dtype=torch.uint64
    )
    found = [value % 2**64 for value in splitmix64(counters.view(torch.int64)).tolist()]
    assert found == [6457827717110365317, 3203168211198807973, 9817491932198370423]


def test_draws_are_uniform_and_independent() -> None:
    rows = torch.arange(200_000)
    first, second = (Draws(0, 0, rows).uniform(name).numpy() for name in ("a", "b"))
    later = Draws(0, 1, rows).uniform("a").numpy()
    for drawn in (first, second, later):
        assert stats.kstest(drawn, "uniform").pvalue > 1e-4
        assert float(drawn.min()) >= 0
        assert float(drawn.max()) < 1
        assert abs(np.corrcoef(drawn[1:], drawn[:-1])[0, 1]) < 0.01
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.01
    assert abs(np.corrcoef(first, later)[0, 1]) < 0.01
    counts = np.bincount(Draws(0, 0, rows).integers(3, "turns").numpy())
    assert stats.chisquare(counts).pvalue > 1e-4
    assert len(counts) == 4


@pytest.mark.parametrize("alpha", [0.05, 0.2, 1.0, 4.0, 100.0])
def test_shares_have_their_beta_distribution(alpha: float) -> None:
    levels = torch.linspace(0.001, 0.5, 500, dtype=torch.float64)
    quantile = BetaQuantile(alpha)
    np.testing.assert_allclose(stats.beta(alpha, alpha).cdf(quantile(levels).numpy()), levels, atol=2e-4)
    torch.testing.assert_close(quantile(1 - levels), 1 - quantile(levels))


def test_crops_and_flips_are_views_of_the_padded_image() -> None:
    pixels = images(200, channels=1, size=6)
    padded = functional.pad(pixels, (2, 2, 2, 2)).float()
    places = set()
    for index, (image, _) in epoch_of(split({"op": "crop", "padding": 2}, pixels=pixels), 50).items():
        (found,) = (
            (top, left)
            for top in range(5)
            for left in range(5)
            if torch.equal(image, padded[index, :, top : top + 6, left : left + 6])
        )
        places.add(found)
    assert len(places) == 25
    for name, axis in (("hflip", -1), ("vflip", -2)):
        flipped = [
            torch.equal(image, pixels[index].float().flip(axis))
            for index, (image, _) in epoch_of(split({"op": name}, pixels=pixels), 50).items()
        ]
        assert 70 < sum(flipped) < 130
    turns = [
        [torch.equal(image, pixels[index].float().rot90(turn, (1, 2))) for turn in range(4)]
        for index, (image, _) in epoch_of(split({"op": "rotate90"}, pixels=pixels), 50).items()
    ]
    assert all(sum(each) == 1 for each in turns)
    assert all(30 < sum(column) < 70 for column in zip(*turns, strict=True))


def test_an_erased_rectangle_is_black_and_the_rest_stays() -> None:
    pixels = images(200, size=8).clamp(min=1)
    erased = 0
    for index, (image, _) in epoch_of(split({"op": "erase", "size": 0.5, "share": 0.5}, pixels=pixels), 50).items():
        black = image == 0
        assert torch.equal(image[~black], pixels[index].float()[~black])
        assert int(black.sum()) in {0, 3 * 16}
        erased += int(black.any())
        if black.any():
            rows, columns = black[0].any(1).nonzero(), black[0].any(0).nonzero()
            assert (int(rows.max() - rows.min()), int(columns.max() - columns.min())) == (3, 3)
    assert 70 < erased < 130


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation"])
def test_colours_move_along_their_line(name: str) -> None:
    """A value x becomes c + f (x - c): of the pixels that are not clipped, the factor is the same all over an image."""
    pixels = images(100).clamp(60, 180)
    factors = []
    for index, (image, _) in epoch_of(split({"op": name, "strength": 0.4}, pixels=pixels), 50).items():
        before = pixels[index].numpy().astype(np.float64)
        grey = np.tensordot(np.array([0.299, 0.587, 0.114]), before, 1)
        centre = {"brightness": 0.0 * before, "contrast": 0 * before + grey.mean(), "saturation": grey + 0 * before}[
            name
        ]
        after = image.numpy()
        kept = (np.abs(before - centre) > 5) & (after > 0) & (after < 255)
        ratio = (after - centre)[kept] / (before - centre)[kept]
        np.testing.assert_allclose(ratio, ratio.mean(), atol=1e-3)
        factors.append(ratio.mean())
    assert 0.6 <= min(factors) < 0.65
    assert 1.35 < max(factors) <= 1.4


def test_a_mixture_has_the_targets_of_its_pixels() -> None:
    """Constant images: the pixels say from which two examples they are, and in which shares."""
    values = torch.arange(EXAMPLES, dtype=torch.uint8) * 6
    pixels = values[:, None, None, None].expand(EXAMPLES, 1, 10, 10).contiguous()
    order = EpochOrder(torch.randperm(EXAMPLES, generator=torch.Generator().manual_seed(0)), 5, 2)
    partners = partner_indices(order, 0, EXAMPLES)
    assert sorted(partners.tolist()) == list(range(EXAMPLES))
    assert not (partners == order.indices).any()
    shares = []
    for operation in ({"op": "mixup", "alpha": 1.0}, {"op": "cutmix", "share": 1.0}):
        ((inputs, targets),) = split(operation, pixels=pixels).epoch_batches(order, EXAMPLES, 0)
        for place, (own, other) in enumerate(zip(order.indices.tolist(), partners.tolist(), strict=True)):
            mean = float(inputs[place].mean())
            share = (mean - 6 * other) / (6 * own - 6 * other)
            shares.append(share)
            expected = np.zeros(CLASSES)
            expected[own % CLASSES] += share
            expected[other % CLASSES] += 1 - share
            np.testing.assert_allclose(targets[place], expected, atol=1e-4)
    assert min(shares) < 0.2
    assert max(shares) > 0.8


def test_the_closed_form_takes_probabilities() -> None:
    generator = torch.Generator().manual_seed(0)
    outputs = torch.randn(9, CLASSES, generator=generator, requires_grad=True)
    chances = torch.rand(9, CLASSES, generator=generator).softmax(1)
    theirs = functional.cross_entropy(outputs, chances)
    (slope,) = torch.autograd.grad(theirs, outputs)
    loss, gradient = cross_entropy(outputs.detach(), chances)
    torch.testing.assert_close(loss, theirs.detach())
    torch.testing.assert_close(gradient, slope)


def test_changes_of_some_images_are_those_of_all() -> None:
    """A GPU changes all images and chooses afterwards; a CPU changes the chosen ones alone."""
    pixels, draws = images().float(), Draws(1, 2, torch.arange(EXAMPLES))
    changes = [build_change(each) for each in (Crop(padding=2), Contrast(strength=0.5), Erase())]
    chosen = torch.arange(EXAMPLES) % 5 % 4  # the last number is no change
    expected = pixels
    for number, change in enumerate(changes):
        mine = (chosen == number)[:, None, None, None]
        expected = torch.where(mine, change(pixels, draws, ("key", number)), expected)
    assert torch.equal(apply_chosen(pixels, draws, ("key",), chosen, changes), expected)
    assert torch.equal(apply_chosen(pixels, draws, ("key",), chosen * 0 + 3, changes), pixels)


def test_rand_augment_of_magnitude_0_changes_nothing() -> None:
    part = split({"op": "randaugment", "magnitude": 0})
    assert all(torch.equal(image, part.whole()[0][index]) for index, (image, _) in epoch_of(part, 9).items())
