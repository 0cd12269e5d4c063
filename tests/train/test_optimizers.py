"""torch's fused updates on one flat tensor against the update rules written in plain Python."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn

from core.engine.optimizer import build_stepper, expected_state
from core.recipe.optimizers.adam import Adam
from core.recipe.optimizers.adamw import AdamW
from core.recipe.optimizers.rmsprop import RMSprop
from core.recipe.optimizers.sgd import SGD

START = [0.5, -1.25, 3.0, 0.0]
GRADIENTS = [[0.1, -0.2, 0.3, 1.0], [0.4, 0.0, -0.7, -2.0], [-0.3, 0.9, 0.05, 0.5], [0.2, 0.2, -0.1, 1e-3]]
RATES = [0.1, 0.07, 0.2, 0.01]
Rule = Callable[[float, float, float], float]  # weight, gradient, rate -> weight


def sgd(momentum: float = 0.0, dampening: float = 0.0, weight_decay: float = 0.0, *, nesterov: bool = False) -> Rule:
    velocity: list[float] = []

    def update(w: float, g: float, lr: float) -> float:
        g += weight_decay * w
        if momentum:
            velocity[:] = [momentum * velocity[0] + (1 - dampening) * g if velocity else g]
            g = g + momentum * velocity[0] if nesterov else velocity[0]
        return w - lr * g

    return update


def adam(beta1: float, beta2: float, eps: float, coupled: float, decoupled: float, *, amsgrad: bool = False) -> Rule:
    state = {"m": 0.0, "v": 0.0, "t": 0.0, "most": 0.0}

    def update(w: float, g: float, lr: float) -> float:
        w *= 1 - lr * decoupled
        g += coupled * w
        state["t"] += 1
        state["m"] = beta1 * state["m"] + (1 - beta1) * g
        state["v"] = beta2 * state["v"] + (1 - beta2) * g * g
        state["most"] = max(state["most"], state["v"])
        v = (state["most"] if amsgrad else state["v"]) / (1 - math.pow(beta2, state["t"]))
        return w - lr * state["m"] / (1 - math.pow(beta1, state["t"])) / (math.sqrt(v) + eps)

    return update


def rmsprop(
    alpha: float, eps: float, weight_decay: float = 0.0, momentum: float = 0.0, *, centered: bool = False
) -> Rule:
    state = {"v": 0.0, "mean": 0.0, "b": 0.0}

    def update(w: float, g: float, lr: float) -> float:
        g += weight_decay * w
        state["v"] = alpha * state["v"] + (1 - alpha) * g * g
        state["mean"] = alpha * state["mean"] + (1 - alpha) * g
        root = math.sqrt(state["v"] - (state["mean"] ** 2 if centered else 0.0)) + eps
        if not momentum:
            return w - lr * g / root
        state["b"] = momentum * state["b"] + g / root
        return w - lr * state["b"]

    return update


def cases() -> Iterator[Any]:
    yield pytest.param(SGD(), sgd, id="sgd")
    yield pytest.param(SGD(momentum=0.9, weight_decay=5e-4), lambda: sgd(0.9, 0.0, 5e-4), id="momentum")
    yield pytest.param(SGD(momentum=0.9, dampening=0.5), lambda: sgd(0.9, 0.5), id="dampening")
    yield pytest.param(
        SGD(momentum=0.9, nesterov=True, weight_decay=0.1), lambda: sgd(0.9, 0.0, 0.1, nesterov=True), id="nesterov"
    )
    yield pytest.param(Adam(), lambda: adam(0.9, 0.999, 1e-8, 0.0, 0.0), id="adam")
    yield pytest.param(
        Adam(betas=(0.8, 0.9), eps=1e-3, weight_decay=0.1), lambda: adam(0.8, 0.9, 1e-3, 0.1, 0.0), id="adam-l2"
    )
    yield pytest.param(AdamW(), lambda: adam(0.9, 0.999, 1e-8, 0.0, 1e-2), id="adamw")
    yield pytest.param(
        AdamW(amsgrad=True, betas=(0.5, 0.5)), lambda: adam(0.5, 0.5, 1e-8, 0.0, 1e-2, amsgrad=True), id="amsgrad"
    )
    yield pytest.param(RMSprop(), lambda: rmsprop(0.99, 1e-8), id="rmsprop")
    yield pytest.param(
        RMSprop(alpha=0.9, eps=1e-3, weight_decay=0.1, momentum=0.9, centered=True),
        lambda: rmsprop(0.9, 1e-3, 0.1, 0.9, centered=True),
        id="rmsprop-centered",
    )


@pytest.mark.parametrize(("spec", "rule"), list(cases()))
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-6)])
def test_an_update_is_what_the_rule_says(
    spec: Any, rule: Callable[[], Rule], dtype: torch.dtype, tolerance: float
) -> None:
    weights = nn.Parameter(torch.tensor(START, dtype=dtype))
    stepper = build_stepper(spec, weights)
    expected, rules = list(START), [rule() for _ in START]
    for gradient, lr in zip(GRADIENTS, RATES, strict=True):
        weights.grad = torch.tensor(gradient, dtype=dtype)
        stepper.step(lr)
        expected = [update(w, g, lr) for update, w, g in zip(rules, expected, gradient, strict=True)]
        torch.testing.assert_close(
            weights.detach(), torch.tensor(expected, dtype=dtype), rtol=tolerance, atol=tolerance
        )


def test_the_first_step_of_adam_is_the_sign() -> None:
    """By hand: m̂ = g and v̂ = g², so each weight moves by lr g / (|g| + eps)."""
    weights = nn.Parameter(torch.zeros(3, dtype=torch.float64))
    weights.grad = torch.tensor([4.0, -0.25, 1e-8], dtype=torch.float64)
    build_stepper(Adam(), weights).step(0.1)
    torch.testing.assert_close(
        weights.detach(), torch.tensor([-0.1, 0.1, -0.05], dtype=torch.float64), rtol=1e-6, atol=0
    )


def test_momentum_stands_outside_the_rate() -> None:
    """By hand: g = 1, 1 with rates 1 and 0.5: w = -1, then -1 - 0.5 (0.9 + 1) = -1.95, velocity not rescaled."""
    weights = nn.Parameter(torch.zeros(1))
    stepper = build_stepper(SGD(momentum=0.9), weights)
    seen = []
    for lr in (1.0, 0.5):
        weights.grad = torch.ones(1)
        stepper.step(lr)
        seen.append(float(weights.detach()))
    assert seen == pytest.approx([-1.0, -1.95])


@pytest.mark.parametrize(
    ("spec", "names"),
    [
        (SGD(), set()),
        (SGD(momentum=0.9), {"momentum_buffer"}),
        (AdamW(amsgrad=True), {"step", "exp_avg", "exp_avg_sq", "max_exp_avg_sq"}),
        (RMSprop(momentum=0.5, centered=True), {"step", "square_avg", "momentum_buffer", "grad_avg"}),
    ],
)
def test_state_is_known_before_it_exists(spec: Any, names: set[str]) -> None:
    assert expected_state(spec) == {f"optimizer.{name}" for name in names}
