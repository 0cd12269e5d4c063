"""One optimizer for the matrices of hidden layers (such as Muon), another for all other parameters."""

from collections.abc import Callable

from core.engine.failure import EngineError
from core.engine.networks.network import Network
from core.engine.networks.roles import hidden_matrices
from core.engine.optimizers.eval_weights import EvalWeights
from core.engine.optimizers.per_parameter import ShapedStepper, part
from core.recipe.optimizers.base import OptimizerSpec


def build(spec: OptimizerSpec, network: Network, _elsewhere: Callable[[], EvalWeights]) -> ShapedStepper:
    """A stepper of two optimizers. Raises EngineError if the network has no hidden matrix."""
    named, others = dict(network.module.named_parameters()), spec.fallback_optimizer
    hidden = {name: named[name] for name in hidden_matrices(network.module, network.roles)}
    if not hidden:
        message = f"{spec.name} steps the matrices of hidden layers, and this network has none"
        raise EngineError("engine_error", message, "Use another optimizer, or a deeper network.")
    rest = {name: each for name, each in named.items() if name not in hidden}
    parts = {
        spec.name: part(spec, network, hidden),
        others.name: part(others, network, rest, others.lr / spec.lr),
    }
    return ShapedStepper(network, parts)
