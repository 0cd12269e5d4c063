"""torch's fused updates on one flat tensor against the update rules written in plain Python."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from core.engine.networks.network import Network, flatten
from core.engine.optimizers.flat import build_flat_stepper as build_stepper
from core.engine.optimizers.flat import expected_state
from core.recipe.optimizers.adadelta import Adadelta
from core.recipe.optimizers.adagrad import Adagrad
from core.recipe.optimizers.adam import Adam
from core.recipe.optimizers.adamax import Adamax
from core.recipe.optimizers.adamw import AdamW
from core.recipe.optimizers.base import OptimizerSpec
from core.recipe.optimizers.nadam import NAdam
from core.recipe.optimizers.radam import RAdam
from core.recipe.optimizers.rmsprop import RMSprop
from core.recipe.optimizers.sgd import SGD
from core.testing.optimizer import check_formula, check_same_bits, check_state, of_each_weight
from tests.train.rules import Rule, adadelta, adagrad, adam, adamax, nadam, radam, rmsprop, sgd

pytestmark = pytest.mark.usefixtures("one_thread")
START = [0.5, -1.25, 3.0, 0.0]
GRADIENTS = [[0.1, -0.2, 0.3, 1.0], [0.4, 0.0, -0.7, -2.0], [-0.3, 0.9, 0.05, 0.5], [0.2, 0.2, -0.1, 1e-3]]
RATES = [0.1, 0.07, 0.2, 0.01]


def point(values: list[float], dtype: torch.dtype = torch.float32, undecayed: int = 0) -> Network:
    """A network that is nothing but weights."""
    layer = nn.Linear(len(values), 1, bias=False, dtype=dtype)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([values], dtype=dtype))
    return replace(flatten(nn.Sequential(layer)), undecayed=undecayed)


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


def further_cases() -> Iterator[Any]:
    yield pytest.param(Adagrad(), lambda: adagrad(0.0, 1e-10), id="adagrad")
    yield pytest.param(
        Adagrad(lr_decay=0.1, eps=1e-3, weight_decay=0.1, initial_accumulator_value=0.5),
        lambda: adagrad(0.1, 1e-3, 0.1, 0.5),
        id="adagrad-decay",
    )
    yield pytest.param(Adamax(), lambda: adamax(0.9, 0.999, 1e-8), id="adamax")
    yield pytest.param(
        Adamax(betas=(0.5, 0.7), weight_decay=0.1), lambda: adamax(0.5, 0.7, 1e-8, 0.1), id="adamax-decay"
    )
    yield pytest.param(NAdam(), lambda: nadam(0.9, 0.999, 1e-8, 4e-3), id="nadam")
    yield pytest.param(
        NAdam(betas=(0.8, 0.9), momentum_decay=0.5, weight_decay=0.1),
        lambda: nadam(0.8, 0.9, 1e-8, 0.5, 0.1),
        id="nadam-l2",
    )
    yield pytest.param(
        NAdam(weight_decay=0.1, decoupled_weight_decay=True),
        lambda: nadam(0.9, 0.999, 1e-8, 4e-3, 0.0, 0.1),
        id="nadam-decoupled",
    )
    yield pytest.param(RAdam(), lambda: radam(0.9, 0.999, 1e-8), id="radam")
    yield pytest.param(
        RAdam(betas=(0.8, 0.9), weight_decay=0.1), lambda: radam(0.8, 0.9, 1e-8, 0.1), id="radam-rectified"
    )
    yield pytest.param(
        RAdam(weight_decay=0.1, decoupled_weight_decay=True),
        lambda: radam(0.9, 0.999, 1e-8, 0.0, 0.1),
        id="radam-decoupled",
    )
    yield pytest.param(Adadelta(), lambda: adadelta(0.9, 1e-6), id="adadelta")
    yield pytest.param(
        Adadelta(rho=0.5, eps=1e-3, weight_decay=0.1), lambda: adadelta(0.5, 1e-3, 0.1), id="adadelta-decay"
    )


@pytest.mark.parametrize(("spec", "rule"), [*cases(), *further_cases()])
def test_an_update_is_what_the_rule_says(spec: OptimizerSpec, rule: Callable[[], Rule]) -> None:
    check_formula(spec, partial(of_each_weight, rule))
    check_same_bits(spec)
    check_state(spec)


def test_the_first_step_of_adam_is_the_sign() -> None:
    """By hand: m̂ = g and v̂ = g², so each weight moves by lr g / (|g| + eps)."""
    network = point([0.0] * 3, torch.float64)
    network.gradient.copy_(torch.tensor([4.0, -0.25, 1e-8]))
    build_stepper(Adam(), network).step(0.1)
    torch.testing.assert_close(
        network.weights.detach(), torch.tensor([-0.1, 0.1, -0.05], dtype=torch.float64), rtol=1e-6, atol=0
    )


def test_momentum_stands_outside_the_rate() -> None:
    """By hand: g = 1, 1 with rates 1 and 0.5: w = -1, then -1 - 0.5 (0.9 + 1) = -1.95, velocity not rescaled."""
    network = point([0.0])
    stepper = build_stepper(SGD(momentum=0.9), network)
    seen = []
    for lr in (1.0, 0.5):
        network.gradient.fill_(1)
        stepper.step(lr)
        seen.append(float(network.weights.detach()))
    assert seen == pytest.approx([-1.0, -1.95])


@pytest.mark.parametrize(
    ("spec", "names"),
    [
        (SGD(), set()),
        (SGD(momentum=0.9), {"momentum_buffer"}),
        (AdamW(amsgrad=True), {"step", "exp_avg", "exp_avg_sq", "max_exp_avg_sq"}),
        (RMSprop(momentum=0.5, centered=True), {"step", "square_avg", "momentum_buffer", "grad_avg"}),
        (Adagrad(), {"step", "sum"}),
        (Adamax(), {"step", "exp_avg", "exp_inf"}),
        (NAdam(), {"step", "mu_product", "exp_avg", "exp_avg_sq"}),
        (RAdam(), {"step", "exp_avg", "exp_avg_sq"}),
        (Adadelta(), {"step", "square_avg", "acc_delta"}),
    ],
)
def test_state_is_known_before_it_exists(spec: Any, names: set[str]) -> None:
    assert expected_state(spec) == {f"optimizer.{name}" for name in names}


@pytest.mark.parametrize(
    "spec",
    [SGD(momentum=0.9, weight_decay=0.1), AdamW(weight_decay=0.1), NAdam(weight_decay=0.1)],
    ids=lambda s: s.name,
)
@pytest.mark.parametrize("undecayed", [0, 1, 3, 4])
def test_the_last_weights_know_no_decay(spec: Any, undecayed: int) -> None:
    """Decayed and undecayed weights behave as two optimizers would; their state is one, and comes back."""
    free = spec.model_copy(update={"weight_decay": 0.0})
    split = 4 - undecayed
    flat, alone = point(START, undecayed=undecayed), [point([each]) for each in START]
    stepper = build_stepper(spec, flat)
    others = [build_stepper(spec if index < split else free, each) for index, each in enumerate(alone)]
    for step, (gradient, lr) in enumerate(zip(GRADIENTS, RATES, strict=True)):
        if step == 2:  # an interruption
            state = {name: value.clone() for name, value in stepper.tensors().items()}
            stepper = build_stepper(spec, flat)
            stepper.restore(state)
        flat.gradient.copy_(torch.tensor(gradient))
        stepper.step(lr)
        for other, each, g in zip(others, alone, gradient, strict=True):
            each.gradient.fill_(g)
            other.step(lr)
        together = torch.cat([each.weights for each in alone])
        torch.testing.assert_close(flat.weights.detach(), together.detach(), rtol=1e-6, atol=1e-7)
    assert {value.shape for value in stepper.tensors().values()} <= {(), (4,)}
