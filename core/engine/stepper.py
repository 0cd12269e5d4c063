"""What the loop needs of an optimizer, whatever it is made of."""

from collections.abc import Callable
from typing import Protocol

from torch import Tensor

from core.engine.keeper import Keeper
from core.engine.networks.network import Network

Again = Callable[[], Tensor]


class Stepper(Keeper, Protocol):
    """An optimizer on a network's weights."""

    def step(self, lr: float, again: Again) -> None:
        """One update at rate `lr` from the gradient that stands in the network's gradient buffer.

        `again()` computes loss and gradient of the same batch at the weights as they then are: for line searches.
        """

    def presented(self) -> Network:
        """The network that is judged and saved: the trained one, unless the optimizer trains at another point."""
