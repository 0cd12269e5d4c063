"""The loss around weights, along one or two directions."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from core.engine.analysis.directions import axis_places, directions_between, normalise_direction, random_direction
from core.engine.analysis.evaluate_weights import WeightsEvaluator
from core.engine.analysis.grid import WeightGrid
from core.engine.analysis.landscape import directions_of
from core.engine.analysis.subject import AnalysisSubject
from core.engine.events import CheckpointWritten
from core.engine.failure import EngineError
from core.errors import InvalidSpec
from core.recipe.analyses.landscape import Landscape
from core.recipe.data import DataSpec
from core.recipe.spec import JobSpec
from tests.support.specs import analysis_of
from tests.train import tiny
from tests.train.looks import Look, kept
from tests.train.precise import subject
from tests.train.runs import Train, Watcher, job, no_trace

pytestmark = pytest.mark.usefixtures("one_thread")

Datasets = Callable[[str | DataSpec], Path]
JOB = "job_" + "0" * 26
ONE = {"checkpoint": "ckpt_" + "0" * 26}


def spec(**fields: Any) -> Landscape:
    where = {} if "checkpoints" in fields else {"job": JOB}
    found = analysis_of({"kind": "landscape", **where, **fields})
    assert isinstance(found, Landscape)
    return found


def trained(run: Train, **fields: object) -> tuple[JobSpec, CheckpointWritten]:
    made = job(**{"epochs": 1, **fields})
    return made, run(made)[1].checkpoints()[made.shape().run.total_steps]


def point(run: Train, data: dict[str, Any], start: list[float]) -> tuple[JobSpec, CheckpointWritten]:
    """A point that has hardly moved."""
    fields: dict[str, Any] = {"optimizer": {"name": "sgd", "lr": 1e-6}, "batch_size": "full", "epochs": 1}
    return trained(run, model={"name": "point", "start": start}, data={"name": "function", **data}, **fields)


def test_the_centre_is_the_loss_of_the_weights(run: Train, look: Look) -> None:
    """Train and test surface in one; the middle of the grid is what the weights themselves give, and so is `centre`."""
    ours, written = trained(run, model={"name": "cnn", "channels": [3], "hidden": []})
    with no_trace():
        found = look([(ours, written)], kind="landscape", splits=["train", "test"], steps=5, seed=4)
    numbers = found.numbers
    for split in ("train", "test"):
        for metric in ("loss", "accuracy"):
            surface = found.arrays[f"{split}.{metric}"]
            assert surface.shape == (5, 5)
            assert surface[2, 2] == pytest.approx(numbers["centre"][split][metric], abs=1e-6)
    assert numbers["centre"]["test"]["loss"] == pytest.approx(own_loss(run, ours), abs=1e-5)
    low = np.unravel_index(found.arrays["train.loss"].argmin(), (5, 5))
    assert numbers["surface"]["train"]["lowest"] == found.arrays["train.loss"].min()
    assert numbers["surface"]["train"]["at"] == [found.arrays["x"][low[1]], found.arrays["y"][low[0]]]
    assert (numbers["norm"], numbers["ignore"], numbers["bn"], numbers["seed"]) == ("filter", "biasbn", "fixed", 4)
    assert (numbers["points"], numbers["computed"], numbers["partial"]) == (25, 25, False)
    assert numbers["examples"] == {"train": 179, "test": 1438}
    assert abs(numbers["cosine"]) < 0.2
    again = look([(ours, written)], kind="landscape", steps=5, seed=5, bn="reestimate")
    assert not np.array_equal(again.arrays["train.loss"], found.arrays["train.loss"])


def own_loss(run: Train, ours: JobSpec) -> float:
    """What the job itself says of its last weights."""
    return float(run(ours)[0].results["base"]["test"]["loss"])


def rescaled(looked: AnalysisSubject, factor: float) -> None:
    """The same function of a ReLU network: the first layer times a factor, the next one by it (Dinh et al. 2017)."""
    first, second = (each for each in looked.network.module if isinstance(each, nn.Linear))
    with torch.no_grad():
        first.weight.mul_(factor)
        first.bias.mul_(factor)
        second.weight.div_(factor)


def surface(looked: AnalysisSubject, **fields: Any) -> Tensor:
    directions, _ = directions_of(spec(**fields), [looked])
    plane = WeightGrid(looked.network.values.clone(), directions, (axis_places((-1, 1), 5),) * 2)
    return WeightsEvaluator.for_subject(looked, ("train",), reestimate=False).evaluate_weights(
        plane.point_weights(0, 25)
    )[:, 0, 0]


@pytest.mark.parametrize("factor", [10, 0.1])
def test_filter_normalised_surfaces_do_not_see_how_weights_are_scaled(factor: float, datasets: Datasets) -> None:
    looked = subject(job(), datasets("digits"))
    before = {norm: surface(looked, norm=norm) for norm in ("filter", "layer", "none")}
    rescaled(looked, factor)
    after = {norm: surface(looked, norm=norm) for norm in ("filter", "layer", "none")}
    for norm in ("filter", "layer"):
        torch.testing.assert_close(after[norm], before[norm], rtol=1e-12, atol=1e-12)
    assert (after["none"] - before["none"]).abs().max() > 0.1
    assert after["none"][12] == pytest.approx(float(before["none"][12]), rel=1e-12)


def test_directions_are_as_long_as_the_filters(datasets: Datasets) -> None:
    model = {"name": "cnn", "channels": [3], "hidden": [5]}
    looked = subject(job(model=model), datasets("digits"))
    network = looked.network
    drawn = random_direction(network, 0, 0)
    pieces = {norm: normalise_direction(network, drawn, norm, "biasbn") for norm in ("filter", "layer", "none")}  # type: ignore[arg-type]
    start = 0
    for name, trainable in network.module.named_parameters():
        parameter = trainable.detach()
        rows = {norm: each[start : start + parameter.numel()].view(parameter.shape) for norm, each in pieces.items()}
        raw = drawn[start : start + parameter.numel()].view(parameter.shape)
        start += parameter.numel()
        if parameter.ndim == 1:
            assert all(not each.any() for each in rows.values()), name
            continue
        assert torch.equal(rows["none"], raw)
        assert float(rows["layer"].norm()) == pytest.approx(float(parameter.norm()))
        torch.testing.assert_close(rows["filter"].flatten(1).norm(dim=1), parameter.flatten(1).norm(dim=1))
        along = functional.cosine_similarity(rows["filter"].flatten(1), raw.flatten(1))
        torch.testing.assert_close(along, torch.ones_like(along))
    everything = normalise_direction(network, drawn, "filter", "nothing")
    bias = dict(network.module.named_parameters())["conv0.bias"].detach()
    place = bias.storage_offset()
    assert float(everything[place : place + len(bias)].norm()) == pytest.approx(float(bias.norm()))


def test_of_a_function_it_is_the_function(run: Train, look: Look) -> None:
    """A curve of x² along the only direction, and rosenbrock's surface in the plane through three points."""
    pair = point(run, {"function": "square"}, [1.5])
    found = look([pair], kind="landscape", dimensions=1, norm="none")
    (length,) = found.arrays["norms"]
    curves = [(1.5 + sign * length * found.arrays["x"]) ** 2 for sign in (1, -1)]
    assert min(np.abs(found.arrays["train.loss"] - each).max() for each in curves) < 1e-4
    assert found.arrays["train.loss"].shape == (51,)
    assert (found.numbers["norm"], found.numbers["cosine"]) == ("none", None)

    corners = [point(run, {"function": "rosenbrock"}, start) for start in ([0.0, 0.0], [1.0, 0.5], [0.5, 1.5])]
    weights = [load_file(f"{each.folder}/weights.safetensors")["point.weight"].double().numpy() for _, each in corners]
    found = look(corners, kind="landscape", directions="between", steps=9)
    x, y = np.meshgrid(found.arrays["x"], found.arrays["y"])
    d = weights[1] - weights[0]
    share = (weights[2] - weights[0]) @ d / (d @ d)
    e = weights[2] - weights[0] - share * d
    a, b = (weights[0][each] + x * d[each] + y * e[each] for each in (0, 1))
    np.testing.assert_allclose(found.arrays["train.loss"], (1 - a) ** 2 + 100 * (b - a**2) ** 2, rtol=1e-3, atol=1e-3)
    assert found.numbers["cosine"] == pytest.approx(0, abs=1e-6)
    np.testing.assert_allclose(found.arrays["at"], [[0, 0], [1, 0], [share, 1]], atol=1e-6)
    assert found.arrays["off"].max() < 1e-6


