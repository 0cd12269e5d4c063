"""The role of each parameter of a network: weight decay, initialisation and filters depend on it."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from enum import StrEnum
from typing import Final, Literal

from torch import Tensor, nn

from core.engine.failure import EngineError
from core.engine.networks.norms import norm_traits

REMEDY: Final = "Correct the model's builder."


class ParameterRole(StrEnum):
    """The role of a parameter; one that several layers share has one role.

    MATRIX: the weights of a linear layer, of attention or of a recurrent layer. CONV: kernels. EMBEDDING: a table of
    vectors that are looked up. HEAD: the weights of the layer that gives the outputs. BIAS: what a layer adds. NORM:
    scale and shift of a norm layer, and any other vector of factors. POSITION: what is added at each position of a
    sequence or picture, such as a position table or a class token.
    """

    MATRIX = "matrix"
    CONV = "conv"
    EMBEDDING = "embedding"
    BIAS = "bias"
    NORM = "norm"
    HEAD = "head"
    POSITION = "position"


Roles = Mapping[str, ParameterRole]
"""By the name that a parameter has in named_parameters()."""

LAYER_ROLES: Final[Mapping[type[nn.Module], ParameterRole]] = {
    nn.Linear: ParameterRole.MATRIX,
    nn.Bilinear: ParameterRole.MATRIX,
    nn.MultiheadAttention: ParameterRole.MATRIX,
    nn.RNNBase: ParameterRole.MATRIX,
    nn.RNNCellBase: ParameterRole.MATRIX,
    nn.Conv1d: ParameterRole.CONV,
    nn.Conv2d: ParameterRole.CONV,
    nn.Conv3d: ParameterRole.CONV,
    nn.ConvTranspose1d: ParameterRole.CONV,
    nn.ConvTranspose2d: ParameterRole.CONV,
    nn.ConvTranspose3d: ParameterRole.CONV,
    nn.Embedding: ParameterRole.EMBEDDING,
    nn.EmbeddingBag: ParameterRole.EMBEDDING,
}
"""The roles of the weights of torch's layers; their biases are BIAS. Norm layers are in NORM_LAYERS."""

POSITION_WORDS: Final = frozenset({"pos", "position", "positional"})
WEIGHTS: Final = (ParameterRole.MATRIX, ParameterRole.CONV, ParameterRole.EMBEDDING, ParameterRole.HEAD)


def infer_roles(module: nn.Module, given: Roles | None = None) -> dict[str, ParameterRole]:
    """The role of each parameter; those `given` by a builder, under any name of a parameter, have priority.

    HEAD are the weights of the last layer with a matrix or a kernel, unless a builder names the head.
    """
    aliases, known = parameter_aliases(module), {name for name, _ in module.named_parameters(remove_duplicate=False)}
    if unknown := sorted(set(given or {}) - known):
        message = f"the model's builder gives roles to parameters that do not exist: {', '.join(unknown)}"
        raise EngineError("engine_error", message, REMEDY)
    stated = {aliases.get(name, name): ParameterRole(role) for name, role in (given or {}).items()}
    roles = {name: stated.get(name) or _infer_role(*each) for name, each in _owned_parameters(module)}
    if ParameterRole.HEAD not in roles.values():
        last = next((name for name in reversed(_weight_layers(module, roles, aliases))), None)
        if last and last not in stated and roles[last] is not ParameterRole.EMBEDDING:
            roles[last] = ParameterRole.HEAD
    return roles


def _owned_parameters(module: nn.Module) -> Iterator[tuple[str, tuple[nn.Module, str, nn.Parameter]]]:
    """(full name, (its layer, its name there, itself)), each parameter once, in the order of named_parameters()."""
    seen = set[int]()
    for prefix, layer in module.named_modules():
        for name, parameter in layer.named_parameters(recurse=False):
            if id(parameter) not in seen:
                seen.add(id(parameter))
                yield f"{prefix}.{name}" if prefix else name, (layer, name, parameter)


def _infer_role(layer: nn.Module, name: str, parameter: nn.Parameter) -> ParameterRole:
    words, is_vector = set(name.split("_")), sum(size > 1 for size in parameter.shape) < 2
    if norm_traits(layer):
        return ParameterRole.NORM
    if "bias" in words and is_vector:
        return ParameterRole.BIAS
    if found := next((LAYER_ROLES[each] for each in type(layer).__mro__ if each in LAYER_ROLES), None):
        return found
    if POSITION_WORDS & words or (parameter.ndim > 2 and parameter.shape[0] == 1 and not is_vector):
        return ParameterRole.POSITION
    return ParameterRole.NORM if is_vector else ParameterRole.MATRIX


def _weight_layers(module: nn.Module, roles: Roles, aliases: Mapping[str, str]) -> list[str]:
    """The parameters with a weight's role, layer by layer; one that several layers share comes once for each."""
    names = [name for name, _ in module.named_parameters(remove_duplicate=False)]
    return [own for name in names if roles[own := aliases.get(name, name)] in WEIGHTS]


def parameter_aliases(module: nn.Module) -> dict[str, str]:
    """Each further name of a parameter (weights that layers share) -> its first name."""
    return find_aliases(module.named_parameters(remove_duplicate=False))


def find_aliases(named: Iterable[tuple[str, Tensor]]) -> dict[str, str]:
    """Each name of a tensor that came before under another name -> its first name."""
    first: dict[int, str] = {}
    return {name: first[id(each)] for name, each in named if first.setdefault(id(each), name) != name}


def is_undecayed(name: str, role: ParameterRole, kinds: Collection[Literal["bias", "norm"]]) -> bool:
    """Whether the parameter is exempt from weight decay. The shift of a norm layer is both a `bias` and a `norm`."""
    is_shift = role is ParameterRole.NORM and name.rpartition(".")[2] == "bias"
    return role in kinds or (is_shift and "bias" in kinds)


def hidden_matrices(module: nn.Module, roles: Roles) -> list[str]:
    """Names of the matrices of hidden layers.

    They exclude the head and the input weights: embeddings, or without any the first layer with weights.
    """
    shapes = {name: each.ndim for name, each in module.named_parameters()}
    weights = [name for name in shapes if roles[name] in WEIGHTS]
    inputs = 0 if ParameterRole.EMBEDDING in roles.values() else 1
    return [name for name in weights[inputs:] if roles[name] is ParameterRole.MATRIX and shapes[name] == 2]


def filter_rows(parameter: Tensor, role: ParameterRole) -> int:
    """The number of filters in a parameter: one row or kernel for each output unit.

    A position table has one filter per position, along the last axis. A bias, a norm or any vector is a single filter.
    """
    if parameter.ndim < 2 or role in {ParameterRole.BIAS, ParameterRole.NORM}:
        return 1
    return parameter.numel() // parameter.shape[-1] if role is ParameterRole.POSITION else len(parameter)
