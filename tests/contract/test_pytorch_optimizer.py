"""The table of pytorch-optimizer's optimizers against the package, and every one of them at work."""

import inspect
import json
import random
import re
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from core.engine.determinism import private_randomness
from core.engine.gradients.gradient import build_gradient
from core.engine.networks.network import Network, build_network
from core.engine.optimizers.per_parameter import build
from core.engine.optimizers.stepper import Stepper
from core.recipe.facts import DataFacts
from core.recipe.models.base import ModelSpec
from core.recipe.models.cnn import CNN
from core.recipe.models.mlp import MLP
from core.recipe.optimizers.pytorch_optimizer import DRAWING_ELSEWHERE, PytorchOptimizer, offered_optimizers
from tests.support import offered as package

pytestmark = pytest.mark.usefixtures("one_thread")
PICTURES = DataFacts(examples=16, input_shape=(1, 4, 4), task="classification", outputs=3)
MODEL = CNN(channels=(3,), hidden=(6, 5))
ACCEPTED = sorted(offered_optimizers()["accepted"])


def test_the_table_is_what_the_package_says() -> None:
    """After an upgrade: `python -m tests.support.offered`, and a reason for whatever cannot be used."""
    table = package.table()
    assert table["accepted"] == json.loads(json.dumps(package.accepted(table["refused"])))
    assert table["accepted"].keys() | table["refused"].keys() == package.classes().keys()
    assert not table["accepted"].keys() & table["refused"].keys()


def driver(name: str, model: ModelSpec = MODEL, **options: Any) -> tuple[Network, Stepper]:
    network = build_network(model, PICTURES, 0, torch.device("cpu"))
    spec = PytorchOptimizer(optimizer=name, lr=0.01, options=options).resolved()
    return network, build(spec, network, lambda: pytest.fail("nothing is judged elsewhere"))


def steps(network: Network, stepper: Stepper, first: int, last: int) -> None:
    gradient = build_gradient(network, functional.cross_entropy)
    generator = torch.Generator().manual_seed(first)
    for t in range(first, last):
        generator.manual_seed(t)
        inputs, targets = torch.randn(16, 1, 4, 4, generator=generator), torch.arange(16) % 3
        gradient(inputs, targets)
        stepper.step(0.01 * (1 + 0.3 * t), partial(gradient, inputs, targets))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ACCEPTED)
def test_it_trains_and_goes_on_where_it_was_interrupted(name: str) -> None:
    """Six steps, at rates that move; and two, its state on paper, four more by a fresh one: the same bits."""
    with private_randomness(1, name):
        network, stepper = driver(name)
        before = network.weights.detach().clone()
        steps(network, stepper, 0, 6)
    assert bool(network.weights.isfinite().all())
    assert not torch.equal(network.weights, before)
    with private_randomness(1, name):
        first, stepper = driver(name)
        steps(first, stepper, 0, 2)
        state = {key: each.clone() for key, each in stepper.tensors().items()}
        second, stepper = driver(name)
        second.module.load_state_dict(first.module.state_dict())
        assert set(stepper.expected(state, 2)) == set(state)
        stepper.restore(state)
        steps(second, stepper, 2, 6)
    assert torch.equal(second.weights, network.weights)


SQUARE = MLP(hidden=(70, 70, 70))  # two matrices that sara can choose between
DRAWN: dict[str, tuple[ModelSpec, dict[str, Any]]] = {
    "kron": (MODEL, {"balance_prob": 0.5}),
    "sara": (SQUARE, {"lambda_rank": 0.1}),
}


@pytest.mark.parametrize("name", DRAWN)
def test_what_draws_outside_of_torch_draws_the_same_again(name: str) -> None:
    """As above, where each step draws; and whoever else draws there is not disturbed."""
    model, options = DRAWN[name]
    ends = []
    for disturbance in range(3):
        random.seed(disturbance)
        np.random.seed(disturbance)  # noqa: NPY002 - what packages draw from
        expected = random.Random(disturbance).random(), np.random.RandomState(disturbance).random()
        with private_randomness(1, name):
            network, stepper = driver(name, model, **options)
            steps(network, stepper, 0, 12)
        assert (random.random(), np.random.random()) == expected  # noqa: NPY002
        ends.append(network.weights.detach())
    assert torch.equal(ends[0], ends[1])
    assert torch.equal(ends[0], ends[2])


def test_those_that_draw_elsewhere_are_known() -> None:
    """Whose source names Python's or NumPy's generator."""
    kinds = {name: package.classes()[name] for name in ACCEPTED}
    drawing = {
        name
        for name, kind in kinds.items()
        if re.search(r"^import random$|\bnp\.random\b", inspect.getsource(inspect.getmodule(kind)), re.MULTILINE)
    }
    assert drawing == DRAWING_ELSEWHERE == DRAWN.keys()


HOPELESS = {
    "adahessian": RuntimeError,
    "bsam": TypeError,
    "demo": ImportError,
    "lbfgs": TypeError,
    "lomo": AttributeError,
    "muon": RuntimeError,
    "ranger21": TypeError,
    "sophiah": RuntimeError,
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", HOPELESS)
def test_the_refused_ones_really_cannot(name: str) -> None:
    """A closure, a whole model, second derivatives, groups by hand: whatever it wants, it wants it at once."""
    assert name in offered_optimizers()["refused"]
    network = build_network(MODEL, PICTURES, 0, torch.device("cpu"))
    network.gradient.fill_(0.1)
    with pytest.raises(HOPELESS[name]):
        package.classes()[name](list(network.module.parameters()), lr=0.01).step()
