"""SAM against its closed form on a quadratic, and everything that its second pass must not touch."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from core.engine.gradients.closed_form import closed_form
from core.engine.gradients.gradient import build_gradient
from core.engine.gradients.sam import sharpness_aware
from core.engine.networks.network import Network, build_network
from core.recipe.facts import DataFacts
from core.recipe.models.mlp import MLP
from core.recipe.sam import SAM
from tests.train.runs import Train, job
from tests.train.test_optimizers import point

pytestmark = pytest.mark.usefixtures("one_thread")
CPU = torch.device("cpu")
TABLE = DataFacts(examples=50, input_shape=(6,), task="classification", outputs=3)
CURVATURES = [1.0, 10.0]
NOTHING = torch.zeros(0)


def bowl(network: Network) -> Callable[[Tensor, Tensor], Tensor]:
    """The loss (1 w0² + 10 w1²) / 2 and its gradient (w0, 10 w1)."""
    curvatures = torch.tensor(CURVATURES, dtype=network.weights.dtype)

    def gradient(inputs: Tensor, targets: Tensor) -> Tensor:
        weights = network.weights.detach()
        network.gradient.copy_(curvatures * weights)
        return (curvatures * weights**2).sum() / 2

    return gradient


def by_hand(weights: list[float], rho: float, eta: float | None) -> list[float]:
    """The gradient at w + e: plain numbers, from the formulas of the two papers."""
    g = [h * w for h, w in zip(CURVATURES, weights, strict=True)]
    t = [1.0 if eta is None else abs(w) + eta for w in weights]
    norm = math.hypot(*(a * b for a, b in zip(t, g, strict=True)))
    e = [rho * a * a * b / norm for a, b in zip(t, g, strict=True)]
    return [h * (w + each) for h, w, each in zip(CURVATURES, weights, e, strict=True)]


@pytest.mark.parametrize(
    ("spec", "eta"),
    [
        (SAM(), None),
        (SAM(rho=0.5), None),
        (SAM(rho=0.5, adaptive=True), 0.01),
        (SAM(rho=2.0, adaptive=True, eta=0.0), 0.0),
    ],
)
def test_the_gradient_is_that_of_the_worst_point_nearby(spec: SAM, eta: float | None) -> None:
    """At (3, -0.4) g = (3, -4), |g| = 5; with rho 0.5 e = (0.3, -0.4), the gradient there (3.3, -8)."""
    assert by_hand([3.0, -0.4], 0.5, None) == pytest.approx([3.3, -8.0])
    network = point([3.0, -0.4], torch.float64)
    loss = sharpness_aware(bowl(network), network, spec, lambda: 0)(NOTHING, NOTHING)
    assert float(loss) == pytest.approx((9 + 1.6) / 2)
    assert network.gradient.tolist() == pytest.approx(by_hand([3.0, -0.4], spec.rho, eta), rel=1e-12)
    assert network.weights.tolist() == [3.0, -0.4]


def test_steps_of_a_bowl_by_hand() -> None:
    """Ten steps of descent with SAM on every second: w <- w - 0.05 g(w + e) at even t, w - 0.05 g(w) at odd."""
    now = {"t": 0}
    network, expected = point([3.0, -0.4], torch.float64), [3.0, -0.4]
    gradient = sharpness_aware(bowl(network), network, SAM(rho=0.5, interval=2), lambda: now["t"])
    for t in range(10):
        now["t"] = t
        gradient(NOTHING, NOTHING)
        with torch.no_grad():
            network.weights.sub_(0.05 * network.gradient)
        slope = [h * w for h, w in zip(CURVATURES, expected, strict=True)] if t % 2 else by_hand(expected, 0.5, None)
        expected = [w - 0.05 * g for w, g in zip(expected, slope, strict=True)]
    assert network.weights.tolist() == pytest.approx(expected, rel=1e-10)


def test_where_there_is_no_slope_there_is_no_direction() -> None:
    network = point([0.0, 0.0])
    for adaptive in (False, True):
        sharpness_aware(bowl(network), network, SAM(adaptive=adaptive), lambda: 0)(NOTHING, NOTHING)
        assert network.gradient.tolist() == network.weights.tolist() == [0.0, 0.0]


@pytest.mark.parametrize("micro", [None, 6])
@pytest.mark.parametrize(
    "spec", [MLP(hidden=(8,), batch_norm=True, dropout=0.4), MLP(hidden=(8,))], ids=["all", "plain"]
)
def test_the_second_pass_leaves_no_trace(spec: Any, micro: int | None) -> None:
    """Weights, running statistics, their counters, randomness and loss are those of one pass, to the last bit."""
    generator = torch.Generator().manual_seed(2)
    inputs, targets = torch.randn(20, 6, generator=generator), torch.randint(3, (20,), generator=generator)
    seen = []
    for rho in (None, 0.3):
        network = build_network(spec, TABLE, 0, CPU)
        gradient = build_gradient(network, functional.cross_entropy, micro=micro)
        if rho:
            gradient = sharpness_aware(gradient, network, SAM(rho=rho), lambda: 0)
        torch.default_generator.manual_seed(9)
        loss = gradient(inputs, targets)
        state = {name: each.clone() for name, each in network.tensors().items()}
        seen.append((loss, state, torch.default_generator.get_state(), network.gradient.clone()))
    (loss, state, randomness, plain), (its_loss, its_state, its_randomness, sharp) = seen
    assert torch.equal(loss, its_loss)
    assert all(torch.equal(each, its_state[name]) for name, each in state.items())
    assert torch.equal(randomness, its_randomness)
    assert not torch.equal(plain, sharp)


def test_both_passes_see_the_same_dropout() -> None:
    """With a radius of almost nothing the second gradient is the first one, which other masks would not give."""
    spec = MLP(hidden=(8,), dropout=0.5)
    inputs, targets = torch.ones(20, 6), torch.zeros(20, dtype=torch.int64)
    gradients = []
    for rho in (None, 1e-9):
        network = build_network(spec, TABLE, 0, CPU)
        gradient = build_gradient(network, functional.cross_entropy)
        if rho:
            gradient = sharpness_aware(gradient, network, SAM(rho=rho), lambda: 0)
        torch.default_generator.manual_seed(9)
        gradient(inputs, targets)
        gradients.append(network.gradient.clone())
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-7)


def test_weights_come_back_when_the_second_pass_fails() -> None:
    network = point([3.0, -0.4])
    calls = iter([False, True])
    inner = bowl(network)

    def gradient(inputs: Tensor, targets: Tensor) -> Tensor:
        if next(calls):
            raise MemoryError
        return inner(inputs, targets)

    before = network.weights.detach().clone()
    with pytest.raises(MemoryError):
        sharpness_aware(gradient, network, SAM(), lambda: 0)(NOTHING, NOTHING)
    assert torch.equal(network.weights, before)


def test_the_perturbation_is_that_of_the_whole_effective_batch() -> None:
    """Micro-batches of 6 and one batch of 20 go the same way; perturbing each by itself would not."""
    generator = torch.Generator().manual_seed(3)
    inputs, targets = torch.randn(20, 6, generator=generator), torch.randint(3, (20,), generator=generator)
    gradients = []
    for micro in (None, 6):
        network = build_network(MLP(hidden=(8,)), TABLE, 0, CPU)
        assert closed_form(network.module, functional.cross_entropy)
        gradient = build_gradient(network, functional.cross_entropy, micro=micro)
        sharpness_aware(gradient, network, SAM(rho=1.0), lambda: 0)(inputs, targets)
        gradients.append(network.gradient.clone())
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-6)


def test_clipping_is_about_the_second_gradient(run: Train) -> None:
    """At equal weights, those of step 0, the first norms differ, and the loss does not."""
    plain, sharp = (
        run(job(clip_grad={"norm": 0.1}, steps=1, epochs=None, sam=sam))[1] for sam in (False, {"rho": 1.0})
    )
    assert plain.series()["train.loss"] == sharp.series()["train.loss"]
    assert plain.series()["grad_norm"] != sharp.series()["grad_norm"]


def test_an_interval_beyond_the_run_is_one_step_of_sam(run: Train) -> None:
    """Steps 0, 100, …: of these 24 only the first, so a run that begins with the second is plain."""
    (_, plain), (_, once) = run(job()), run(job(sam={"interval": 100, "rho": 1.0}))
    first, second = (each.series()["train.loss"] for each in (plain, once))
    assert first[0] == second[0]
    assert first[1:] != second[1:]
