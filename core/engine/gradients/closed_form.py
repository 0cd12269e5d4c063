"""The backward pass of plain networks in closed form: the calls that autograd would make, without its bookkeeping.

In a small step the bookkeeping costs as much as the arithmetic: the closed form saves a third of a step of a 128-128
perceptron on digits. Networks with other layers use autograd. Tests check that both are equal, to the last bit where
widths are multiples of 16 (matrix products add up in another order at other addresses).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from core.engine.failure import note_pass
from core.engine.networks.layers import plain_layers

aten = torch.ops.aten

Gradient = Callable[[Tensor, Tensor], Tensor]  # inputs, targets -> mean loss; gradients are left in .grad
LossGradient = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]  # outputs, targets -> mean loss, its gradient


class ClosedFormLayer(Protocol):
    """One layer. Activations overwrite their input: no linear layer needs its output for its own backward pass."""

    def forward(self, inputs: Tensor) -> Tensor: ...

    def backward(self, gradient: Tensor, inputs: Tensor, outputs: Tensor) -> Tensor:
        """The gradient by inputs from the gradient by outputs; writes the gradients of weights into their `grad`."""


class ClosedFormLinear:
    """y = x Wᵀ + b with x (b, n), W (m, n): ∂W = gᵀ x, ∂b = Σ g, ∂x = g W."""

    def __init__(self, layer: nn.Linear, *, first: bool) -> None:
        """The gradient by the inputs of the `first` layer is not computed: no layer needs it."""
        self._weight, self._bias, self._first = layer.weight.detach(), layer.bias.detach(), first
        self._transposed = self._weight.t()
        self._weight_gradient, self._bias_gradient = layer.weight.grad, layer.bias.grad

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.addmm(self._bias, inputs, self._transposed)

    def backward(self, gradient: Tensor, inputs: Tensor, outputs: Tensor) -> Tensor:
        del outputs
        torch.mm(gradient.t(), inputs, out=self._weight_gradient)
        torch.sum(gradient, 0, out=self._bias_gradient)
        return gradient if self._first else torch.mm(gradient, self._weight)


@dataclass(frozen=True, slots=True)
class ClosedFormActivation:
    """An activation that is computed in place and whose derivative is a function of its output."""

    compute: Callable[[Tensor], Tensor]
    derivative: Callable[[Tensor, Tensor], Tensor]  # gradient, outputs -> gradient

    def forward(self, inputs: Tensor) -> Tensor:
        return self.compute(inputs)

    def backward(self, gradient: Tensor, inputs: Tensor, outputs: Tensor) -> Tensor:
        del inputs
        return self.derivative(gradient, outputs)


ACTIVATIONS: dict[type[nn.Module], ClosedFormActivation] = {
    nn.ReLU: ClosedFormActivation(
        torch.relu_, lambda gradient, outputs: aten.threshold_backward.default(gradient, outputs, 0)
    ),
    nn.Tanh: ClosedFormActivation(torch.tanh_, aten.tanh_backward.default),
    nn.Sigmoid: ClosedFormActivation(torch.sigmoid_, aten.sigmoid_backward.default),
}


def cross_entropy(outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Mean of -log softmax(outputs)[target]; its gradient is (softmax(outputs) - one hot target) / b.

    Targets of mixed examples are class probabilities, float32 (b, classes), in place of one-hot ones.
    """
    logs = torch.log_softmax(outputs, 1)
    if targets.is_floating_point():
        loss = -(logs * targets).sum() / len(targets)
        return loss, aten._log_softmax_backward_data.default(-targets / len(targets), logs, 1, outputs.dtype)  # noqa: SLF001
    loss, weight = aten.nll_loss_forward.default(logs, targets, None, 1, -100)
    slope = aten.nll_loss_backward.default(torch.ones_like(loss), logs, targets, None, 1, -100, weight)
    return loss, aten._log_softmax_backward_data.default(slope, logs, 1, outputs.dtype)  # noqa: SLF001


def mean_squared_error(outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Mean of (output - target)² over examples and outputs."""
    loss = functional.mse_loss(outputs, targets)
    return loss, aten.mse_loss_backward.default(torch.ones_like(loss), outputs, targets, 1)


LOSSES: dict[object, LossGradient] = {
    functional.cross_entropy: cross_entropy,
    functional.mse_loss: mean_squared_error,
}


def closed_form(module: nn.Module, mean_loss: object) -> Gradient | None:
    """The gradient function of a network of linear layers and simple activations, or None for any other."""
    links, loss_gradient = _closed_form_layers(module), LOSSES.get(mean_loss)
    if links is None or loss_gradient is None:
        return None
    backwards = links[::-1]

    def gradient(inputs: Tensor, targets: Tensor) -> Tensor:
        try:
            with torch.no_grad():
                values = [inputs.flatten(1)]  # (b, features), then the output of every layer (b, m)
                for link in links:
                    values.append(link.forward(values[-1]))
                outputs = values.pop()
                loss, slope = loss_gradient(outputs, targets)
                for link in backwards:
                    before = values.pop()
                    slope = link.backward(slope, before, outputs)
                    outputs = before
        except (MemoryError, RuntimeError) as error:
            note_pass(error)
            raise
        return loss

    return gradient


def _closed_form_layers(module: nn.Module) -> list[ClosedFormLayer] | None:
    layers = [layer for _, layer in plain_layers(module) or ()]
    if layers and type(layers[0]) is nn.Flatten:
        layers = layers[1:]
    links: list[ClosedFormLayer] = []
    for number, layer in enumerate(layers):
        if type(layer) is nn.Linear and layer.bias is not None:
            links.append(ClosedFormLinear(layer, first=number == 0))
        elif type(layer) in ACTIVATIONS and number and type(layers[number - 1]) is nn.Linear:
            links.append(ACTIVATIONS[type(layer)])
        else:
            return None
    return links or None
