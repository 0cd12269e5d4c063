"""The contract of a dataset."""

import numpy as np

from core.recipe.data.base import SyntheticData
from core.testing.component import check_component, no_global_randomness
from core.testing.runs import check_run


def check_dataset(spec: SyntheticData) -> None:
    """Everything: its arrays are what its facts say, the same each time, and a job trains on them."""
    check_component(spec, SyntheticData)
    facts = spec.facts()
    with no_global_randomness():
        first, second = spec.generate_arrays(), spec.generate_arrays()
    assert sorted(first) == ["inputs", "targets"], f"generate_arrays() gives {sorted(first)}, not inputs and targets"
    for name, array in first.items():
        assert np.array_equal(array, second[name]), f"the {name} are not the same the second time"
        assert np.isfinite(array).all(), f"the {name} are not finite"
    numbers = facts.classes is None
    shapes = {
        "inputs": ((facts.examples, *facts.input_shape), "float32"),
        "targets": ((facts.examples, facts.outputs), "float32") if numbers else ((facts.examples,), "int64"),
    }
    for name, expected in shapes.items():
        found = (first[name].shape, str(first[name].dtype))
        assert found == expected, f"the {name} are {found}, and the facts say {expected}"
    if not numbers:
        classes = sorted(set(first["targets"].tolist()))
        assert classes == list(range(facts.outputs)), f"the classes are {classes}, not 0 to {facts.outputs - 1}"
    check_run(data=spec.dump())
