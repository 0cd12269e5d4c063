"""Many weights at once against a plain loop that puts one after the other into the network."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from core.engine.analysis import chunk_sizes, grid
from core.engine.analysis import directions as direction_module
from core.engine.analysis.directions import random_direction
from core.engine.analysis.evaluate_weights import WeightsEvaluator, one_by_one
from core.engine.analysis.grid import WeightGrid
from core.engine.analysis.matrix_products import BandedProduct, Im2colProduct, choose_product
from core.engine.analysis.stacked_network import stack_network
from core.engine.analysis.subject import AnalysisSubject
from core.recipe.data import DataSpec
from tests.train import tiny
from tests.train.precise import naive, subject
from tests.train.runs import job, no_trace

pytestmark = pytest.mark.usefixtures("one_thread")

Datasets = Callable[[str | DataSpec], Path]
FEW = {"name": "digits", "validation": 0.05, "test": 0.83}  # 215 train, so that a batch of 24 leaves a rest
MODELS: dict[str, dict[str, Any]] = {
    "logistic": {"name": "logistic"},
    "mlp": {"name": "mlp", "hidden": [9, 7], "activation": "gelu", "dropout": 0.5},
    "mlp with batch norm": {"name": "mlp", "hidden": [9, 7], "activation": "leaky_relu", "batch_norm": True},
    "cnn": {"name": "cnn", "channels": [3, 4, 3, 2], "hidden": [], "activation": "tanh", "batch_norm": False},
    "cnn with batch norm": {"name": "cnn", "channels": [3, 4], "hidden": [6], "dropout": 0.2},
    "cnn that reorders nothing": {"name": "cnn", "channels": [2], "kernel_size": 5, "activation": "silu"},
    "cnn of wide kernels": {"name": "cnn", "channels": [2, 3, 2, 3, 2], "kernel_size": 7, "hidden": [5]},
    "cnn of single pixels": {"name": "cnn", "channels": [3], "kernel_size": 1, "hidden": [], "batch_norm": False},
}


@pytest.mark.parametrize("size", [1, 3, 5])
@pytest.mark.parametrize("picture", [(4, 4), (1, 1), (5, 3), (2, 7)])
def test_both_ways_of_a_convolution(size: int, picture: tuple[int, int]) -> None:
    """Copied patches and bands, of pictures that lie in memory one way or the other, against torch."""
    draw = torch.Generator().manual_seed(0)
    matrices = torch.randn(3, 4, 2 * size**2, generator=draw, dtype=torch.float64)
    pictures = torch.randn(3, 2, *picture, 6, generator=draw, dtype=torch.float64)
    expected = torch.stack(
        [
            functional.conv2d(each.movedim(-1, 0), weight.view(4, 2, size, size), padding=size // 2).movedim(0, -1)
            for each, weight in zip(pictures, matrices, strict=True)
        ]
    )
    rows_first = pictures.transpose(1, 2).contiguous().transpose(1, 2)
    for way in (Im2colProduct(size), BandedProduct(size, picture[1])):
        prepared = way.prepare_matrices(matrices)
        for inputs in (pictures, rows_first, pictures[..., :4]):
            found = way.multiply_prepared(prepared, inputs)
            torch.testing.assert_close(found, expected[..., : inputs.shape[-1]], rtol=1e-12, atol=1e-12)


def test_narrow_pictures_go_by_bands_and_wide_ones_by_patches() -> None:
    assert isinstance(choose_product(torch.Size([32, 16, 3, 3]), 4, shared=False), BandedProduct)
    assert isinstance(choose_product(torch.Size([32, 16, 3, 3]), 4, shared=True), Im2colProduct)
    assert isinstance(choose_product(torch.Size([32, 16, 3, 3]), 28, shared=False), Im2colProduct)


def around(looked: AnalysisSubject, count: int, size: float = 0.3) -> Tensor:
    """Weights (count, P), the first of them the subject's own."""
    moves = [random_direction(looked.network, 3, number) * size * (number > 0) for number in range(count)]
    return torch.stack([looked.network.values + each for each in moves])


