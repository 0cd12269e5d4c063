"""SWAG's samples have the moments of its paper, K is the number of deviations that there are, and draws are its own."""

from typing import Any

import numpy as np
import pytest
import torch

from core.engine.datasets.resident import TensorSplit
from core.engine.determinism import seeded_generator
from core.engine.networks.network import build_network
from core.engine.weights.averaging import RunningMean
from core.engine.weights.swag import SwagPosterior
from core.recipe.averaging import SWAG, CollectionSteps
from core.recipe.facts import DataFacts
from core.recipe.models.logistic import Logistic
from tests.train.runs import Train, digests, job

FACTS = DataFacts(examples=9, input_shape=(2,), task="classification", outputs=2)  # 6 weights
NORMED = {"name": "mlp", "hidden": [16], "batch_norm": True, "dropout": 0.1}


def gathered(values: np.ndarray[Any, Any], **options: Any) -> SwagPosterior:
    """SWAG that has seen `values` (n, 6)."""
    visited, mean, own = (build_network(Logistic(), FACTS, 0, torch.device("cpu")) for _ in range(3))
    swa = RunningMean(CollectionSteps(1, 1), mean, TensorSplit(torch.zeros(2, 2), torch.zeros(2)), 2)
    swag = SwagPosterior(SWAG(**options), swa, own, len(values), seed=3)
    for each in values:
        with torch.no_grad():
            visited.weights.copy_(torch.from_numpy(each))
        swa.collect(visited)
        swag.collect(visited)
    return swag


def by_definition(values: np.ndarray[Any, Any], max_rank: int) -> tuple[Any, Any, Any]:
    """Mean, variance, and the last deviations (K, 6), each from the mean of the models up to its own, in float64."""
    deviations = [values[i] - values[: i + 1].mean(0) for i in range(len(values))]
    return values.mean(0), values.var(0), np.stack(deviations[-max_rank:])


@pytest.mark.parametrize(("models", "max_rank"), [(2, 20), (5, 20), (20, 20), (33, 20), (40, 3)])
def test_a_sample_by_definition(models: int, max_rank: int) -> None:
    """Fewer models than max_rank divide by their own number minus 1; the reference code divides by max_rank - 1."""
    values = np.random.default_rng(models).normal(size=(models, 6))
    mean, variance, deviations = by_definition(values, max_rank)
    swag = gathered(values, max_rank=max_rank, scale=0.5)
    generator = seeded_generator(3, "swag", 7)
    e = torch.randn(6, generator=generator).double().numpy()
    f = torch.randn(len(deviations), generator=generator).double().numpy()
    f = np.roll(f, -(models % len(deviations)))  # rows are reused in turn: the oldest deviation has the next row
    expected = mean + np.sqrt(0.5) * (np.sqrt(variance) * e + deviations.T @ f / np.sqrt(len(deviations) - 1))
    np.testing.assert_allclose(swag.draw_weights(7).numpy(), expected, rtol=2e-5, atol=2e-6)


def test_samples_have_the_covariance_of_the_paper() -> None:
    """Half of diag(variance) + Dᵀ D / (K - 1); 6,000 draws come within 0.1 of it where it is about 1."""
    values = np.random.default_rng(1).normal(size=(8, 6)) * np.array([2.0, 1.0, 1.0, 0.5, 1.0, 0.1])
    mean, variance, deviations = by_definition(values, 20)
    swag = gathered(values)
    draws = torch.stack([swag.draw_weights(number) for number in range(6000)]).double().numpy()
    covariance = 0.5 * (np.diag(variance) + deviations.T @ deviations / 7)
    np.testing.assert_allclose(draws.mean(0), mean, atol=0.06)
    np.testing.assert_allclose(np.cov(draws.T), covariance, atol=0.1)


def test_a_small_spread_of_large_weights_is_not_lost() -> None:
    """In float32 the mean of squares minus the square of the mean of 1,000 ± 0.01 has no digit left."""
    values = 1000 + 0.01 * np.random.default_rng(2).normal(size=(50, 6))
    values = values.astype(np.float32).astype(np.float64)
    swag = gathered(values, max_rank=2)
    spread = (swag.tensors()["swag.squares"].double().numpy() / 50) ** 0.5
    np.testing.assert_allclose(spread, values.std(0), rtol=0.02)


def test_samples_are_judged_once_and_disturb_nobody(run: Train) -> None:
    swa = {"start": "10st", "every": "2st"}
    plain_ending, plain = run(job(model=NORMED, swa=swa))
    spec = job(model=NORMED, swa={**swa, "swag": {"samples": 5, "max_rank": 4}})
    ending, watcher = run(spec)
    assert digests(watcher.checkpoints()[24])["weights"] == digests(plain.checkpoints()[24])["weights"]
    assert {name: ending.results[name] for name in ("base", "swa")} == plain_ending.results
    assert watcher.series()["swag.test.loss"] == [(24, ending.results["swag"]["test"]["loss"])]
    assert ending.results["swag"] != ending.results["swa"]
    assert run(spec)[0].results == ending.results
    other = job(model=NORMED, swa={**swa, "swag": {"samples": 1, "max_rank": 4}})
    assert run(other)[0].results["swag"] != ending.results["swag"]
