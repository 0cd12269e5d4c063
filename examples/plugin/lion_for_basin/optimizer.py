"""Lion as a torch optimizer."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


class Lion(Optimizer):
    """Chen et al. 2023, arXiv:2302.06675, algorithm 2. The state is `exp_avg`, of each parameter's own shape."""

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
    ) -> None:
        """Names and defaults are those of the spec, which are the paper's."""
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:  # type: ignore[override]
        """One update of every parameter that has a gradient."""
        loss = closure() if closure else None
        for group in self.param_groups:
            lr, (beta1, beta2), decay = group["lr"], group["betas"], group["weight_decay"]
            for weights in group["params"]:
                if (gradient := weights.grad) is None:
                    continue
                state = self.state[weights]
                if not state:
                    state["exp_avg"] = torch.zeros_like(weights)
                average = state["exp_avg"]
                direction = (beta1 * average + (1 - beta1) * gradient).sign_()
                weights.mul_(1 - lr * decay).sub_(direction, alpha=lr)
                average.mul_(beta2).add_(gradient, alpha=1 - beta2)
        return loss
