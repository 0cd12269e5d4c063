"""What the engine does with the layers of any module: norms by the one table, short ways only where they are right."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from core.engine.analysis.chunk_sizes import count_activations
from core.engine.analysis.curvature import Curvature
from core.engine.analysis.directions import random_direction
from core.engine.analysis.loss_surface import LossSurface
from core.engine.analysis.stacked_network import stack_network
from core.engine.datasets.resident import TensorSplit
from core.engine.evaluation.batch_norm import reestimate_batch_norm
from core.engine.gradients.gradient import build_gradient
from core.engine.gradients.same_batch import frozen_bn_stats
from core.engine.networks import norms
from core.engine.networks.network import Network, flatten
from tests.train.looks import Look
from tests.train.modules import PICTURES, SPECS, doubled, examples, own_job
from tests.train.runs import Train

pytestmark = pytest.mark.usefixtures("one_thread")
EVERY = pytest.mark.parametrize("name", SPECS)


def test_the_table_has_every_norm_layer_of_torch() -> None:
    named = {each for name, each in vars(nn).items() if "Norm" in name and not name.startswith("Lazy")}
    assert len(named) >= 11
    assert named - set(norms.NORM_LAYERS) == set()


@pytest.mark.parametrize(
    ("layer", "mixes", "keeps"),
    [
        (nn.BatchNorm3d(2), True, True),
        (nn.BatchNorm1d(2, track_running_stats=False), True, False),
        (nn.InstanceNorm2d(2, track_running_stats=True), False, True),
        (nn.InstanceNorm2d(2), False, False),
        (nn.LayerNorm(2), False, False),
        (nn.Linear(2, 2), False, False),
    ],
    ids=str,
)
def test_what_a_norm_layer_does(layer: nn.Module, mixes: bool, keeps: bool) -> None:
    class Own(type(layer)):  # type: ignore[misc]
        """A subclass is what it comes from, but for its arithmetic."""

    layer = nn.Sequential(nn.Identity(), layer)
    assert (norms.mixes_batch(layer), bool(norms.running_norms(layer))) == (mixes, keeps)
    assert norms.is_foldable(layer[1]) == (mixes and keeps)
    layer[1].__class__ = Own
    assert (norms.mixes_batch(layer), bool(norms.running_norms(layer))) == (mixes, keeps)
    assert not norms.is_foldable(layer[1])


def plain_loss(network: Network, inputs: Tensor, targets: Tensor) -> Callable[[Tensor], Tensor]:
    """The mean loss as a function of the flat weights (P,), by torch's own functional call."""
    shapes = {name: each.shape for name, each in network.module.named_parameters()}

    def loss(weights: Tensor) -> Tensor:
        cut = torch.split(weights, [shape.numel() for shape in shapes.values()])
        named = {name: each.view(shape) for (name, shape), each in zip(shapes.items(), cut, strict=True)}
        return functional.cross_entropy(functional_call(network.module, named, (inputs,)), targets)

    return loss