def test_along_an_eigenvector_the_loss_bends_as_its_eigenvalue_says() -> None:
    looked = tiny.classifier()
    directions, values = directions_of(spec(directions="eigen", dimensions=2), [looked])
    assert values is not None
    step = 1e-4
    judge = WeightsEvaluator.for_subject(looked, ("train",), reestimate=False)
    for direction, value in zip(directions, values.tolist(), strict=True):
        moved = torch.stack([looked.network.values + each * step * direction for each in (-1, 0, 1)])
        below, middle, above = judge.evaluate_weights(moved)[:, 0, 0].tolist()
        assert (below - 2 * middle + above) / step**2 == pytest.approx(value, rel=1e-4)


def test_several_checkpoints_make_a_plane_of_their_own(run: Train, look: Look) -> None:
    """pca: the first is the origin, all of them are on the picture, and the plane of three holds them."""
    ours = job(epochs=2, checkpoints={"every": "4st"})
    ways = list(run(ours)[1].checkpoints().values())
    pairs = [(ours, each) for each in ways[:3]]
    found = look(pairs, kind="landscape", directions="pca", steps=3)
    at = found.arrays["at"]
    assert at[0] == pytest.approx([0, 0], abs=1e-9)
    assert found.arrays["off"].max() < 1e-4 * np.abs(at).max()
    assert found.arrays["x"][0] < at[:, 0].min() < at[:, 0].max() < found.arrays["x"][-1]
    assert [each["step"] for each in found.numbers["subjects"]] == [each.step for _, each in pairs]
    same = [pairs[0], pairs[0], pairs[1]]
    ended = look(same, kind="landscape", directions="pca", steps=3).ended
    assert ended.error is not None
    assert "do not give 2 directions" in ended.error["message"]


