"""Elementwise optimizers, on one flat tensor or on its two parts: with and without weight decay."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from core.engine.networks.network import Network, flatten
from core.engine.optimizers.eval_weights import EvalWeights
from core.engine.optimizers.factory import Update, decay_groups, make_optimizer, set_lr_and_momentum, unhooked_step
from core.engine.optimizers.stepper import PREFIX, Again
from core.recipe.optimizers.base import OptimizerSpec


@dataclass(frozen=True, slots=True)
class FlatStepper:
    """One optimizer on one flat tensor (P,).

    `parts` are views that together are the flat tensor, each a parameter group: one, or two (with weight decay and
    without). The state has the same form either way.
    """

    prefix: ClassVar[str] = PREFIX

    spec: OptimizerSpec
    network: Network
    optimizer: Optimizer
    parts: tuple[nn.Parameter, ...]
    update: Update

    def step(self, lr: float, again: Again | None = None, momentum: float | None = None) -> None:
        """One update at rate `lr` from the gradient in the flat tensor's `grad` (P,)."""
        set_lr_and_momentum(self.optimizer, lr, momentum)
        with torch.no_grad():
            self.update(self.optimizer)

    def tensors(self) -> dict[str, Tensor]:
        """The state, named "optimizer.<torch's own name>": each (P,) or ()."""
        states = [self.optimizer.state[part] for part in self.parts]
        names = [name for name, value in sorted(states[0].items()) if isinstance(value, Tensor)]
        return {f"{PREFIX}{name}": _join_parts([state[name] for state in states]) for name in names}

    def eval_network(self) -> Network:
        """The trained network itself."""
        return self.network

    def parameter_roles(self) -> dict[str, list[str]]:
        """One rule for all."""
        return {}

    def expected(self, found: Mapping[str, Tensor], step: int) -> Mapping[str, Tensor]:
        """The state's names and shapes; before the first step torch has hardly any state."""
        flat, scalar = self.network.weights.detach(), torch.zeros(())
        names = expected_state(self.spec, stepped=step > 0)
        return {name: scalar if name in found and found[name].ndim == 0 else flat for name in names}

    def restore(self, found: Mapping[str, Tensor]) -> None:
        """The inverse of tensors(). Step counters stay where torch keeps them: on the CPU unless fused."""
        self.optimizer.state.clear()
        fused = bool(self.optimizer.param_groups[0].get("fused"))
        for name, value in found.items():
            sizes = [len(part) for part in self.parts]
            values = torch.split(value, sizes) if value.ndim else [value] * len(sizes)
            for part, own in zip(self.parts, values, strict=True):
                stays = value.ndim == 0 and not fused
                state = self.optimizer.state[part]
                state[name.removeprefix(PREFIX)] = own.clone() if stays else own.to(part.device, copy=True)


def _join_parts(values: list[Tensor]) -> Tensor:
    return values[0] if len(values) == 1 or values[0].ndim == 0 else torch.cat(values)


def build_flat_stepper(
    spec: OptimizerSpec, network: Network, _elsewhere: Callable[[], EvalWeights] | None = None
) -> FlatStepper:
    """A stepper without weight decay for the last `undecayed` weights of the network."""
    groups = decay_groups(network.weights, network.undecayed)
    optimizer = make_optimizer(spec, groups)
    parts = tuple(part for group in groups for part in group["params"])
    return FlatStepper(spec, network, optimizer, parts, unhooked_step(optimizer))


def expected_state(spec: OptimizerSpec, *, stepped: bool = True) -> set[str]:
    """Names of the state tensors, before or after the first step, from a network with a single weight."""
    stepper = build_flat_stepper(spec, flatten(nn.Sequential(nn.Linear(1, 1, bias=False))))
    if stepped:
        stepper.step(spec.lr)
    return set(stepper.tensors())
