"""What every component owes: its class can join, its module brings no torch, and it says the same thing twice."""

import json
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from core.recipe.component import Component
from core.recipe.plugin_probe import probe_modules
from core.recipe.plugins import find_problem
from core.recipe.stored import read_stored


def check_component(spec: Component, base: type[Component]) -> None:
    """The class of `spec` could be a member of the union of `base`, and its JSON is read back as the same object."""
    component = type(spec)
    problem = find_problem(component, base)
    assert problem is None, f"{component.__name__} cannot join: {problem}"
    assert component.__doc__, f"{component.__name__} has no docstring, which is its description in the catalog"
    assert component.summary.endswith("."), f"the summary of {component.__name__} is no sentence: {component.summary!r}"
    text = spec.model_dump_json()
    assert component.model_validate_json(text) == spec, f"its own JSON is not accepted as the same: {text}"
    assert read_stored(component, json.loads(text)) == spec, f"its stored JSON is not read as the same: {text}"
    heavy = probe_modules({component.__name__: [component.__module__]})
    assert not heavy, f"{component.__name__}: {heavy[component.__name__]}"


@contextmanager
def no_global_randomness() -> Iterator[None]:
    """Inside, nothing may be drawn from the global generators of torch, NumPy and Python."""
    before = _global_states()
    yield
    drawn = [name for name, state in _global_states().items() if state != before[name]]
    assert not drawn, f"it draws from the global generator of {', '.join(drawn)}"


def _global_states() -> dict[str, object]:
    numpy: Any = np.random.get_state(legacy=False)  # noqa: NPY002 - the global one is what may not be used
    return {
        "torch": torch.default_generator.get_state().tolist(),
        "NumPy": (numpy["state"]["key"].tolist(), numpy["state"]["pos"]),
        "Python": random.getstate(),
    }
