"""The interface between the loop and an optimizer of any kind."""

from collections.abc import Callable
from importlib import import_module
from typing import Protocol

from torch import Tensor

from core.engine.checkpoints.stateful import Stateful
from core.engine.networks.network import Network
from core.engine.optimizers.eval_weights import EvalWeights
from core.recipe.optimizers.base import OptimizerSpec

PREFIX = "optimizer."
Again = Callable[[], Tensor]


class Stepper(Stateful, Protocol):
    """An optimizer on a network's weights."""

    def step(self, lr: float, again: Again, momentum: float | None = None) -> None:
        """One update at rate `lr` from the gradient in the network's gradient buffer (P,).

        `again()` computes loss and gradient of the same batch at the present weights, for line searches. `momentum`
        replaces the optimizer's own (β1 if it has betas) from this step on.
        """

    def eval_network(self) -> Network:
        """The network that is evaluated and saved: the trained one, unless the optimizer trains at other weights."""

    def parameter_roles(self) -> dict[str, list[str]]:
        """The weights by rule, {"rule": ["dense1.weight", …]}; empty if one rule steps all weights."""


def build_stepper(spec: OptimizerSpec, network: Network, eval_weights: Callable[[], EvalWeights]) -> Stepper:
    """The kind of stepper that the spec names; `elsewhere` makes a second network for weights that are not trained.

    Raises EngineError if the optimizer is not installed or refuses its options.
    """
    module, function = spec.stepper.split(":")
    build: Callable[[OptimizerSpec, Network, Callable[[], EvalWeights]], Stepper]
    build = getattr(import_module(module), function)
    return build(spec, network, eval_weights)
