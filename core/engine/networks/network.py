"""A network ready for training: weights in one flat buffer, gradients in another, layers called directly."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from core.engine.determinism import private_randomness
from core.engine.liveness import ReportAlive, report_nothing
from core.engine.networks.builders import build_module
from core.engine.networks.layers import has_hooks, initialise_weights
from core.engine.networks.roles import Roles, find_aliases, infer_roles, is_undecayed
from core.recipe.facts import DataFacts
from core.recipe.models import ModelSpec
from core.recipe.plan import MOST_AT_ONCE
from core.recipe.spec import Undecayed

Forward = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class Network:
    """`module`'s parameters are views of `weights` (P,), their gradients views of `weights.grad` (P,).

    An optimizer then has one tensor, clearing gradients is one call, and averaging is one addition. `values` (P,) is
    the same memory, detached from autograd. The last `undecayed` weights are exempt from weight decay. `buffers` are
    the module's own. All of these change only in place. `roles` has the role of each parameter, `aliases` the further
    names of tensors that have several: a parameter that layers share is in the flat buffer once. Code that runs
    examples through the network calls `report_alive` before each pass.
    """

    module: nn.Module
    weights: nn.Parameter
    values: Tensor
    forward: Forward
    undecayed: int = 0
    buffers: tuple[Tensor, ...] = ()
    roles: Roles = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)  # further name -> the name under which it is kept
    most_at_once: int = MOST_AT_ONCE  # examples in one forward pass
    report_alive: ReportAlive = report_nothing

    @property
    def gradient(self) -> Tensor:
        """The flat gradient (P,)."""
        if self.weights.grad is None:
            raise ValueError("the gradient buffer of a flattened network was taken away")
        return self.weights.grad

    def tensors(self) -> dict[str, Tensor]:
        """Parameters and buffers under their state_dict names, each once."""
        return {name: each for name, each in self.module.state_dict().items() if name not in self.aliases}

    def load_tensors(self, found: Mapping[str, Tensor]) -> None:
        """The inverse of tensors(), in place."""
        self.module.load_state_dict({**found, **{alias: found[name] for alias, name in self.aliases.items()}})

    def copy(self, other: "Network") -> None:
        """Copy weights and buffers from a network of the same shape."""
        with torch.no_grad():
            self.weights.copy_(other.weights)
            for own, buffer in zip(self.buffers, other.buffers, strict=True):
                own.copy_(buffer)

    def floats(self) -> list[Tensor]:
        """All floating-point tensors: they must stay finite."""
        return [self.values, *(each for each in self.buffers if each.is_floating_point())]

    def finite(self) -> bool:
        """Whether weights and floating-point buffers are all finite."""
        return all(bool(each.isfinite().all()) for each in self.floats())


def build_network(  # noqa: PLR0913 - the parts of a network, and its use
    spec: ModelSpec,
    facts: DataFacts,
    seed: int,
    device: torch.device,
    no_decay: Collection[Undecayed] = (),
    *,
    most_at_once: int = MOST_AT_ONCE,
    report_alive: ReportAlive = report_nothing,
) -> Network:
    """Build and initialise on the CPU from a separate random stream: all devices start with the same weights."""
    with private_randomness(seed if spec.init.seed is None else spec.init.seed, "init"):
        built = build_module(spec, facts)
        roles = infer_roles(built.module, built.roles)
        initialise_weights(built.module, roles, spec.init)
    network = flatten(built.module.to(device), no_decay, roles)
    return replace(network, most_at_once=most_at_once, report_alive=report_alive)


def flatten(module: nn.Module, no_decay: Collection[Undecayed] = (), roles: Roles | None = None) -> Network:
    """Move the parameters of `module` into one flat buffer, in their order but with the undecayed last.

    Values do not change. Roles that are not given are inferred.
    """
    roles = infer_roles(module, roles)
    exempt = {id(each) for name, each in module.named_parameters() if is_undecayed(name, roles[name], no_decay)}
    parameters = sorted(module.parameters(), key=lambda each: id(each) in exempt)
    flat = torch.cat([each.detach().reshape(-1) for each in parameters])  # (P,)
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
        roles,
        find_aliases(module.state_dict(keep_vars=True).items()),
    )


def direct_forward(module: nn.Module) -> Forward:
    """The function module(x) without the attribute lookups of nn.Module, which take a tenth of a small step.

    Modules and layers that have hooks are called as torch calls them.
    """
    if type(module) is not nn.Sequential or has_hooks(module):
        return _direct(module)
    calls = [_direct(layer) for layer in module]

    def forward(inputs: Tensor) -> Tensor:
        for call in calls:
            inputs = call(inputs)
        return inputs

    return forward


def _direct(layer: nn.Module) -> Forward:
    if has_hooks(layer):
        return layer
    if type(layer) is nn.Linear:
        return partial(functional.linear, weight=layer.weight, bias=layer.bias)
    if type(layer) is nn.ReLU:
        return torch.relu
    return layer.forward
