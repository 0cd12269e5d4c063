"""Optimizers that keep a mean of the weights they visit, in their state `ax`, and are evaluated at it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from core.engine.networks.network import Network
from core.engine.optimizers import flat
from core.engine.optimizers.eval_weights import EvalWeights
from core.engine.optimizers.flat import FlatStepper
from core.engine.optimizers.stepper import PREFIX, Again
from core.recipe.optimizers.base import OptimizerSpec

TRAINED = f"{PREFIX}trained."


@dataclass(frozen=True, slots=True)
class AveragedStepper:
    """`flat` trains. While its mean equals the trained weights, the trained network itself is evaluated."""

    prefix: ClassVar[str] = PREFIX

    flat: FlatStepper
    eval_weights: EvalWeights

    def step(self, lr: float, again: Again | None = None, momentum: float | None = None) -> None:
        """One update at η = lr / (1 + lambd lr t)^alpha.

        torch computes η at the end of a step, for the next one, from the rate of the step that is over: with a schedule
        every step would use the rate of the one before. torch also keeps its counters on the device of the weights and
        reads them in every step. On the host they have the same values and need no synchronisation.
        """
        states = [self.flat.optimizer.state[part] for part in self.flat.parts]
        for group, state in zip(self.flat.optimizer.param_groups, states, strict=True):
            if state:
                done = float(state["step"])
                state["eta"].fill_(lr / (1 + group["lambd"] * lr * done) ** group["alpha"])
        begins = not all(states)
        self.flat.step(lr, again, momentum)
        for state in states if begins else ():
            state.update({name: value.cpu() for name, value in state.items() if not value.ndim})

    def eval_network(self) -> Network:
        """The network at the mean, or the trained network if the mean does not differ from it."""
        mean = self.flat.tensors().get(f"{PREFIX}ax")
        if mean is None or torch.equal(mean, self.flat.network.weights):
            return self.flat.network
        return self.eval_weights.network_at(mean)

    def parameter_roles(self) -> dict[str, list[str]]:
        """One rule for all."""
        return {}

    def tensors(self) -> dict[str, Tensor]:
        """The optimizer's state, and the trained weights and buffers: the checkpoint's own weights may be the mean."""
        return self.flat.tensors() | self.eval_weights.tensors(TRAINED)

    def expected(self, found: Mapping[str, Tensor], step: int) -> Mapping[str, Tensor]:
        return {**self.flat.expected(found, step), **self.eval_weights.tensors(TRAINED)}

    def restore(self, found: Mapping[str, Tensor]) -> None:
        """The inverse of tensors()."""
        self.eval_weights.restore(TRAINED, found)
        self.flat.restore({name: each for name, each in found.items() if not name.startswith(TRAINED)})


def build_averaged_stepper(
    spec: OptimizerSpec, network: Network, eval_weights: Callable[[], EvalWeights]
) -> AveragedStepper:
    """A stepper on one flat tensor, since the mean is elementwise."""
    return AveragedStepper(flat.build_flat_stepper(spec, network), eval_weights())
