"""Optimizers and models that break the contract of core.testing, each in one point."""

from typing import Any, ClassVar, Literal

import torch
from torch import nn
from torch.optim import Optimizer

from core.recipe.facts import DataFacts
from core.recipe.models.base import ModelSpec
from core.recipe.optimizers.base import OptimizerSpec


class Plain(Optimizer):
    """w <- w - lr g."""

    def __init__(self, params: Any, lr: float = 0.1) -> None:
        super().__init__(params, {"lr": lr})

    def amount(self, weights: nn.Parameter, lr: float) -> torch.Tensor:
        assert weights.grad is not None
        return lr * weights.grad

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for weights in group["params"]:
                weights.sub_(self.amount(weights, group["lr"]))


class Drawing(Plain):
    """Adds noise from the global generator."""

    def amount(self, weights: nn.Parameter, lr: float) -> torch.Tensor:
        return super().amount(weights, lr) + 0.01 * torch.randn_like(weights)


class Forgetful(Plain):
    """Keeps its momentum where state_dict() does not look."""

    def __init__(self, params: Any, lr: float = 0.1) -> None:
        super().__init__(params, lr)
        self.momentum: dict[int, torch.Tensor] = {}

    def amount(self, weights: nn.Parameter, lr: float) -> torch.Tensor:
        now = super().amount(weights, lr)
        kept = self.momentum.setdefault(id(weights), torch.zeros_like(weights))
        return kept.mul_(0.9).add_(now).clone()


class PlainSpec(OptimizerSpec):
    """w <- w - lr g."""

    summary: ClassVar[str] = "An optimizer of a test."
    implementation: ClassVar[str] = "tests.support.careless:Plain"
    name: Literal["plain"] = "plain"


class DrawingSpec(PlainSpec):
    """Draws."""

    implementation: ClassVar[str] = "tests.support.careless:Drawing"


class ForgetfulSpec(PlainSpec):
    """Forgets."""

    implementation: ClassVar[str] = "tests.support.careless:Forgetful"


class Idle(nn.Module):
    """A layer with weights that no output depends on."""

    def __init__(self, facts: DataFacts) -> None:
        super().__init__()
        self.output = nn.Linear(facts.features, facts.outputs)
        self.idle = nn.Linear(2, 2)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.output(inputs.flatten(1))
        return found


def build_idle(_spec: ModelSpec, facts: DataFacts) -> nn.Module:
    return Idle(facts)


def build_wide(_spec: ModelSpec, facts: DataFacts) -> nn.Module:
    """One output too many."""
    return nn.Sequential(nn.Flatten(), nn.Linear(facts.features, facts.outputs + 1))


class IdleSpec(ModelSpec):
    """Idle weights."""

    summary: ClassVar[str] = "A model of a test."
    implementation: ClassVar[str] = "tests.support.careless:build_idle"
    name: Literal["idle"] = "idle"

    def parameter_count(self, facts: DataFacts) -> int:
        return (facts.features + 1) * facts.outputs + 6


class WideSpec(IdleSpec):
    """Too wide."""

    implementation: ClassVar[str] = "tests.support.careless:build_wide"

    def parameter_count(self, facts: DataFacts) -> int:
        return (facts.features + 1) * (facts.outputs + 1)


class MiscountedSpec(WideSpec):
    """One weight too few."""

    def parameter_count(self, facts: DataFacts) -> int:
        return super().parameter_count(facts) - 1