@EVERY
def test_derivatives_of_any_module_are_those_of_autograd(name: str) -> None:
    """Loss, gradient and a product with the Hessian, through attention and shared weights too."""
    network, (inputs, targets) = doubled(name), examples()
    network.module.train()(inputs)
    network.module.eval()
    surface = LossSurface(network, TensorSplit(inputs, targets), functional.cross_entropy, room=2**15)
    assert len(surface.chunk_sizes) > 1
    weights, vector = network.values.clone(), random_direction(network, 0, 1)
    loss = plain_loss(network, inputs, targets)
    with sdpa_kernel(SDPBackend.MATH):
        value, product = torch.autograd.functional.hvp(loss, weights, vector)
        slope = torch.autograd.functional.jacobian(loss, weights)
    assert surface.loss_at(weights) == pytest.approx(float(value), rel=1e-12)
    torch.testing.assert_close(surface.loss_and_gradient(weights)[1], slope, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(Curvature(surface, weights).hessian_product(vector), product, rtol=1e-8, atol=1e-10)


def test_the_memory_of_a_module_counts_all_that_it_computes() -> None:
    """A matrix product, an addition of a constant and a sum: 5 + 5 + 1 numbers; views are none."""

    class Summed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(3, 5, bias=False)

        def forward(self, inputs: Tensor) -> Tensor:
            outputs: Tensor = (self.linear(inputs).unflatten(1, (5, 1)).flatten(1) + 1).sum(1, keepdim=True)
            return outputs

    assert count_activations(flatten(Summed()), torch.ones(1, 3)) == 11


@EVERY
def test_an_analysis_looks_at_any_module(run_own: Train, look: Look, name: str) -> None:
    """Surface and sharpness; the middle of the surface is the checkpoint's own loss."""
    spec = own_job(name, epochs=1)
    _, watcher = run_own(spec)
    written = watcher.checkpoints()[8]
    norm = "reestimate" if name == "residual" else "fixed"
    surface = look([(spec, written)], kind="landscape", splits=["val"], steps=3, bn=norm)
    assert surface.ended.outcome == "succeeded"
    assert surface.numbers["parameters"] == SPECS[name].parameter_count(PICTURES)
    assert surface.numbers["bn"] == (norm if name == "residual" else None)
    if name != "residual":
        assert surface.arrays["val.loss"][1, 1] == pytest.approx(written.metrics["val.loss"], rel=1e-6)
    for kind in ("sharpness", "gradient_noise"):
        assert look([(spec, written)], kind=kind).ended.outcome == "succeeded", kind


def shared_layers() -> nn.Sequential:
    """Two linear layers with one weight and a bias each, as autoencoders have them."""
    first, second = nn.Linear(4, 4), nn.Linear(4, 4)
    second.weight = first.weight
    return nn.Sequential(first, nn.ReLU(), second)


def hooked() -> nn.Sequential:
    """The hook doubles what the first layer gives."""
    module = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    module[0].register_forward_hook(lambda _layer, _inputs, outputs: 2 * outputs)
    return module


def repeated() -> nn.Sequential:
    """One layer in two places."""
    layer = nn.Linear(4, 4)
    return nn.Sequential(layer, nn.Tanh(), layer)


@pytest.mark.parametrize("make", [shared_layers, hooked, repeated])
def test_a_stack_that_is_more_than_its_layers_takes_no_short_way(make: Callable[[], nn.Sequential]) -> None:
    """What writes the arithmetic of layers out would lose a hook, or half of a shared weight's gradient."""
    module = make().double()
    plain, network = deepcopy(module), flatten(module)
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(10, 4, generator=generator, dtype=torch.float64)
    targets = torch.randint(4, (10,), generator=generator)
    expected = functional.cross_entropy(plain(inputs), targets)
    expected.backward()  # type: ignore[no-untyped-call]
    loss = build_gradient(network, functional.cross_entropy)(inputs, targets)
    torch.testing.assert_close(loss, expected.detach(), rtol=1e-12, atol=0)
    slopes = torch.cat([each.grad.flatten() for each in plain.parameters() if each.grad is not None])
    torch.testing.assert_close(network.gradient, slopes, rtol=1e-10, atol=1e-14)
    surface = LossSurface(network, TensorSplit(inputs, targets), functional.cross_entropy)
    torch.testing.assert_close(surface.loss_and_gradient(network.values.clone())[1], slopes, rtol=1e-10, atol=1e-14)
    assert stack_network(network, inputs[:1]) is None


def test_a_running_instance_norm_is_estimated_and_left_alone() -> None:
    """Its statistics go with the weights; a pass that does not count leaves them as they are, to the last bit."""
    network = flatten(nn.Sequential(nn.InstanceNorm1d(3, track_running_stats=True, affine=True), nn.Flatten()))
    inputs = torch.randn(30, 3, 7, generator=torch.Generator().manual_seed(0))
    layer: Any = network.module[0]  # type: ignore[index]
    reestimate_batch_norm(network, TensorSplit(inputs, torch.zeros(len(inputs))), 8)
    torch.testing.assert_close(layer.running_mean, inputs.mean((0, 2)), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(layer.running_var, inputs.var(2).mean(0), rtol=1e-5, atol=1e-6)
    before = [each.clone() for each in network.buffers]
    expected = functional.instance_norm(inputs)
    with frozen_bn_stats(network.module.train()):
        torch.testing.assert_close(network.module(inputs).unflatten(1, (3, 7)), expected)
    assert all(torch.equal(own, was) for own, was in zip(network.buffers, before, strict=True))
    assert all(own is there for own, there in zip(network.buffers, network.module.buffers(), strict=True))


def test_a_frozen_batch_norm_goes_by_its_statistics_where_nothing_counts() -> None:
    """A module may keep a layer in evaluation mode while it trains."""
    layer = nn.BatchNorm1d(3)
    layer(torch.randn(9, 3) * 2 + 1)
    layer.eval()
    inputs = torch.randn(5, 3)
    expected = layer(inputs)
    with frozen_bn_stats(nn.Sequential(layer)):
        assert torch.equal(layer(inputs), expected)
