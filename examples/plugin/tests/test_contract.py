"""The plug-in against the contract that Basin ships."""

import math

import pytest
from lion_for_basin.specs import ConfidentAccuracy, Lion, Poly1, RmsMlp

from core.testing import check_loss, check_metric, check_model, check_optimizer
from core.testing.optimizer import WeightRule


def lion(spec: Lion) -> WeightRule:
    """The paper's algorithm 2 for one weight, in plain Python."""
    momentum = 0.0

    def update(w: float, g: float, lr: float) -> float:
        nonlocal momentum
        beta1, beta2 = spec.betas
        blend = beta1 * momentum + (1 - beta1) * g
        momentum = beta2 * momentum + (1 - beta2) * g
        return w - lr * ((blend > 0) - (blend < 0) + spec.weight_decay * w)

    return update


@pytest.mark.parametrize("spec", [Lion(), Lion(lr=0.01, betas=(0.5, 0.8), weight_decay=0.1)], ids=["default", "all"])
def test_lion_keeps_the_contract(spec: Lion) -> None:
    check_optimizer(spec, lambda: lion(spec))


@pytest.mark.parametrize("spec", [RmsMlp(), RmsMlp(hidden=(8,))], ids=["default", "small"])
def test_the_model_keeps_the_contract(spec: RmsMlp) -> None:
    check_model(spec)


def probability(outputs: list[float], target: int) -> float:
    """That of the true class."""
    return math.exp(outputs[target]) / sum(map(math.exp, outputs))


@pytest.mark.parametrize("spec", [Poly1(), Poly1(epsilon=-0.5)], ids=["default", "negative"])
def test_the_loss_keeps_the_contract(spec: Poly1) -> None:
    def formula(outputs: list[float], target: int) -> float:
        p = probability(outputs, target)
        return -math.log(p) + spec.epsilon * (1 - p)

    check_loss(spec, formula)


@pytest.mark.parametrize("spec", [ConfidentAccuracy(), ConfidentAccuracy(above=0.6)], ids=["default", "lower"])
def test_the_metric_keeps_the_contract(spec: ConfidentAccuracy) -> None:
    def formula(outputs: list[list[float]], targets: list[int]) -> float:
        return sum(probability(*pair) >= spec.above for pair in zip(outputs, targets, strict=True)) / len(targets)

    check_metric(spec, formula)
