"""The rollback point: a copy of the last training state that was finite, to which a run goes back."""

import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from core.engine.checkpoints.stateful import own_tensors
from core.recipe.stopping import Rollback

WEIGHTS, STATE, STANDING = "mark.weights.", "mark.state.", "mark.standing"


class RollbackPoint:
    """Copies of a whole training state, part of every checkpoint: a resumed run goes back to the same state."""

    prefix = "mark."

    def __init__(self, policy: Rollback) -> None:
        self.policy = policy
        self._copies: dict[str, Tensor] = {}

    def save_copies(
        self, weights: Mapping[str, Tensor], state: Mapping[str, Tensor], train_state: Mapping[str, Any]
    ) -> None:
        """Copy weights, `state` without this point's own tensors, and `standing`, the train state as JSON."""
        text = json.dumps(train_state, sort_keys=True).encode()
        own = own_tensors(self, state)
        there = {f"{WEIGHTS}{name}": each for name, each in weights.items()}
        there |= {f"{STATE}{name}": each for name, each in state.items() if name not in own}
        self._copies = {name: each.detach().clone() for name, each in there.items()}
        self._copies[STANDING] = torch.frombuffer(bytearray(text), dtype=torch.uint8).clone()

    @property
    def is_set(self) -> bool:
        """Whether a state was saved."""
        return bool(self._copies)

    @property
    def weights(self) -> dict[str, Tensor]:
        """The network's tensors at the rollback point."""
        return self._tensors_with_prefix(WEIGHTS)

    @property
    def state(self) -> dict[str, Tensor]:
        """The rest of the training state at the rollback point."""
        return self._tensors_with_prefix(STATE)

    @property
    def train_state(self) -> dict[str, Any]:
        """The train state at the rollback point: step, digest and metrics."""
        found: dict[str, Any] = json.loads(bytes(self._copies[STANDING].cpu().tolist()))
        return found

    def _tensors_with_prefix(self, prefix: str) -> dict[str, Tensor]:
        return {name.removeprefix(prefix): each for name, each in self._copies.items() if name.startswith(prefix)}

    def tensors(self) -> dict[str, Tensor]:
        return dict(self._copies)

    def expected(self, found: Mapping[str, Tensor], step: int) -> Mapping[str, Tensor]:
        """All that was found: the tensors are checked when the run goes back to them."""
        return {STANDING: torch.empty(0, dtype=torch.uint8), **found}

    def restore(self, found: Mapping[str, Tensor]) -> None:
        """The inverse of tensors()."""
        self._copies = {name: tensor.clone() for name, tensor in found.items()}
