"""From a model's spec to a module, by the builder that the spec names by import string."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import nn

from core.engine.failure import EngineError
from core.engine.implementations import load_implementation
from core.engine.networks.roles import REMEDY, Roles
from core.recipe.facts import DataFacts
from core.recipe.models import ModelSpec


@dataclass(frozen=True, slots=True)
class ModuleWithRoles:
    """The result of a builder that corrects roles inferred from layers and shapes.

    `roles` holds the corrected ones, by parameter name.
    """

    module: nn.Module
    roles: Roles = field(default_factory=dict)


Builder = Callable[[ModelSpec, DataFacts], nn.Module | ModuleWithRoles]


def load_builder(spec: ModelSpec) -> Builder:
    """The function that the spec names. Raises EngineError if the worker has no such function."""
    builder: Builder = load_implementation(spec, "model")
    return builder


def build_module(spec: ModelSpec, facts: DataFacts) -> ModuleWithRoles:
    """A module for inputs (b, *facts.input_shape) with random weights. Raises EngineError if it cannot be trained."""
    built = load_builder(spec)(spec, facts)
    found = built if isinstance(built, ModuleWithRoles) else ModuleWithRoles(built)
    if problem := _find_problem(found.module):
        raise EngineError("engine_error", f"the model {spec.name} cannot be trained: {problem}", REMEDY)
    return found


def _find_problem(module: nn.Module) -> str | None:
    """Why the parameters do not fit into one flat buffer; None if they do."""
    named = dict(module.named_parameters())
    if not named:
        return "it has no parameters"
    if frozen := [name for name, each in named.items() if not each.requires_grad]:
        return f"{', '.join(frozen)} need no gradient (a constant is a buffer)"
    if len(types := sorted({str(each.dtype) for each in named.values()})) > 1:
        return f"its parameters are of several types: {', '.join(types)}"
    return _describe_overlap(named)


def _describe_overlap(named: Mapping[str, nn.Parameter]) -> str | None:
    """The first two parameters that share memory: layers may share one Parameter, but flattening separates two."""
    owners: dict[int, str] = {}
    for name, each in named.items():
        first = owners.setdefault(each.data_ptr(), name) if each.numel() else name
        if first != name:
            return f"{first} and {name} are two parameters in the same memory (assign one of them to both layers)"
    return None
