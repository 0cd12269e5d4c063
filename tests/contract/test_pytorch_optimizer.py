"""The table of pytorch-optimizer's optimizers against the package, and every one of them at work."""

import json
from functools import partial

import pytest
import torch
from torch.nn import functional

from core.engine.determinism import private_randomness
from core.engine.gradient import build_gradient
from core.engine.networks.network import Network, build_network
from core.engine.steppers.shaped import build
from core.engine.steppers.stepper import Stepper
from core.recipe.facts import DataFacts
from core.recipe.models.cnn import CNN
from core.recipe.optimizers.pytorch_optimizer import PytorchOptimizer, offered
from tests.support import offered as package

pytestmark = pytest.mark.usefixtures("one_thread")
PICTURES = DataFacts(examples=16, input_shape=(1, 4, 4), task="classification", outputs=3)
MODEL = CNN(channels=(3,), hidden=(6, 5))
ACCEPTED = sorted(offered()["accepted"])


def test_the_table_is_what_the_package_says() -> None:
    """After an upgrade: `python -m tests.support.offered`, and a reason for whatever cannot be used."""
    table = package.table()
    assert table["accepted"] == json.loads(json.dumps(package.accepted(table["refused"])))
    assert table["accepted"].keys() | table["refused"].keys() == package.classes().keys()
    assert not table["accepted"].keys() & table["refused"].keys()


def driver(name: str) -> tuple[Network, Stepper]:
    network = build_network(MODEL, PICTURES, 0, torch.device("cpu"))
    spec = PytorchOptimizer(optimizer=name, lr=0.01).resolved()
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
    assert name in offered()["refused"]
    network = build_network(MODEL, PICTURES, 0, torch.device("cpu"))
    network.gradient.fill_(0.1)
    with pytest.raises(HOPELESS[name]):
        package.classes()[name](list(network.module.parameters()), lr=0.01).step()
