"""What the loop needs of an optimizer, whatever it is made of."""

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
        """One update at rate `lr` from the gradient that stands in the network's gradient buffer.

        `again()` computes loss and gradient of the same batch at the weights as they then are: for line searches.
        `momentum` replaces the optimizer's own (β1 where it has betas) from this step on.
        """

    def eval_network(self) -> Network:
        """The network that is judged and saved: the trained one, unless the optimizer trains at another point."""

    def parameter_roles(self) -> dict[str, list[str]]:
        """Which weights go by which rule, where not all go by one: {"rule": ["dense1.weight", …]}."""


def build_stepper(spec: OptimizerSpec, network: Network, elsewhere: Callable[[], EvalWeights]) -> Stepper:
    """The kind of stepper that the spec names; `elsewhere` makes room for weights that are judged but not trained.

    Raises EngineError when the optimizer is not installed or refuses its options.
    """
    module, function = spec.stepper.split(":")
    build: Callable[[OptimizerSpec, Network, Callable[[], EvalWeights]], Stepper]
    build = getattr(import_module(module), function)
    return build(spec, network, elsewhere)
