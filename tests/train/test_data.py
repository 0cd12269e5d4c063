"""Which example goes where, in which order, and on which scale."""

from collections import Counter
from collections.abc import Callable
from fractions import Fraction
from hashlib import sha256
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from core.engine.datasets.batches import BatchSampler, epoch_order, iterate_batches
from core.engine.datasets.resident import TensorSplit, load_resident
from core.engine.datasets.splitting import apportion, split_indices
from core.engine.datasets.standardizer import fit_standardizer
from core.engine.failure import EngineError
from core.recipe.data import Data, Function, split_sizes
from core.recipe.data.diabetes import Diabetes
from core.recipe.data.digits import Digits
from core.recipe.data.iris import Iris

CPU = torch.device("cpu")


@pytest.mark.parametrize("seed", [0, 1, 2**63 - 1])
def test_an_epoch_is_a_permutation_of_its_own(seed: int) -> None:
    orders = [epoch_order(103, seed, epoch).tolist() for epoch in range(20)]
    assert all(sorted(order) == list(range(103)) for order in orders)
    assert len({tuple(order) for order in orders}) == 20
    assert orders == [epoch_order(103, seed, epoch).tolist() for epoch in range(20)]
    assert epoch_order(103, seed, 0).tolist() != epoch_order(103, seed - 1 if seed else 5, 0).tolist()


def test_the_order_of_seed_0_stays_what_it_was() -> None:
    """A literal: if it changes, every resumed job of an older release changes its past."""
    assert epoch_order(10, 0, 0).tolist() == [4, 5, 2, 9, 0, 7, 8, 1, 6, 3]


