"""Optimizers that evaluate loss and gradient several times in one step, on one flat tensor."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.optim import Optimizer

from core.engine.gradients.same_batch import replay_randomness
from core.engine.networks.network import Network
from core.engine.optimizers import state_dict
from core.engine.optimizers.eval_weights import EvalWeights
from core.engine.optimizers.factory import make_optimizer, set_lr_and_momentum, unhooked_step
from core.engine.optimizers.stepper import PREFIX, Again
from core.recipe.optimizers.base import OptimizerSpec


@dataclass(frozen=True, slots=True)
class ClosureStepper:
    """All evaluations of a step have the same dropout masks, and none changes batch norm's running statistics."""

    prefix: ClassVar[str] = PREFIX

    name: str
    network: Network
    optimizer: Optimizer

    def step(self, lr: float, again: Again, momentum: float | None = None) -> None:
        """One step of the optimizer, which calls the closure as often as it needs."""
        set_lr_and_momentum(self.optimizer, lr, momentum)
        with torch.no_grad(), replay_randomness(self.network) as replay:

            def closure() -> Tensor:
                replay()
                return again()

            unhooked_step(self.optimizer)(self.optimizer, closure)

    def eval_network(self) -> Network:
        """The trained network itself."""
        return self.network

    def parameter_roles(self) -> dict[str, list[str]]:
        """One rule for all."""
        return {}

    def tensors(self) -> dict[str, Tensor]:
        """The optimizer's whole state, histories included, see state_dict.py."""
        return state_dict.pack_state({self.name: self.optimizer}, PREFIX)

    def expected(self, found: Mapping[str, Tensor], step: int) -> Mapping[str, Tensor]:
        """The tensors that the checkpoint's own tree describes, since a history grows."""
        return state_dict.expected_state(found, PREFIX, [self.name])

    def restore(self, found: Mapping[str, Tensor]) -> None:
        """The inverse of tensors()."""
        state_dict.unpack_state(found, PREFIX, {self.name: self.optimizer})


def build_closure_stepper(
    spec: OptimizerSpec, network: Network, _elsewhere: Callable[[], EvalWeights]
) -> ClosureStepper:
    """One parameter group: optimizers of this kind have no weight decay, so no weights are exempt from it."""
    return ClosureStepper(spec.name, network, make_optimizer(spec, [{"params": [network.weights]}]))
