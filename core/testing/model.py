"""The contract of a model."""

from typing import Any

import torch

from core.engine.networks.builders import build_module
from core.engine.networks.network import build_network
from core.engine.networks.norms import mixes_batch
from core.engine.networks.roles import hidden_matrices, infer_roles
from core.recipe.facts import DataFacts
from core.recipe.models.base import ModelSpec
from core.testing.component import check_component, no_global_randomness
from core.testing.runs import SMALL_JOB, check_run

TABLE = DataFacts(examples=60, input_shape=(5,), task="classification", outputs=3)
CPU = torch.device("cpu")


def check_model(spec: ModelSpec, facts: DataFacts = TABLE, data: Any = SMALL_JOB["data"], **fields: Any) -> None:
    """Everything. `data` is the dataset of the job that is run, whose facts are `facts`, `fields` its other fields."""
    check_component(spec, ModelSpec)
    check_counts(spec, facts)
    check_weights(spec, facts)
    check_run(model=spec.dump(), data=data, **fields)


def check_counts(spec: ModelSpec, facts: DataFacts) -> None:
    """What the spec says of its network without torch is so."""
    built = build_module(spec, facts)
    module = built.module
    counted, said = sum(each.numel() for each in module.parameters()), spec.parameter_count(facts)
    assert counted == said, f"the network has {counted} weights, and parameter_count() says {said}"
    found = len(hidden_matrices(module, infer_roles(module, built.roles)))
    said = spec.count_hidden_matrices(facts)
    assert found == said, f"it has {found} hidden matrices, and says {said}"
    message = f"normalises_batches says {spec.normalises_batches}"
    assert mixes_batch(module) == spec.normalises_batches, message


def check_weights(spec: ModelSpec, facts: DataFacts) -> None:
    """One seed gives one network, another seed another; outputs have the shape of the data, and every weight counts."""
    with no_global_randomness():
        first, second, other = (build_network(spec, facts, seed, CPU) for seed in (1, 1, 2))
    assert torch.equal(first.weights, second.weights), "the same seed gives other weights"
    assert not torch.equal(first.weights, other.weights), "the weights do not depend on the seed"
    inputs = torch.randn(4, *facts.input_shape, generator=torch.Generator().manual_seed(0))
    outputs = first.module(inputs)
    assert outputs.shape == (4, facts.outputs), f"the outputs are {tuple(outputs.shape)}, not {(4, facts.outputs)}"
    outputs.square().sum().backward()
    idle = [name for name, each in first.module.named_parameters() if each.grad is None or not bool(each.grad.any())]
    assert not idle, f"no gradient reaches {', '.join(idle)}"
