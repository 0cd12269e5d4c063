"""torch's optimizers on one flat tensor (or its two halves), in their fused form where they have one."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from core.engine.networks.network import Network, flatten
from core.engine.stepper import Again
from core.recipe.optimizers.base import OptimizerSpec

PREFIX = "optimizer."
FASTEST: tuple[tuple[str, Any], ...] = (("fused", True), ("foreach", False))  # for one tensor; the first it offers


@dataclass(frozen=True, slots=True)
class FlatStepper:
    """One optimizer on one flat tensor. `update` is its step minus torch's profiler hook (a sixth of a small one).

    `parts` are views that together are the flat tensor, each a parameter group: one, or those that decay and those that
    do not. The state is the same either way.
    """

    prefix: ClassVar[str] = PREFIX

    spec: OptimizerSpec
    network: Network
    optimizer: Optimizer
    parts: tuple[nn.Parameter, ...]
    update: Callable[[Optimizer], object]

    def step(self, lr: float, again: Again | None = None) -> None:
        """One update at rate `lr` from the gradient that stands in the flat tensor's `grad`."""
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        with torch.no_grad():
            self.update(self.optimizer)

    def tensors(self) -> dict[str, Tensor]:
        """The state, under "optimizer.<torch's own name>": each (P,) or a scalar."""
        states = [self.optimizer.state[part] for part in self.parts]
        names = [name for name, value in sorted(states[0].items()) if isinstance(value, Tensor)]
        return {f"{PREFIX}{name}": _joined([state[name] for state in states]) for name in names}

    def presented(self) -> Network:
        """The trained network itself."""
        return self.network

    def expected(self, found: Mapping[str, Tensor], step: int) -> Mapping[str, Tensor]:
        """Before the first step torch has no state at all."""
        flat, scalar = self.network.weights.detach(), torch.zeros(())
        names = expected_state(self.spec) if step else set(self.tensors())
        return {name: scalar if name in found and found[name].ndim == 0 else flat for name in names}

    def restore(self, found: Mapping[str, Tensor]) -> None:
        """The inverse of tensors(). Step counters stay where torch keeps them: on the CPU unless fused."""
        fused = bool(self.optimizer.param_groups[0].get("fused"))
        for name, value in found.items():
            sizes = [len(part) for part in self.parts]
            values = torch.split(value, sizes) if value.ndim else [value] * len(sizes)
            for part, own in zip(self.parts, values, strict=True):
                stays = value.ndim == 0 and not fused
                state = self.optimizer.state[part]
                state[name.removeprefix(PREFIX)] = own.clone() if stays else own.to(part.device, copy=True)


def _joined(values: list[Tensor]) -> Tensor:
    return values[0] if len(values) == 1 or values[0].ndim == 0 else torch.cat(values)


def build_stepper(spec: OptimizerSpec, network: Network) -> FlatStepper:
    """The spec's torch class with the spec's options, and the fastest exact execution that it offers.

    The last `undecayed` weights of the network know no weight decay.
    """
    module, name = spec.implementation.split(":")
    kind: type[Optimizer] = getattr(import_module(module), name)
    accepted = inspect.signature(kind).parameters
    execution = dict([option for option in FASTEST if option[0] in accepted][:1])
    parts = parameter_groups(network.weights, network.undecayed)
    groups = [{"params": [part], **options} for part, options in parts]
    optimizer = kind(groups, **spec.kwargs(), **execution)
    return FlatStepper(spec, network, optimizer, tuple(part for part, _ in parts), inspect.unwrap(kind.step))


def parameter_groups(weights: nn.Parameter, undecayed: int) -> list[tuple[nn.Parameter, dict[str, Any]]]:
    """Views of the weights and of their gradient, with the options of each; none that is empty."""
    if not undecayed:
        return [(weights, {})]
    if weights.grad is None:
        raise ValueError("the gradient buffer of a flattened network was taken away")
    found: list[tuple[nn.Parameter, dict[str, Any]]] = []
    sizes = [len(weights) - undecayed, undecayed]
    options: tuple[dict[str, Any], ...] = ({}, {"weight_decay": 0.0})
    pairs = zip(torch.split(weights.detach(), sizes), torch.split(weights.grad, sizes), strict=True)
    for (values, gradient), each in zip(pairs, options, strict=True):
        if len(values):
            part = nn.Parameter(values)
            part.grad = gradient
            found.append((part, each))
    return found


def expected_state(spec: OptimizerSpec) -> set[str]:
    """Names of the state tensors after a step, found by taking one with a single weight."""
    network = flatten(nn.Sequential(nn.Linear(1, 1, bias=False)))
    stepper = build_stepper(spec, network)
    stepper.step(spec.lr)
    return set(stepper.tensors())
