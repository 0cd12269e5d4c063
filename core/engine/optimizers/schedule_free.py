"""Schedule-free methods (Defazio et al. 2024): gradients at y, evaluation at x, each in a network of its own.

The library converts y to x and back in place, which rounds: an evaluation would change the run. Here x is computed into
a second network.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from core.engine.networks.network import Network
from core.engine.optimizers import flat
from core.engine.optimizers.eval_weights import EvalWeights
from core.engine.optimizers.flat import FlatStepper
from core.engine.optimizers.stepper import PREFIX, Again
from core.recipe.optimizers.schedule_free import ScheduleFreeSpec

TRAINED = f"{PREFIX}trained."
COUNTERS = ("k", "weight_sum", "lr_max")


@dataclass(frozen=True, slots=True)
class ScheduleFreeStepper:
    """`flat` trains y (P,); z (P,) is its state; `beta` is the share of x in y."""

    prefix: ClassVar[str] = PREFIX

    flat: FlatStepper
    eval_weights: EvalWeights
    beta: float

    def step(self, lr: float, again: Again | None = None, momentum: float | None = None) -> None:
        """One update of y and z."""
        self.flat.step(lr, again, momentum)

    def eval_network(self) -> Network:
        """The network at x = y + (1 - 1/β) (z - y), from y = (1 - β) z + β x."""
        y = self.flat.network.weights.detach()
        z = self.flat.tensors().get(f"{PREFIX}z", y)
        return self.eval_weights.network_at(torch.lerp(y, z, 1 - 1 / self.beta))

    def parameter_roles(self) -> dict[str, list[str]]:
        """One rule for all."""
        return {}

    def tensors(self) -> dict[str, Tensor]:
        """The optimizer's state (z among it), its counters, float64 (), and y with its buffers."""
        group = self.flat.optimizer.param_groups[0]
        counters = {f"{PREFIX}{name}": torch.tensor(group[name], dtype=torch.float64) for name in COUNTERS}
        return {**self.flat.tensors(), **counters, **self.eval_weights.tensors(TRAINED)}

    def expected(self, found: Mapping[str, Tensor], step: int) -> Mapping[str, Tensor]:
        fresh = self.tensors()
        return {
            **self.flat.expected(found, step),
            **{name: fresh[name] for name in fresh.keys() - _flat_state_names(fresh)},
        }

    def restore(self, found: Mapping[str, Tensor]) -> None:
        """The inverse of tensors()."""
        self.eval_weights.restore(TRAINED, found)
        self.flat.restore({name: found[name] for name in _flat_state_names(found)})
        counters: dict[str, Any] = {name: float(found[f"{PREFIX}{name}"]) for name in COUNTERS}
        for group in self.flat.optimizer.param_groups:
            group.update(counters, k=int(counters["k"]))


def _flat_state_names(names: Mapping[str, Tensor]) -> set[str]:
    """The names of the state that the flat stepper handles."""
    counters = {f"{PREFIX}{name}" for name in COUNTERS}
    return {name for name in names if not name.startswith(TRAINED)} - counters


def build_schedule_free_stepper(
    spec: ScheduleFreeSpec, network: Network, eval_weights: Callable[[], EvalWeights]
) -> ScheduleFreeStepper:
    """A stepper on one flat tensor, since both points are elementwise."""
    return ScheduleFreeStepper(flat.build_flat_stepper(spec, network), eval_weights(), spec.beta)