@pytest.mark.parametrize("reestimate", [False, True])
@pytest.mark.parametrize("model", MODELS)
def test_every_layer_gives_what_the_network_gives(
    model: str, reestimate: bool, datasets: Datasets, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In double, in chunks that divide nothing; the network, its statistics and torch's generator are as before."""
    looked = subject(job(model=MODELS[model], data=FEW), datasets("digits"))
    assert stack_network(looked.network, looked.parts["train"].inputs[:1])
    monkeypatch.setattr(chunk_sizes, "CPU", replace(chunk_sizes.CPU, columns=17, numbers=9000))
    weights, splits = around(looked, 5), ("train", "val")
    before = {name: each.clone() for name, each in looked.network.tensors().items()}
    with no_trace():
        found = WeightsEvaluator.for_subject(looked, splits, reestimate=reestimate).evaluate_weights(weights)
    after = looked.network.tensors()
    assert all(torch.equal(each, after[name]) for name, each in before.items())
    expected = naive(looked, weights.unbind(), splits, reestimate=reestimate)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("model", ["mlp with batch norm", "cnn with batch norm", "cnn"])
def test_in_single_precision(model: str, datasets: Datasets) -> None:
    spec = job(model=MODELS[model], data=FEW)
    looked = subject(spec, datasets("digits"), torch.float32)
    weights = around(looked, 40, size=0.1)
    found = WeightsEvaluator.for_subject(looked, ("train",), reestimate=False).evaluate_weights(weights)
    expected = naive(looked, weights.unbind(), ("train",))
    torch.testing.assert_close(found[..., 0], expected[..., 0], rtol=1e-5, atol=1e-5)
    assert (found[..., 1] - expected[..., 1]).abs().max() <= 1 / len(looked.parts["train"])  # two outputs were equal


def test_other_layers_go_through_the_network_itself() -> None:
    looked = tiny.classifier(convolution=True, batch_norm=True)
    assert stack_network(looked.network, looked.parts["train"].inputs[:1]) is None
    weights, before = around(looked, 3), [each.clone() for each in looked.network.module.state_dict().values()]
    judge = WeightsEvaluator.for_subject(looked, ("train",), reestimate=True)
    expected = naive(looked, weights.unbind(), ("train",), reestimate=True)
    torch.testing.assert_close(judge.evaluate_weights(weights), expected, rtol=1e-12, atol=1e-12)
    after = looked.network.module.state_dict().values()
    assert all(torch.equal(each, was) for each, was in zip(after, before, strict=True))


def test_numbers_are_judged_as_they_are_alone(datasets: Datasets) -> None:
    """Regression: the metrics of each weights are those of an evaluation of these alone."""
    looked = subject(job(model={"name": "mlp", "hidden": [8]}, data={"name": "diabetes"}), datasets("diabetes"))
    judge = WeightsEvaluator.for_subject(looked, ("train", "test"), reestimate=False)
    weights = around(looked, 4)
    assert set(judge.names) >= {"loss", "mae", "r2"}
    torch.testing.assert_close(judge.evaluate_weights(weights), one_by_one(judge, weights), rtol=1e-12, atol=1e-12)


def test_a_plane_is_surveyed_in_the_same_tiles_whoever_begins(
    datasets: Datasets, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The points of a plane are where its places say, row by row, and tiles hold some of them each."""
    looked = subject(job(data=FEW), datasets("digits"))
    directions = torch.stack([random_direction(looked.network, 0, number) for number in (0, 1)])
    plane = WeightGrid(
        looked.network.values,
        directions,
        tuple(direction_module.axis_places(*each) for each in (((-1, 1), 5), ((0, 3), 4))),
    )
    assert (plane.shape, plane.point_count) == ((4, 5), 20)
    x, y = plane.point_coordinates(7, 8)[0].tolist()
    assert (x, y) == (0.0, 1.0)  # row 1, column 2
    torch.testing.assert_close(plane.point_weights(7, 8)[0], looked.network.values + directions[1], rtol=0, atol=1e-15)
    judge = WeightsEvaluator.for_subject(looked, ("train",), reestimate=False)
    assert grid.points_in_tile(judge) == grid.MOST_POINTS
    monkeypatch.setattr(grid, "MOST_NUMBERS", 5 * len(looked.network.values))
    assert grid.points_in_tile(judge) == 5
    work = len(looked.parts["train"]) * looked.spec.model.multiply_adds(looked.spec.data.facts())
    monkeypatch.setattr(grid, "WORK", 3.5 * work)
    assert (grid.points_in_tile(judge), grid.tile_count(judge, plane)) == (3, 7)


def test_a_tile_is_the_same_on_every_device(datasets: Datasets) -> None:
    """Checkpoints count tiles and parts share them out: an analysis may go on elsewhere."""
    judge = WeightsEvaluator.for_subject(subject(job(data=FEW), datasets("digits")), ("train", "val"), reestimate=False)
    on_gpu = replace(judge, sizes=chunk_sizes.sizes_for("cuda", 80 << 30))
    assert on_gpu.sizes != judge.sizes
    assert grid.points_in_tile(on_gpu) == grid.points_in_tile(judge)
