"""Shared parts of the networks: activations, dense blocks, and the initialisation of weights."""

from collections.abc import Callable, Iterator

import torch
from torch import nn

from core.engine.networks.roles import ParameterRole, Roles
from core.recipe.models.base import Activation, Init

Layers = Iterator[tuple[str, nn.Module]]

ACTIVATIONS: dict[Activation, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "leaky_relu": nn.LeakyReLU,
}

SCHEMES: dict[str, Callable[[torch.Tensor], object]] = {
    "kaiming_normal": lambda weight: nn.init.kaiming_normal_(weight, nonlinearity="relu"),
    "kaiming_uniform": lambda weight: nn.init.kaiming_uniform_(weight, nonlinearity="relu"),
    "xavier_normal": nn.init.xavier_normal_,
    "xavier_uniform": nn.init.xavier_uniform_,
    "orthogonal": nn.init.orthogonal_,
    "zeros": nn.init.zeros_,
}

FILLED = frozenset({ParameterRole.MATRIX, ParameterRole.CONV, ParameterRole.HEAD})
"""The roles that a scheme applies to."""


def dense(number: int, widths: tuple[int, int], activation: Activation, dropout: float, *, batch_norm: bool) -> Layers:
    """One hidden block: (batch, widths[0]) -> (batch, widths[1])."""
    yield f"dense{number}", nn.Linear(*widths)
    if batch_norm:
        yield f"dense_norm{number}", nn.BatchNorm1d(widths[1])
    yield f"dense_activation{number}", ACTIVATIONS[activation]()
    if dropout > 0:
        yield f"dropout{number}", nn.Dropout(dropout)


def initialise_weights(module: nn.Module, roles: Roles, init: Init) -> None:
    """Fill matrices, kernels and the head by the scheme, and biases with 0; `torch` keeps each layer's own values.

    Norms, embeddings and positions always keep their own values.
    """
    if init.scheme == "torch":
        return
    for name, parameter in module.named_parameters():
        if roles[name] in FILLED and parameter.ndim > 1:
            SCHEMES[init.scheme](parameter)
        elif roles[name] is ParameterRole.BIAS:
            nn.init.zeros_(parameter)


def plain_layers(module: nn.Module) -> list[tuple[str, nn.Module]] | None:
    """The named layers of a plain nn.Sequential; None for any other module.

    Code that computes layers without calling the module checks here first: a parameter that two layers share, a hook,
    or a module with its own forward pass need the module itself.
    """
    if type(module) is not nn.Sequential or any(map(has_hooks, module.modules())):
        return None
    layers = [(name, layer) for name, layer in module.named_modules(remove_duplicate=False) if name and "." not in name]
    owned = [id(each) for _, layer in layers for each in (layer, *layer.parameters())]
    return layers if len(set(owned)) == len(owned) else None


def has_hooks(layer: nn.Module) -> bool:
    """Whether a call of the layer runs hooks besides its `forward`."""
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return any(getattr(layer, kind) for kind in kinds)
