"""Whole, in chunks, written out, by autograd: always the same gradient."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.nn import functional

from core.engine.gradients.closed_form import closed_form
from core.engine.gradients.gradient import autograd_gradient, build_gradient
from core.engine.networks.network import build_network, flatten
from core.recipe.facts import DataFacts
from core.recipe.models.cnn import CNN
from core.recipe.models.logistic import Logistic
from core.recipe.models.mlp import MLP

CPU = torch.device("cpu")
DIGITS = DataFacts(examples=103, input_shape=(1, 8, 8), task="classification", outputs=10)
NUMBERS = DataFacts(examples=103, input_shape=(6,), task="regression", outputs=2)


def batch(facts: DataFacts, size: int, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(size)
    inputs = torch.randn(size, *facts.input_shape, generator=generator, dtype=dtype)
    if facts.classes:
        return inputs, torch.randint(facts.outputs, (size,), generator=generator)
    return inputs, torch.randn(size, facts.outputs, generator=generator, dtype=dtype)


@pytest.mark.parametrize(
    "spec", [MLP(hidden=(16,)), MLP(hidden=(8,), activation="gelu"), CNN(channels=(4,), batch_norm=False)]
)
@pytest.mark.parametrize("chunk", [1, 10, 32, 102])
def test_the_accumulated_gradient_is_that_of_the_full_batch(spec: Any, chunk: int) -> None:
    """In float64 103 examples in chunks, the last one smaller, agree with the whole to rounding."""
    network = flatten(build_network(spec, DIGITS, 0, CPU).module.double())
    inputs, targets = batch(DIGITS, 103, torch.float64)
    whole = build_gradient(network, functional.cross_entropy)(inputs, targets)
    expected = network.gradient.clone()
    loss = build_gradient(replace(network, most_at_once=chunk), functional.cross_entropy)(inputs, targets)
    torch.testing.assert_close(loss, whole, rtol=1e-13, atol=0)
    torch.testing.assert_close(network.gradient, expected, rtol=1e-11, atol=1e-15)


def test_the_gradient_is_the_mean_over_examples() -> None:
    network = flatten(build_network(MLP(hidden=(8,)), DIGITS, 0, CPU).module.double())
    inputs, targets = batch(DIGITS, 103, torch.float64)
    gradient = build_gradient(network, functional.cross_entropy)
    gradient(inputs, targets)
    expected, mean = network.gradient.clone(), torch.zeros_like(network.gradient)
    for index in range(103):
        gradient(inputs[index : index + 1], targets[index : index + 1])
        mean += network.gradient / 103
    torch.testing.assert_close(mean, expected, rtol=1e-11, atol=1e-15)


def test_batch_norm_sees_its_batch_whole() -> None:
    network = build_network(MLP(hidden=(8,), batch_norm=True), DIGITS, 0, CPU)
    inputs, targets = batch(DIGITS, 20)
    loss = build_gradient(replace(network, most_at_once=5), functional.cross_entropy)(inputs, targets)
    assert torch.equal(loss, build_gradient(network, functional.cross_entropy)(inputs, targets))


@pytest.mark.parametrize("size", [1, 7, 32, 64])
@pytest.mark.parametrize("facts", [DIGITS, NUMBERS], ids=["classes", "numbers"])
@pytest.mark.parametrize(
    "spec",
    [
        Logistic(),
        MLP(hidden=(16,)),
        MLP(hidden=(128, 128)),
        MLP(hidden=(16, 32, 16), activation="tanh"),
        MLP(hidden=(32, 16), activation="sigmoid"),
    ],
    ids=["logistic", "one", "two", "tanh", "sigmoid"],
)
def test_the_written_out_gradient_equals_autograd_to_the_last_bit(spec: Any, facts: DataFacts, size: int) -> None:
    network = build_network(spec, facts, 1, CPU)
    mean_loss = functional.cross_entropy if facts.classes else functional.mse_loss
    inputs, targets = batch(facts, size)
    kept = inputs.clone()
    written_out = closed_form(network.module, mean_loss)
    assert written_out is not None
    loss, gradient = written_out(inputs, targets), network.gradient.clone()
    assert torch.equal(inputs, kept)
    assert torch.equal(autograd_gradient(network, mean_loss)(inputs, targets), loss)
    assert torch.equal(network.gradient, gradient)
    assert float(gradient.abs().max()) > 0


@pytest.mark.parametrize("activation", ["relu", "tanh", "sigmoid"])
def test_odd_widths_agree_to_rounding(activation: Any) -> None:
    """Behind an odd width a weight starts at an odd address, where matrix products may add up in another order."""
    network = build_network(MLP(hidden=(9, 5, 3), activation=activation), DIGITS, 1, CPU)
    written_out = closed_form(network.module, functional.cross_entropy)
    assert written_out is not None
    inputs, targets = batch(DIGITS, 64)
    loss, gradient = written_out(inputs, targets), network.gradient.clone()
    torch.testing.assert_close(autograd_gradient(network, functional.cross_entropy)(inputs, targets), loss)
    torch.testing.assert_close(network.gradient, gradient)


@pytest.mark.parametrize(
    "spec",
    [MLP(dropout=0.1), MLP(batch_norm=True), MLP(activation="gelu"), CNN()],
    ids=["dropout", "norm", "gelu", "cnn"],
)
def test_other_networks_are_left_to_autograd(spec: Any) -> None:
    assert closed_form(build_network(spec, DIGITS, 0, CPU).module, functional.cross_entropy) is None


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    "spec",
    [
        Logistic(),
        *(MLP(activation=each, dropout=0.3) for each in ("relu", "tanh", "sigmoid", "gelu", "silu", "leaky_relu")),
        MLP(batch_norm=True),
        CNN(dropout=0.3, kernel_size=5),
    ],
)
def test_calling_layers_directly_changes_nothing(spec: Any, training: bool) -> None:
    network = build_network(spec, DIGITS, 2, CPU)
    network.module.train(training)
    inputs, _ = batch(DIGITS, 12)
    torch.default_generator.manual_seed(5)
    expected = network.module(inputs)
    torch.default_generator.manual_seed(5)
    assert torch.equal(network.forward(inputs), expected)


def test_parameters_are_views_of_one_buffer() -> None:
    network = build_network(MLP(hidden=(8,)), DIGITS, 0, CPU)
    with torch.no_grad():
        network.weights.fill_(2.0)
        network.gradient.fill_(3.0)
    assert all(bool((each == 2).all()) for each in network.module.parameters())
    assert all(each.grad is not None and bool((each.grad == 3).all()) for each in network.module.parameters())
    assert network.weights.numel() == sum(each.numel() for each in network.module.parameters())
