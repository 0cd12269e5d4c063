"""torch's optimizers on one flat tensor, in their fused form where they have one."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from core.recipe.optimizers.base import OptimizerSpec

PREFIX = "optimizer."
FASTEST: tuple[tuple[str, Any], ...] = (("fused", True), ("foreach", False))  # for one tensor; the first it offers


@dataclass(frozen=True, slots=True)
class Stepper:
    """One optimizer on one flat tensor. `update` is its step minus torch's profiler hook (a sixth of a small one)."""

    optimizer: Optimizer
    weights: nn.Parameter
    update: Callable[[Optimizer], object]

    def step(self, lr: float) -> None:
        """One update at rate `lr` from the gradient that stands in `weights.grad`."""
        self.optimizer.param_groups[0]["lr"] = lr
        with torch.no_grad():
            self.update(self.optimizer)

    def tensors(self) -> dict[str, Tensor]:
        """The state, under "optimizer.<torch's own name>": each (P,) or a scalar."""
        state = self.optimizer.state[self.weights]
        return {f"{PREFIX}{name}": value for name, value in sorted(state.items()) if isinstance(value, Tensor)}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """The inverse of tensors(). Step counters stay where torch keeps them: on the CPU unless fused."""
        fused = bool(self.optimizer.param_groups[0].get("fused"))
        state = self.optimizer.state[self.weights]
        for name, value in tensors.items():
            if name.startswith(PREFIX):
                stays = value.ndim == 0 and not fused
                state[name.removeprefix(PREFIX)] = value.clone() if stays else value.to(self.weights.device, copy=True)


def build_stepper(spec: OptimizerSpec, weights: nn.Parameter) -> Stepper:
    """The spec's torch class with the spec's options, and the fastest exact execution that it offers."""
    module, name = spec.implementation.split(":")
    kind: type[Optimizer] = getattr(import_module(module), name)
    accepted = inspect.signature(kind).parameters
    execution = dict([option for option in FASTEST if option[0] in accepted][:1])
    optimizer = kind([weights], **spec.kwargs(), **execution)
    return Stepper(optimizer, weights, inspect.unwrap(kind.step))


def expected_state(spec: OptimizerSpec) -> set[str]:
    """Names of the state tensors after a step, found by taking one with a single weight."""
    weight = nn.Parameter(torch.zeros(1))
    weight.grad = torch.zeros(1)
    stepper = build_stepper(spec, weight)
    stepper.step(spec.lr)
    return set(stepper.tensors())
