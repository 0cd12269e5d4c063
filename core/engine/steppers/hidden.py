"""The matrices of hidden layers by one optimizer, everything else by another."""

from collections.abc import Callable

from torch import nn

from core.engine.failure import EngineError
from core.engine.networks.network import Network
from core.engine.steppers.elsewhere import Elsewhere
from core.engine.steppers.shaped import ShapedStepper, part
from core.recipe.optimizers.base import OptimizerSpec


def build(spec: OptimizerSpec, network: Network, _elsewhere: Callable[[], Elsewhere]) -> ShapedStepper:
    """Raises EngineError when the network has no hidden matrix."""
    named, others = dict(network.module.named_parameters()), spec.others
    hidden = {name: named[name] for name in hidden_matrices(network.module)}
    if not hidden:
        message = f"{spec.name} steps the matrices of hidden layers, and this network has none"
        raise EngineError("engine_error", message, "Use another optimizer, or a deeper network.")
    rest = {name: each for name, each in named.items() if name not in hidden}
    parts = {
        spec.name: part(spec, network, hidden),
        others.name: part(others, network, rest, others.lr / spec.lr),
    }
    return ShapedStepper(network, parts)


def hidden_matrices(module: nn.Module) -> list[str]:
    """Names of the weights of linear layers that are neither the first nor the last layer with a matrix or a kernel.

    Embeddings count as layers and are never chosen, nor are kernels of convolutions.
    """
    layers = [
        (f"{name}.weight", layer)
        for name, layer in module.named_modules()
        if (weight := getattr(layer, "weight", None)) is not None and weight.ndim > 1
    ]
    return [name for name, layer in layers[1:-1] if isinstance(layer, nn.Linear)]
