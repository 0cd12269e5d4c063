"""Parts that the networks share: activations, dense blocks, and how weights start."""

from collections.abc import Callable, Iterator

import torch
from torch import nn

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


def dense(number: int, widths: tuple[int, int], activation: Activation, dropout: float, *, batch_norm: bool) -> Layers:
    """One hidden block: (batch, widths[0]) -> (batch, widths[1])."""
    yield f"dense{number}", nn.Linear(*widths)
    if batch_norm:
        yield f"dense_norm{number}", nn.BatchNorm1d(widths[1])
    yield f"dense_activation{number}", ACTIVATIONS[activation]()
    if dropout > 0:
        yield f"dropout{number}", nn.Dropout(dropout)


def initialise(network: nn.Module, init: Init) -> None:
    """Fill weights by the scheme; biases start at 0. `torch` keeps what each layer drew for itself."""
    if init.scheme == "torch":
        return
    for layer in network.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            SCHEMES[init.scheme](layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