def test_batches_cover_each_epoch_once_and_keep_the_rest() -> None:
    numbers = torch.arange(10)
    part = TensorSplit(numbers[:, None].float(), numbers)
    seen = list(iterate_batches(part, BatchSampler(4, 10), 3, 0, 8))
    assert [t for t, _ in seen] == list(range(8))
    assert [len(targets) for _, (_, targets) in seen] == [4, 4, 2, 4, 4, 2, 4, 4]
    for epoch in (0, 1):
        targets = torch.cat([targets for t, (_, targets) in seen if t // 3 == epoch])
        assert targets.tolist() == epoch_order(10, 3, epoch).tolist()
    assert all(torch.equal(inputs[:, 0].long(), targets) for _, (inputs, targets) in seen)


@pytest.mark.parametrize("first", range(9))
def test_batches_can_start_anywhere(first: int) -> None:
    part = TensorSplit(torch.arange(10.0)[:, None], torch.arange(10))
    whole, rest = (
        list(iterate_batches(part, BatchSampler(4, 10), 3, 0, 8)),
        list(iterate_batches(part, BatchSampler(4, 10), 3, first, 8)),
    )
    assert [(t, targets.tolist()) for t, (_, targets) in rest] == [
        (t, targets.tolist()) for t, (_, targets) in whole[first:]
    ]


def test_the_full_batch_is_the_part_itself() -> None:
    part = TensorSplit(torch.arange(10.0)[:, None], torch.arange(10))
    assert [(t, batch[1] is part.targets) for t, batch in iterate_batches(part, None, 3, 5, 8)] == [
        (t, True) for t in (5, 6, 7)
    ]


@settings(deadline=None)
@given(st.lists(st.integers(0, 60), min_size=1, max_size=12), st.data())
def test_apportion_is_exact_proportional_and_possible(sizes: list[int], data: Any) -> None:
    seats = data.draw(st.integers(0, sum(sizes)))
    given_out = apportion(sizes, seats)
    assert sum(given_out) == seats
    assert all(0 <= got <= size for got, size in zip(given_out, sizes, strict=True))
    total = sum(sizes)
    assert all(abs(got - Fraction(size * seats, total or 1)) < 1 for got, size in zip(given_out, sizes, strict=True))


def test_apportion_by_hand() -> None:
    """Quotas 10 · (5, 3, 1) / 9 = 5.56, 3.33, 1.11: one seat left, to the largest remainder."""
    assert apportion([50, 30, 10], 10) == [6, 3, 1]
    assert apportion([1, 1, 1], 2) == [1, 1, 0]
    assert apportion([0, 4], 0) == [0, 0]


@pytest.mark.parametrize(
    "spec", [each for each in get_args(get_args(Data)[0]) if each is not Function], ids=lambda spec: str(spec().name)
)
@pytest.mark.parametrize(("validation", "test"), [(0.1, 0.2), (0.0, 0.0), (0.33, 0.33), (0.49, 0.5)])
def test_split_has_exact_sizes_and_even_classes(
    datasets: Callable[[str], Path], spec: Any, validation: float, test: float
) -> None:
    facts = spec().facts()
    sizes = split_sizes(facts.examples, validation, test)
    targets = torch.from_numpy(load_file(datasets(spec().name))["targets"])
    groups = targets if facts.classes else torch.zeros(facts.examples, dtype=torch.int64)
    indices = split_indices(groups, sizes, 0)
    parts = [indices.train.tolist(), indices.validation.tolist(), indices.test.tolist()]
    assert [len(part) for part in parts] == [sizes.train, sizes.validation, sizes.test]
    assert sorted(index for part in parts for index in part) == list(range(facts.examples))
    assert all(part == sorted(part) for part in parts)
    whole = Counter(groups.tolist())
    for part in parts:
        counts = Counter(groups[part].tolist())
        assert all(abs(counts[each] - whole[each] * len(part) / facts.examples) <= 2 for each in whole)


def test_split_depends_on_its_seed_alone() -> None:
    groups = torch.arange(100) % 3
    sizes = split_sizes(100, 0.1, 0.2)
    again = [split_indices(groups, sizes, seed).test.tolist() for seed in (0, 0, 1)]
    assert again[0] == again[1] != again[2]


def test_label_noise_confuses_its_share_of_the_train_part_alone(datasets: Callable[[str], Path]) -> None:
    """251.6 of 1,258 train examples, rounded half up; wrong classes come about equally often."""
    clean, noisy, again = (
        load_resident(Digits(label_noise=share), datasets("digits"), CPU) for share in (0.0, 0.2, 0.2)
    )
    wrong = clean.train.targets != noisy.train.targets
    assert (len(clean.train), int(wrong.sum())) == (1258, 252)
    assert torch.equal(noisy.train.targets, again.train.targets)
    assert torch.equal(noisy.train.inputs, clean.train.inputs)
    assert torch.equal(noisy.validation.targets, clean.validation.targets)
    assert torch.equal(noisy.test.targets, clean.test.targets)
    shifts = Counter(((noisy.train.targets - clean.train.targets)[wrong] % 10).tolist())
    assert set(shifts) == set(range(1, 10))
    assert max(shifts.values()) < 3 * 252 / 9
    other = load_resident(Digits(label_noise=0.2, split_seed=1), datasets("digits"), CPU)
    assert (
        int((other.train.targets != load_resident(Digits(split_seed=1), datasets("digits"), CPU).train.targets).sum())
        == 252
    )


def test_scales_are_those_of_the_train_part(datasets: Callable[[str], Path]) -> None:
    data = load_resident(Iris(), datasets("iris"), CPU)
    raw = load_file(datasets("iris"))
    indices = split_indices(torch.from_numpy(raw["targets"]), Iris().split(), 0)
    train = raw["inputs"][indices.train.numpy()].astype(np.float64)
    np.testing.assert_allclose(data.fitted["standardize.mean"].numpy(), train.mean(0), rtol=1e-6)
    np.testing.assert_allclose(data.fitted["standardize.std"].numpy(), train.std(0), rtol=1e-6)
    np.testing.assert_allclose(data.train.inputs.numpy().mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(data.train.inputs.numpy().std(0), 1, rtol=1e-5)
    held_out = (raw["inputs"][indices.test.numpy()] - train.mean(0)) / train.std(0)
    np.testing.assert_allclose(data.test.inputs.numpy(), held_out, rtol=1e-4, atol=1e-5)


def test_pictures_are_scaled_per_channel_and_constants_stay(datasets: Callable[[str], Path]) -> None:
    data = load_resident(Digits(), datasets("digits"), CPU)
    assert data.fitted["standardize.mean"].shape == (1, 1, 1)
    constant = fit_standardizer(torch.full((5, 2), 7.0), per_channel=False)
    assert constant.mean.tolist() == [7.0, 7.0]
    assert constant.std.tolist() == [1.0, 1.0]
    two = fit_standardizer(
        torch.tensor([[[[1.0, 3.0]], [[10.0, 10.0]]], [[[5.0, 7.0]], [[10.0, 10.0]]]]), per_channel=True
    )
    assert two.mean.flatten().tolist() == [4.0, 10.0]
    assert two.std.flatten().tolist() == pytest.approx([5**0.5, 1.0])


def test_regression_targets_are_scaled_too(datasets: Callable[[str], Path]) -> None:
    data = load_resident(Diabetes(), datasets("diabetes"), CPU)
    assert data.target_scale
    assert float(data.train.targets.mean()) == pytest.approx(0, abs=1e-5)
    assert set(data.standardize_tensors()) == {
        f"standardize.{each}" for each in ("mean", "std", "target_mean", "target_std")
    }
    raw = load_resident(Diabetes(standardize=False), datasets("diabetes"), CPU)
    assert raw.standardize_tensors() == {}
    assert float(raw.train.targets.max()) > 100


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"inputs": np.zeros((149, 4), np.float32)}, "149"),
        ({"inputs": np.zeros((150, 4), np.float64)}, "float64"),
        (
            {"targets": np.full(150, 3, np.int64)},
            "classes are not 0 to 2: rows 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 140 more",
        ),
        ({"targets": np.where(np.arange(150) == 8, -1, 0)}, "classes are not 0 to 2: row 8$"),
        ({"inputs": np.where([[0, 0, n in {3, 17}, 0] for n in range(150)], np.inf, np.float32(1))}, "rows 3, 17$"),
        ({"inputs": None}, "inputs"),
    ],
)
def test_bad_data_is_named(
    tmp_path: Path, datasets: Callable[[str], Path], change: dict[str, Any], message: str
) -> None:
    tensors = {name: value for name, value in {**load_file(datasets("iris")), **change}.items() if value is not None}
    save_file(tensors, tmp_path / "iris.safetensors")
    with pytest.raises(EngineError, match=message) as caught:
        load_resident(Iris(), tmp_path / "iris.safetensors", CPU)
    assert caught.value.code == "bad_data"


def test_missing_garbled_and_swapped_files_are_bad_data(tmp_path: Path, datasets: Callable[[str], Path]) -> None:
    garbled = tmp_path / "garbled.safetensors"
    garbled.write_bytes(b"\xff" * 100)
    for path in (tmp_path / "missing", garbled):
        with pytest.raises(EngineError, match="cannot read the dataset"):
            load_resident(Iris(), path, CPU)
    digest = sha256(datasets("iris").read_bytes()).hexdigest()
    load_resident(Iris(), datasets("iris"), CPU, digest)
    with pytest.raises(EngineError, match="SHA-256"):
        load_resident(Iris(), datasets("iris"), CPU, "0" * 64)