def test_it_goes_on_where_it_was_stopped_and_keeps_what_a_cancelled_one_has(run: Train, look: Look) -> None:
    """The default grid is two tiles of this network; NaN where nothing was computed."""
    pair = trained(run)
    whole = look([pair], kind="landscape")
    assert whole.arrays["train.loss"].shape == (21, 21)
    stopped = look([pair], Watcher(stop_after=1), kind="landscape")
    (written,) = stopped.watcher.checkpoints().values()
    resumed = look([pair], resume=kept(written), kind="landscape")
    assert resumed.watcher.start == 1
    assert resumed.numbers == whole.numbers
    assert all(each.tobytes() == whole.arrays[name].tobytes() for name, each in resumed.arrays.items())

    cancelled = look([pair], Watcher(stop_after=1, request="cancel"), kind="landscape")
    assert (cancelled.ended.outcome, cancelled.numbers["partial"]) == ("cancelled", True)
    assert (cancelled.numbers["points"], cancelled.numbers["computed"]) == (441, 256)
    flat = cancelled.arrays["train.loss"].ravel()
    np.testing.assert_array_equal(flat[:256], whole.arrays["train.loss"].ravel()[:256])
    assert np.isnan(flat[256:]).all()
    assert math.isfinite(cancelled.numbers["surface"]["train"]["lowest"])


def test_weights_of_nothing_have_no_filters_to_measure_by(datasets: Datasets) -> None:
    looked = subject(job(), datasets("digits"))
    looked.network.values.zero_()
    with pytest.raises(EngineError, match="do not give 2 directions"):
        directions_of(spec(), [looked])
    assert directions_between([torch.zeros(2), torch.ones(2)]).tolist() == [[1, 1]]


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"checkpoints": [ONE, ONE]}, "/checkpoints"),
        ({"checkpoints": [ONE, ONE], "directions": "between"}, "/checkpoints"),
        ({"checkpoints": [ONE, ONE], "directions": "pca"}, "/checkpoints"),
        ({"directions": "between"}, "/job"),
        ({"directions": "eigen", "norm": "filter"}, "/norm"),
        ({"range": [1, 1]}, "/range"),
        ({"splits": ["train", "train"]}, "/splits"),
    ],
)
def test_what_makes_no_sense_by_itself(fields: dict[str, Any], pointer: str) -> None:
    with pytest.raises(InvalidSpec) as caught:
        spec(**fields)
    assert [each.pointer for each in caught.value.errors] == [pointer]


def test_what_makes_no_sense_for_a_job() -> None:
    def pointers(subject: JobSpec, **fields: Any) -> list[str]:
        return [each.pointer for each in spec(**fields).problems([subject])]

    function: dict[str, Any] = {"name": "function", "function": "square"}
    place = job(model={"name": "point", "start": [1.0]}, data=function, batch_size="full")
    assert pointers(job()) == []
    assert pointers(place, dimensions=1) == []
    assert pointers(place, dimensions=1, norm="filter") == ["/norm"]
    assert pointers(place) == ["/dimensions"]
    assert pointers(place, dimensions=1, splits=["train", "test"]) == ["/splits/1"]
    norms = job(model={"name": "mlp", "hidden": [8], "batch_norm": True})
    assert pointers(norms, bn="reestimate", examples=1) == ["/examples"]
    large = job(model={"name": "mlp", "hidden": [10_000, 10_000]})
    assert pointers(large) == []
    (problem,) = spec(steps=2001).problems([large])
    assert "hours of a CPU core" in problem.message
    many = spec(checkpoints=[ONE] * 64, directions="pca").problems([large])
    assert [each.message for each in many if "GiB" in each.message]
