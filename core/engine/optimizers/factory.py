"""The torch optimizer that a spec names: its class, its parameter groups, its options."""

import inspect
from collections.abc import Callable, Iterable
from importlib import import_module
from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn
from torch.optim import Optimizer

from core.engine.failure import EngineError
from core.recipe.optimizers.base import OptimizerSpec

FASTEST: tuple[tuple[str, Any], ...] = (("fused", True), ("foreach", False))  # for one tensor; the first it accepts
SAFE = FASTEST[1:]  # `fused` of other packages than torch may need a compiler

Update = Callable[..., object]
Group = dict[str, Any]


@runtime_checkable
class HasModes(Protocol):
    """An optimizer that trains at other weights than those for evaluation: it always stays in its train mode."""

    def train(self) -> None: ...


def load_optimizer_class(spec: OptimizerSpec) -> type[Optimizer]:
    """The optimizer class of the spec. Raises EngineError if the worker has no such package."""
    module, name = spec.import_string().split(":")
    try:
        kind: type[Optimizer] = getattr(import_module(module), name)
    except ImportError as error:
        extra = spec.extra or "worker"
        message = f"this worker has no {module}, which the optimizer {spec.name} needs: {error}"
        remedy = f"Install it where workers run (pip install 'basin-server[{extra}]'), or use another optimizer."
        raise EngineError("engine_error", message, remedy) from error
    return kind


def make_optimizer(spec: OptimizerSpec, groups: Iterable[Group]) -> Optimizer:
    """The optimizer on parameter groups, in its fastest exact implementation.

    Raises EngineError if the package is missing or refuses the options.
    """
    kind = load_optimizer_class(spec)
    accepted = inspect.signature(kind).parameters
    offers = FASTEST if kind.__module__.startswith("torch.") else SAFE
    execution = dict([option for option in offers if option[0] in accepted][:1])
    try:
        optimizer = kind(list(groups), **spec.kwargs(), **execution)
    except (ValueError, TypeError, ArithmeticError, NotImplementedError) as error:
        message = f"the optimizer {spec.name} refuses its options: {error}"
        raise EngineError("engine_error", message, "Change the options that it names.") from error
    if isinstance(optimizer, HasModes):
        optimizer.train()
    return optimizer


def unhooked_step(optimizer: Optimizer) -> Update:
    """The optimizer's step without torch's profiler hook, a sixth of a small step; call it under torch.no_grad()."""
    step: Update = inspect.unwrap(type(optimizer).step)
    return step


def set_lr_and_momentum(optimizer: Optimizer, lr: float, momentum: float | None) -> None:
    """Set rate and momentum of the next step; the momentum of an optimizer with betas is the first of them."""
    groups = optimizer.param_groups
    for group in groups:
        group["lr"] = lr
    if momentum is None:
        return
    for group in groups:
        if "betas" in group:
            group["betas"] = (momentum, *group["betas"][1:])
        elif "momentum" in group:
            group["momentum"] = momentum


def decay_groups(weights: nn.Parameter, undecayed: int) -> list[Group]:
    """Flat weights as parameter groups: views of values and gradient, the last `undecayed` without weight decay."""
    if not undecayed:
        return [{"params": [weights]}]
    if weights.grad is None:
        raise ValueError("the gradient buffer of a flattened network was taken away")
    found: list[Group] = []
    sizes = [len(weights) - undecayed, undecayed]
    options: tuple[Group, ...] = ({}, {"weight_decay": 0.0})
    pairs = zip(torch.split(weights.detach(), sizes), torch.split(weights.grad, sizes), strict=True)
    for (values, gradient), each in zip(pairs, options, strict=True):
        if len(values):
            part = nn.Parameter(values)
            part.grad = gradient
            found.append({"params": [part], **each})
    return found
