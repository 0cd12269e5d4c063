"""Functions that a spec names by import string."""

from importlib import import_module
from typing import Any

from core.engine.failure import EngineError
from core.recipe.models import ModelSpec
from core.recipe.named import NamedComponent


def load_implementation(spec: ModelSpec | NamedComponent, kind: str) -> Any:
    """The function that the spec of this kind names. Raises EngineError if the worker has no such function."""
    module, _, name = spec.implementation.partition(":")
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        message = f"this worker cannot import {spec.implementation}, which builds the {kind} {spec.name}: {error}"
        raise EngineError("engine_error", message, f"Install it where workers run, or use another {kind}.") from error
