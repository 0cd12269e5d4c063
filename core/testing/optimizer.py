"""The contract of an optimizer."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, Final

import torch
from torch import Tensor, nn

from core.engine.networks.network import Network, flatten
from core.engine.optimizers.stepper import Stepper, build_stepper
from core.recipe.optimizers.base import OptimizerSpec
from core.testing.component import check_component, no_global_randomness
from core.testing.runs import check_run

WeightRule = Callable[[float, float, float], float]
"""(weight, gradient, learning rate) -> weight: the update of one weight, with the state that it keeps."""
TensorRule = Callable[[Tensor, Tensor, float], Tensor]
"""The same of a matrix of weights, float64 (outputs, inputs), for a rule that asks for their shape."""

WEIGHTS: Final = ((0.5, -1.25, 3.0, 0.0),)  # (1, 4)
GRADIENTS: Final = ((0.1, -0.2, 0.3, 1.0), (0.4, 0.0, -0.7, -2.0), (-0.3, 0.9, 0.05, 0.5), (0.2, 0.2, -0.1, 1e-3))
RATES: Final = (0.1, 0.07, 0.2, 0.01)
TOLERANCES: Final = ((torch.float64, 1e-12), (torch.float32, 2e-6))


def check_optimizer(spec: OptimizerSpec, rule: Callable[[], WeightRule] | None = None, **fields: Any) -> None:
    """Everything. `rule()` makes the textbook update of one weight; `fields` are those of the job that is run.

    Where the update of a weight depends on others, leave `rule` out and call `check_formula` with a rule of tensors.
    """
    check_component(spec, OptimizerSpec)
    if rule is not None:
        check_formula(spec, partial(of_each_weight, rule))
    check_same_bits(spec)
    check_state(spec)
    check_run(optimizer=spec.dump(), **fields)


def check_formula(spec: OptimizerSpec, rule: Callable[[], TensorRule], steps: int = 12) -> None:
    """After every step the weights are those of the formula, in float64 and float32, at a rate that moves."""
    for dtype, tolerance in TOLERANCES:
        network = make_network(dtype)
        stepper, update = make_stepper(spec, network), rule()
        expected = torch.tensor(WEIGHTS, dtype=torch.float64)
        for step in range(steps):
            gradient, lr = torch.tensor([GRADIENTS[step % 4]], dtype=torch.float64), RATES[step % 4]
            _step(stepper, network, gradient, lr)
            expected = update(expected, gradient, lr)
            found = network.weights.detach().double().reshape(expected.shape)
            message = f"after step {step + 1} ({dtype}) the weights are {found.tolist()}, not {expected.tolist()}"
            assert torch.allclose(found, expected, rtol=tolerance, atol=tolerance), message


def check_same_bits(spec: OptimizerSpec) -> None:
    """Two optimizers that make the same steps leave the same bits, and nothing global is drawn from or left behind."""
    ends = []
    for _ in range(2):
        network = make_network()
        with no_global_randomness():
            stepper = make_stepper(spec, network)
            _steps(stepper, network, 0, 4)
        ends.append(network.weights.detach().clone())
    assert torch.equal(*ends), "the same steps give other bits the second time"
    assert bool(ends[0].isfinite().all()), "the weights are not finite after four steps"


def check_state(spec: OptimizerSpec, stop: int = 2) -> None:
    """A fresh optimizer with the state of another one continues with the same bits, with and without weight decay."""
    for undecayed in (0, 1):
        whole, broken = make_network(undecayed=undecayed), make_network(undecayed=undecayed)
        _steps(make_stepper(spec, whole), whole, 0, 4)
        stepper = make_stepper(spec, broken)
        _steps(stepper, broken, 0, stop)
        state = {name: each.clone() for name, each in stepper.tensors().items()}
        fresh = make_stepper(spec, broken)
        expected = set(fresh.expected(state, stop))
        assert expected == set(state), f"its state is {sorted(state)}, where {sorted(expected)} is expected"
        fresh.restore(state)
        _steps(fresh, broken, stop, 4)
        assert torch.equal(whole.weights, broken.weights), "with its state restored it continues with other bits"


def of_each_weight(rule: Callable[[], WeightRule]) -> TensorRule:
    """The rule of tensors that treats each weight by itself."""
    rules = [rule() for row in WEIGHTS for _ in row]

    def update(weights: Tensor, gradient: Tensor, lr: float) -> Tensor:
        pairs = zip(rules, weights.flatten().tolist(), gradient.flatten().tolist(), strict=True)
        return torch.tensor([own(w, g, lr) for own, w, g in pairs], dtype=weights.dtype).reshape(weights.shape)

    return update


def make_network(dtype: torch.dtype = torch.float32, undecayed: int = 0) -> Network:
    """A network that is one matrix of weights (1, 4), the last `undecayed` of them without weight decay."""
    layer = nn.Linear(len(WEIGHTS[0]), len(WEIGHTS), bias=False, dtype=dtype)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(WEIGHTS, dtype=dtype))
    return replace(flatten(nn.Sequential(layer)), undecayed=undecayed)


def make_stepper(spec: OptimizerSpec, network: Network) -> Stepper:
    """What drives it in the engine."""
    return build_stepper(spec, network, _nowhere)


def _nowhere() -> Any:
    raise AssertionError("an optimizer of a plug-in is evaluated at the weights that it trains")


def _steps(stepper: Stepper, network: Network, first: int, last: int) -> None:
    for step in range(first, last):
        _step(stepper, network, torch.tensor([GRADIENTS[step % 4]]), RATES[step % 4])


def _step(stepper: Stepper, network: Network, gradient: Tensor, lr: float) -> None:
    flat = gradient.flatten().to(network.weights.dtype)

    def again() -> Tensor:
        network.gradient.copy_(flat)
        return (network.weights.detach() * flat).sum()

    again()
    stepper.step(lr, again)
