"""Statistics of train rows in chunks: exact where they can be, and never with a copy of the rows."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from core.engine.datasets import fitting
from core.engine.datasets.fitting import (
    MaskedColumns,
    fit_means,
    fit_medians,
    fit_moments,
    fit_pixels,
    from_ordered_bits,
    ordered_bits,
)
from core.engine.datasets.quantiles import apply_quantiles, fit_quantiles

FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)


def masked(values: Tensor, present: Tensor) -> MaskedColumns:
    return MaskedColumns(lambda rows, chosen: (values[rows][:, chosen], present[rows][:, chosen]), values.shape[1])


@settings(deadline=None)
@given(st.lists(FLOATS, min_size=1, max_size=40), st.data())
def test_medians_are_those_of_numpy(column: list[float], data: st.DataObject) -> None:
    present = data.draw(st.lists(st.booleans(), min_size=len(column), max_size=len(column)))
    values = torch.tensor(column, dtype=torch.float32)[:, None]
    known = np.array(column, dtype=np.float32)[present].astype(np.float64)
    found = fit_medians(masked(values, torch.tensor(present)[:, None]), torch.arange(len(column)), torch.tensor([0]))
    assert found.tolist() == [np.float32(np.median(known)) if len(known) else 0.0]


@settings(deadline=None)
@given(st.lists(FLOATS, min_size=1, max_size=40))
def test_bits_have_the_order_of_their_numbers(numbers: list[float]) -> None:
    values = torch.tensor(numbers, dtype=torch.float32)
    bits = ordered_bits(values)
    assert torch.equal(from_ordered_bits(bits), values)
    assert torch.equal(bits[:, None] < bits, values[:, None] < values)


def test_many_columns_are_searched_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitting, "CHUNK_NUMBERS", 700)
    monkeypatch.setattr(fitting, "MOST_COLUMNS", 32)
    values = torch.randn(501, 70, generator=torch.Generator().manual_seed(0))
    present = torch.rand(501, 70, generator=torch.Generator().manual_seed(1)) < 0.7
    rows = torch.arange(0, 501, 2)
    known = np.where(present[rows], values[rows].double(), np.nan)
    columns = torch.arange(70)
    medians = fit_medians(masked(values, present), rows, columns)
    np.testing.assert_array_equal(medians, np.nanmedian(known, axis=0).astype(np.float32))
    np.testing.assert_allclose(fit_means(masked(values, present), rows, columns), np.nanmean(known, axis=0), rtol=1e-6)


@pytest.mark.parametrize(("shape", "per_channel"), [((6,), False), ((3, 4, 5), True)])
def test_moments_in_chunks(monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...], per_channel: bool) -> None:
    monkeypatch.setattr(fitting, "CHUNK_NUMBERS", 200)
    values = torch.randn(101, *shape, generator=torch.Generator().manual_seed(0)) * 5 + 1000
    values[:, 1] = 7
    rows = torch.arange(1, 101, 2)
    scale = fit_moments(lambda some: values[some], rows, values[0].numel(), per_channel=per_channel)
    chosen = values[rows].double().numpy()
    axes = (0, 2, 3) if per_channel else 0
    std = chosen.std(axes)
    np.testing.assert_allclose(scale.mean.flatten(), chosen.mean(axes), rtol=1e-6)
    np.testing.assert_allclose(scale.std.flatten(), np.where(std > 0, std, 1), rtol=1e-5)


def test_pixels_are_counted() -> None:
    pixels = torch.randint(0, 256, (50, 2, 4, 4), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    scale = fit_pixels(lambda rows: pixels[rows], torch.arange(30), (2, 4, 4))
    chosen = pixels[:30].double().numpy()
    np.testing.assert_allclose(scale.mean.flatten(), chosen.mean((0, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(scale.std.flatten(), chosen.std((0, 2, 3)), rtol=1e-6)


def test_quantiles_make_a_normal_of_any_distribution() -> None:
    values = torch.rand(5000, 1, generator=torch.Generator().manual_seed(0)).pow(4)
    knots, scores = fit_quantiles(lambda rows: values[rows], torch.arange(5000), 0)
    found = apply_quantiles(values, knots, scores)[:, 0]
    expected = torch.special.ndtri((values[:, 0].argsort().argsort().double() + 0.5) / 5000)
    inner = expected.abs() < 2  # between the outermost knots five values share a line
    assert float((found - expected)[inner].abs().max()) < 0.05
    beyond = apply_quantiles(torch.tensor([[-1.0], [2.0]]), knots, scores)[:, 0]
    assert beyond.tolist() == [float(scores.min()), float(scores.max())]


@pytest.mark.parametrize("rows", [1, 2, 3, 30])
def test_equal_values_have_the_mean_of_their_ranks(rows: int) -> None:
    values = (torch.arange(rows) % 3).float()[:, None]
    found = apply_quantiles(values, *fit_quantiles(lambda some: values[some], torch.arange(rows), 0))[:, 0]
    assert len(found.unique()) == min(rows, 3)
    assert bool(found.isfinite().all())
    if rows == 30:
        ranks = (torch.arange(30).double() + 0.5) / 30
        expected = torch.special.ndtri(ranks).reshape(3, 10).mean(1)
        np.testing.assert_allclose(found[:3], expected, atol=1e-6)
