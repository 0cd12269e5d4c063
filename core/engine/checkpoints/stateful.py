"""What every part of a run with a state of its own can do: give its state as tensors, and take it back."""

from collections.abc import Mapping
from typing import Protocol

from torch import Tensor


class Stateful(Protocol):
    """A resume is exact because everything that a step changes is in a keeper, the weights or the random state."""

    @property
    def prefix(self) -> str:
        """What the names of its tensors begin with, and nobody else's."""

    def tensors(self) -> dict[str, Tensor]:
        """The state as it stands; may be views of what training goes on to change."""

    def expected(self, found: Mapping[str, Tensor], step: int) -> Mapping[str, Tensor]:
        """Names, shapes and types that a checkpoint of `step` must hold for this keeper, whatever it holds now.

        `found` is what the checkpoint has under its prefix: where the size of the state depends on the past, it tells.
        """

    def restore(self, found: Mapping[str, Tensor]) -> None:
        """The inverse of tensors(), in place; `found` has been checked against expected()."""


def own_tensors(keeper: Stateful, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What is the keeper's own of a whole state."""
    return {name: tensor for name, tensor in state.items() if name.startswith(keeper.prefix)}
