"""The protocol of parts that have state: they return it as tensors and restore it."""

from collections.abc import Mapping
from typing import Protocol

from torch import Tensor


class Stateful(Protocol):
    """A part of a run with state, as in torch.distributed.checkpoint.

    A resume is exact because all that a step changes is in a Stateful, the weights, the random state or TrainState.
    """

    @property
    def prefix(self) -> str:
        """The prefix of the names of its tensors; no other part has it."""

    def tensors(self) -> dict[str, Tensor]:
        """The present state; the tensors may be views of memory that training changes."""

    def expected(self, found: Mapping[str, Tensor], step: int) -> Mapping[str, Tensor]:
        """Names, shapes and types that a checkpoint of `step` must hold for this part.

        `found` are the checkpoint's tensors under its prefix: the size of some states depends on earlier steps.
        """

    def restore(self, found: Mapping[str, Tensor]) -> None:
        """The inverse of tensors(), in place; `found` has been checked against expected()."""


def own_tensors(stateful: Stateful, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a whole state that belong to `stateful`."""
    return {name: tensor for name, tensor in state.items() if name.startswith(stateful.prefix)}
