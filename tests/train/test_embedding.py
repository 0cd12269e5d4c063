"""The perceptron on a table with embedded categories: its sizes, its outputs by hand, and the roles of its weights."""

import math
from functools import partial

import pytest
import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional

from core.engine.analysis.loss_surface import LossSurface
from core.engine.datasets.resident import Split
from core.engine.gradients.gradient import build_gradient
from core.engine.networks.network import build_network
from core.engine.networks.roles import ParameterRole, is_undecayed
from core.recipe.facts import DataFacts
from core.recipe.models.embedding import embedded_features, embedding_parameters, embedding_width
from core.recipe.models.mlp import MLP
from core.testing.model import check_counts

CPU = torch.device("cpu")
FACTS = DataFacts(24, (5,), "classification", 3, cardinalities=(4, 100))
SPEC = MLP(hidden=(8, 6), activation="tanh")


@pytest.mark.parametrize(
    ("cardinality", "width"),
    [(2, 3), (3, 3), (4, 4), (21, 9), (100, 22), (450, 49), (470, 50), (1000, 50), (10_001, 50)],
)
def test_the_width_of_a_vector(cardinality: int, width: int) -> None:
    """By a calculator: 1.6 · 100^0.56 is 21.09, 1.6 · 450^0.56 is 48.96, 1.6 · 470^0.56 is 50.17."""
    assert embedding_width(cardinality) == width


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("cardinalities", [(), (4,), (4, 100), (2, 3, 5)])
def test_the_sizes_are_those_of_the_network(cardinalities: tuple[int, ...], batch_norm: bool) -> None:
    facts = DataFacts(24, (5,), "classification", 3, cardinalities=cardinalities)
    for hidden in ((8,), (8, 6)):
        check_counts(MLP(hidden=hidden, batch_norm=batch_norm), facts)


def test_the_sizes_by_hand() -> None:
    """3 numbers, vectors of 4 and 22: 29 inputs; tables of 4 · 4 and 100 · 22; 29 · 8 + 8, 8 · 6 + 6 and 6 · 3 + 3."""
    assert embedded_features(5, (4, 100)) == 29
    assert embedding_parameters((4, 100)) == 16 + 2200
    assert SPEC.multiply_adds(FACTS) == 240 + 54 + 21
    assert SPEC.parameter_count(FACTS) == 2216 + 315
    assert build_network(SPEC, FACTS, 0, CPU).weights.numel() == 2531


def rows() -> Tensor:
    """(24, 5): three numbers, then a code below 4 and a code below 100."""
    generator = torch.Generator().manual_seed(3)
    codes = [torch.randint(most, (24, 1), generator=generator).float() for most in FACTS.cardinalities]
    return torch.cat([torch.randn(24, 3, generator=generator), *codes], 1)


def by_hand(named: dict[str, Tensor], inputs: Tensor) -> Tensor:
    """One row after the other, by indexing."""
    found = []
    for row in inputs:
        first, second = (named[f"embed.tables.{n}.weight"][int(row[3 + n])] for n in range(2))
        values = torch.cat([row[:3], first, second])
        for layer in ("dense0", "dense1"):
            values = torch.tanh(named[f"{layer}.weight"] @ values + named[f"{layer}.bias"])
        found.append(named["output.weight"] @ values + named["output.bias"])
    return torch.stack(found)


def test_outputs_and_gradients_by_hand() -> None:
    network, inputs = build_network(SPEC, FACTS, 1, CPU), rows()
    named = {name: each.detach().clone().requires_grad_() for name, each in network.module.named_parameters()}
    expected = by_hand(named, inputs)
    assert torch.allclose(network.forward(inputs), expected, atol=1e-6)
    assert torch.equal(network.forward(inputs + torch.tensor([0, 0, 0, 0.001, -0.001])), network.forward(inputs))
    targets = torch.arange(24) % 3
    functional.cross_entropy(expected, targets).backward()
    build_gradient(network, functional.cross_entropy)(inputs, targets)
    for name, each in network.module.named_parameters():
        mine = named[name].grad
        assert mine is not None
        assert each.grad is not None
        assert torch.allclose(each.grad, mine, atol=1e-6), name


def test_the_roles_of_its_weights() -> None:
    network = build_network(SPEC, FACTS, 0, CPU)
    tables = {name for name, role in network.roles.items() if role is ParameterRole.EMBEDDING}
    assert tables == {"embed.tables.0.weight", "embed.tables.1.weight"}
    assert network.roles["output.weight"] is ParameterRole.HEAD
    assert not any(is_undecayed(name, network.roles[name], ("bias", "norm")) for name in tables)


def test_analyses_see_the_same_loss() -> None:
    """The mean loss of the surface at the weights, its gradient, and the gradients of several batches at once."""
    network, inputs, targets = build_network(SPEC, FACTS, 2, CPU), rows(), torch.arange(24) % 3
    surface = LossSurface(network, Split(inputs, targets), functional.cross_entropy)
    loss, slope = surface.loss_and_gradient(network.values)
    expected = functional.cross_entropy(network.forward(inputs), targets)
    assert math.isclose(loss, float(expected.detach()), rel_tol=1e-6)
    build_gradient(network, functional.cross_entropy)(inputs, targets)
    assert torch.allclose(slope, network.gradient, atol=1e-6)
    halves = surface.batch_gradients(network.values, inputs.view(2, 12, 5), targets.view(2, 12))
    assert torch.allclose(halves.mean(0), slope, atol=1e-6)
    call = partial(functional_call, network.module)
    assert torch.equal(call(dict(network.module.named_parameters()), (inputs,)), network.forward(inputs))
