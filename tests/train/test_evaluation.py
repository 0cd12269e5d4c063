"""Numbers by hand, and nothing left behind."""

from typing import Any

import pytest
import torch

from core.engine.datasets.resident import TensorSplit
from core.engine.datasets.standardizer import Standardizer
from core.engine.evaluation.evaluate import eval_mode, evaluate_network
from core.engine.evaluation.objective import Classification, Regression
from core.engine.networks.network import build_network, flatten
from core.recipe.facts import DataFacts
from core.recipe.models.cnn import CNN

CPU = torch.device("cpu")


def identity(width: int) -> Any:
    layer = torch.nn.Linear(width, width)
    with torch.no_grad():
        layer.weight.copy_(torch.eye(width))
        layer.bias.zero_()
    return flatten(torch.nn.Sequential(layer))


def test_classification_by_hand() -> None:
    """Outputs (0, ln 3) give probabilities 1/4 and 3/4: losses ln 4 and ln 4/3, one of two right."""
    outputs = torch.tensor([[0.0, 3.0], [0.0, 3.0]]).log().nan_to_num(neginf=0.0)
    part = TensorSplit(outputs, torch.tensor([0, 1]))
    found = evaluate_network(identity(2), part, Classification(("accuracy",)))
    assert found == {"loss": pytest.approx((1.3862944 + 0.2876821) / 2), "accuracy": 0.5}


def test_regression_by_hand() -> None:
    """Targets 10, 20, 60 with mean 20 and std 10 are standardised to -1, 0, 4; predictions 0, 0, 0.

    Errors in own units 10, 0, 40: mae 50/3; squares 1700; deviations from 30: 400 + 100 + 900 = 1400.
    """
    scale = Standardizer(torch.tensor([20.0]), torch.tensor([10.0]))
    part = TensorSplit(torch.zeros(3, 1), torch.tensor([[-1.0], [0.0], [4.0]]))
    found = evaluate_network(identity(1), part, Regression(("mae", "r2"), scale))
    assert found["loss"] == pytest.approx(17 / 3)
    assert found["mae"] == pytest.approx(50 / 3)
    assert found["r2"] == pytest.approx(1 - 1700 / 1400)
    unscaled = evaluate_network(identity(1), part, Regression(("mae", "r2"), None))
    assert unscaled["mae"] == pytest.approx(5 / 3)
    assert unscaled["r2"] == pytest.approx(1 - 17 / 14)


def test_r2_of_constant_targets() -> None:
    exact = TensorSplit(torch.ones(2, 1), torch.ones(2, 1))
    wrong = TensorSplit(torch.zeros(2, 1), torch.ones(2, 1))
    objective = Regression(("r2",), None)
    assert evaluate_network(identity(1), exact, objective) == {"loss": 0.0, "r2": 1.0}
    assert evaluate_network(identity(1), wrong, objective) == {"loss": 1.0, "r2": 0.0}


def test_evaluation_leaves_no_trace() -> None:
    facts = DataFacts(examples=20, input_shape=(1, 8, 8), task="classification", outputs=10)
    network = build_network(CNN(channels=(4,), dropout=0.5), facts, 0, CPU)
    network.module.train()
    network.module[1].eval()  # a layer in a mode of its own keeps it
    modes = [layer.training for layer in network.module.modules()]
    tensors = {name: tensor.clone() for name, tensor in network.tensors().items()}
    gradient, randomness = network.gradient.clone(), torch.default_generator.get_state()
    part = TensorSplit(torch.randn(20, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(20) % 10)
    first = evaluate_network(network, part, Classification(("accuracy",)))
    assert evaluate_network(network, part, Classification(("accuracy",))) == first
    assert [layer.training for layer in network.module.modules()] == modes
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in network.tensors().items())
    assert torch.equal(network.gradient, gradient)
    assert torch.equal(torch.default_generator.get_state(), randomness)
    assert torch.is_grad_enabled()


def test_modes_come_back_after_an_accident() -> None:
    module = torch.nn.Sequential(torch.nn.Dropout(0.5))
    with pytest.raises(ZeroDivisionError), eval_mode(module):
        torch.tensor(1 // int(module[0].training))
    assert module[0].training
