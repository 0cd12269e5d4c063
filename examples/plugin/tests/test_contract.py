"""The plug-in against the contract that Basin ships."""

import pytest
from lion_for_basin.specs import Lion, RmsMlp

from core.testing import check_model, check_optimizer
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
