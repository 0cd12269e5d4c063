"""Optimizers that depend on the shape of a weight: on the network's own parameters, views of the flat buffer."""

from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from core.engine.determinism import foreign_randomness
from core.engine.networks.network import Network
from core.engine.optimizers import state_dict
from core.engine.optimizers.eval_weights import EvalWeights
from core.engine.optimizers.factory import Group, make_optimizer, set_lr_and_momentum, unhooked_step
from core.engine.optimizers.stepper import PREFIX, Again
from core.recipe.optimizers.base import OptimizerSpec


@dataclass(frozen=True, slots=True)
class ParamGroup:
    """One optimizer on some of the parameters; its learning rate is `pace` times that of the schedule.

    A `foreign` one draws from Python's or NumPy's generators.
    """

    optimizer: Optimizer
    names: tuple[str, ...]
    pace: float = 1.0
    foreign: bool = False


@dataclass(frozen=True, slots=True)
class ShapedStepper:
    """Optimizers that together step all parameters; a name in `parts` is a prefix in the state and a role."""

    prefix: ClassVar[str] = PREFIX

    network: Network
    parts: Mapping[str, ParamGroup]

    def step(self, lr: float, again: Again | None = None, momentum: float | None = None) -> None:
        """One update of every part, from the gradients in the parameters' `grad`."""
        with torch.no_grad():
            for part in self.parts.values():
                set_lr_and_momentum(part.optimizer, lr * part.pace, momentum)
                with foreign_randomness() if part.foreign else nullcontext():
                    unhooked_step(part.optimizer)(part.optimizer)

    def eval_network(self) -> Network:
        """The trained network itself."""
        return self.network

    def parameter_roles(self) -> dict[str, list[str]]:
        """Which parameters each part steps, if there are several."""
        return {name: list(part.names) for name, part in self.parts.items()} if len(self.parts) > 1 else {}

    def tensors(self) -> dict[str, Tensor]:
        """The whole state of the optimizers, see state_dict.py."""
        return state_dict.pack_state(self._optimizers(), PREFIX)

    def expected(self, found: Mapping[str, Tensor], step: int) -> Mapping[str, Tensor]:
        """The tensors that the checkpoint's own tree describes: the state depends on the optimizer and its steps."""
        return state_dict.expected_state(found, PREFIX, self.parts.keys())

    def restore(self, found: Mapping[str, Tensor]) -> None:
        """The inverse of tensors()."""
        state_dict.unpack_state(found, PREFIX, self._optimizers())

    def _optimizers(self) -> dict[str, Optimizer]:
        return {name: part.optimizer for name, part in self.parts.items()}


def build(spec: OptimizerSpec, network: Network, _elsewhere: Callable[[], EvalWeights]) -> ShapedStepper:
    """One optimizer on all parameters."""
    return ShapedStepper(network, {spec.name: part(spec, network, dict(network.module.named_parameters()))})


def part(spec: OptimizerSpec, network: Network, chosen: Mapping[str, nn.Parameter], pace: float = 1.0) -> ParamGroup:
    """The spec's optimizer on the chosen parameters."""
    return ParamGroup(
        make_optimizer(spec, groups(network, chosen.values())), tuple(chosen), pace, spec.uses_foreign_rng
    )


def groups(network: Network, parameters: Iterable[nn.Parameter]) -> list[Group]:
    """Groups with and without weight decay, empty ones left out. The undecayed are last in the flat buffer."""
    first = network.weights.numel() - network.undecayed
    decayed: Group = {"params": []}
    free: Group = {"params": [], "weight_decay": 0.0}
    for each in parameters:
        (decayed if each.storage_offset() < first else free)["params"].append(each)
    return [group for group in (decayed, free) if group["params"]]
