"""A network ready to train: its weights in one flat buffer, its gradients in another, its layers called directly."""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module

import torch
from torch import Tensor, nn
from torch.nn import functional

from core.engine.determinism import private_randomness
from core.engine.liveness import ReportAlive, unwatched
from core.engine.networks.layers import initialise
from core.recipe.facts import DataFacts
from core.recipe.models import ModelSpec
from core.recipe.plan import MOST_AT_ONCE
from core.recipe.spec import Undecayed

Forward = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class Network:
    """`module`'s parameters are views of `weights` (P,), their gradients views of `weights.grad` (P,).

    An optimizer then sees one tensor, clearing gradients is one call, and averaging is one addition. `values` are the
    same weights to autograd's eyes a constant. The last `undecayed` weights are those that weight decay leaves alone.
    `buffers` are the module's own. All of these only ever change in place. Whoever sends examples through the network
    calls `report_alive` before each pass.
    """

    module: nn.Sequential
    weights: nn.Parameter
    values: Tensor
    forward: Forward
    undecayed: int = 0
    buffers: tuple[Tensor, ...] = ()
    most_at_once: int = MOST_AT_ONCE  # examples in one forward pass
    report_alive: ReportAlive = unwatched

    @property
    def gradient(self) -> Tensor:
        """The flat gradient (P,)."""
        if self.weights.grad is None:
            raise ValueError("the gradient buffer of a flattened network was taken away")
        return self.weights.grad

    def tensors(self) -> dict[str, Tensor]:
        """Parameters and buffers under their state_dict names."""
        return dict(self.module.state_dict())

    def copy(self, other: "Network") -> None:
        """Take over the weights and the buffers of a network of the same shape."""
        with torch.no_grad():
            self.weights.copy_(other.weights)
            for own, buffer in zip(self.buffers, other.buffers, strict=True):
                own.copy_(buffer)

    def floats(self) -> list[Tensor]:
        """Everything that must stay finite."""
        return [self.values, *(each for each in self.buffers if each.is_floating_point())]

    def finite(self) -> bool:
        """Whether they are."""
        return all(bool(each.isfinite().all()) for each in self.floats())


def build_network(  # noqa: PLR0913 - what a network is made of, and how it is used
    spec: ModelSpec,
    facts: DataFacts,
    seed: int,
    device: torch.device,
    no_decay: Collection[Undecayed] = (),
    *,
    most_at_once: int = MOST_AT_ONCE,
    report_alive: ReportAlive = unwatched,
) -> Network:
    """Built and initialised on the CPU from a stream of its own, so that all devices start with the same weights."""
    module_name, function = spec.implementation.split(":")
    build = getattr(import_module(module_name), function)
    with private_randomness(seed if spec.init.seed is None else spec.init.seed, "init"):
        module: nn.Sequential = build(spec, facts)
        initialise(module, spec.init)
    return replace(flatten(module.to(device), no_decay), most_at_once=most_at_once, report_alive=report_alive)


def flatten(module: nn.Sequential, no_decay: Collection[Undecayed] = ()) -> Network:
    """Move the parameters of `module` into one flat buffer, values unchanged, in their order but the undecayed last."""
    exempt = {id(each) for each in undecayed(module, no_decay)}
    parameters = sorted(module.parameters(), key=lambda each: id(each) in exempt)
    flat = torch.cat([each.detach().reshape(-1) for each in parameters])
    weights = nn.Parameter(flat)
    weights.grad = torch.zeros_like(flat)
    start = 0
    for each in parameters:
        end = start + each.numel()
        each.data = flat[start:end].view(each.shape)
        each.grad = weights.grad[start:end].view(each.shape)
        start = end
    return Network(
        module,
        weights,
        weights.detach(),
        direct_forward(module),
        sum(each.numel() for each in parameters if id(each) in exempt),
        tuple(module.buffers()),
    )


def undecayed(module: nn.Module, kinds: Collection[Undecayed]) -> Iterator[nn.Parameter]:
    """The parameters of those kinds: `bias` means everything so called, `norm` the scale and shift of batch norm."""
    for layer in module.modules():
        is_norm = isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d)
        for name, parameter in layer.named_parameters(recurse=False):
            if ("norm" in kinds and is_norm) or ("bias" in kinds and name == "bias"):
                yield parameter


def direct_forward(module: nn.Sequential) -> Forward:
    """What module(x) computes, without the hooks and attribute searches of nn.Module (a tenth of a small step)."""
    calls = [_direct(layer) for layer in module]

    def forward(inputs: Tensor) -> Tensor:
        for call in calls:
            inputs = call(inputs)
        return inputs

    return forward


def _direct(layer: nn.Module) -> Forward:
    if type(layer) is nn.Linear:
        return partial(functional.linear, weight=layer.weight, bias=layer.bias)
    if type(layer) is nn.ReLU:
        return torch.relu
    return layer.forward
