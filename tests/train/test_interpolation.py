"""The loss on the line between weights, and the barrier on it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from core.engine.analysis.directions import axis_places
from core.engine.analysis.evaluate_weights import WeightsEvaluator
from core.engine.analysis.interpolation import compute_tensors, evaluate_between, find_barrier, report_numbers
from core.engine.analysis.progress import AnalysisProgress
from core.engine.events import CheckpointWritten
from core.recipe.analyses.interpolation import Interpolation
from core.recipe.data import DataSpec
from core.recipe.spec import JobSpec
from tests.support.specs import analysis_of
from tests.train.looks import Look, kept
from tests.train.precise import naive, subject
from tests.train.runs import Train, Watcher, job, no_trace
from tests.train.tiny import Bench, at

pytestmark = pytest.mark.usefixtures("one_thread")

Datasets = Callable[[str | DataSpec], Path]
NORMED = {"name": "cnn", "channels": [3, 4], "hidden": []}


def spec(**fields: Any) -> Interpolation:
    two = [{"checkpoint": "ckpt_" + "0" * 26}] * 2
    found = analysis_of({"kind": "interpolation", "checkpoints": two, **fields})
    assert isinstance(found, Interpolation)
    return found


def point(run: Train, function: str, start: list[float]) -> tuple[JobSpec, CheckpointWritten]:
    """One that has hardly moved."""
    data: dict[str, Any] = {"name": "function", "function": function}
    fields: dict[str, Any] = {"optimizer": {"name": "sgd", "lr": 1e-6}, "batch_size": "full", "epochs": 1}
    made = job(model={"name": "point", "start": start}, data=data, **fields)
    return made, run(made)[1].checkpoints()[1]


@pytest.mark.parametrize("model", [{"name": "mlp", "hidden": [8]}, NORMED])
@pytest.mark.parametrize("bn", ["reestimate", "fixed"])
def test_every_point_is_what_its_weights_give(model: dict[str, Any], bn: str, datasets: Datasets) -> None:
    """In double, against one after the other; running statistics estimated, or on the line like the weights."""
    ends = [subject(job(model=model, seed=seed), datasets("digits")) for seed in (0, 1)]
    alphas = torch.tensor([-0.5, 0.0, 0.3, 1.0, 1.5], dtype=torch.float64)
    judge = WeightsEvaluator.for_subject(ends[0], ("train", "val"), reestimate=bn == "reestimate")
    found = evaluate_between(judge, spec(bn=bn), ends, alphas)
    first, second = (each.network for each in ends)
    weights = [first.values + a * (second.values - first.values) for a in alphas.tolist()]
    names = [name for name, _ in first.module.named_buffers()]
    buffers = [dict(each.module.named_buffers()) for each in (first, second)]
    lines = [{name: (1 - a) * buffers[0][name] + a * buffers[1][name] for name in names} for a in alphas.tolist()]
    floors = [[each.clamp(min=0) if "var" in name else each for name, each in line.items()] for line in lines]
    fixed = floors if bn == "fixed" else None
    expected = naive(ends[0], weights, ("train", "val"), reestimate=bn == "reestimate", statistics=fixed)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_the_ends_are_the_checkpoints_themselves(run: Train, look: Look) -> None:
    """SGD's weights and their average: with statistics of its own each gives what its job said of it."""
    ours = job(model=NORMED, epochs=4, swa={"start": "0.5run"}, metrics=["accuracy"])
    ended, watcher = run(ours)
    last = watcher.checkpoints()[ours.shape().run.total_steps]
    (swa,) = watcher.checkpoints("swa").values()
    with no_trace():
        found = look([(ours, last), (ours, swa)], kind="interpolation", steps=5)
    numbers, alphas = found.numbers, found.arrays["alpha"].tolist()
    assert alphas == [-0.5, 0.0, 0.5, 1.0, 1.5]
    assert numbers["splits"] == ["train", "val", "test"]
    for weights, own in zip(("base", "swa"), numbers["subjects"], strict=True):
        assert own["test"]["loss"] == pytest.approx(ended.results[weights]["test"]["loss"], rel=1e-4)
    assert numbers["subjects"][1]["kind"] == "swa"
    # the average was given statistics just so
    assert found.arrays["test.loss"][0, 3] == pytest.approx(numbers["subjects"][1]["test"]["loss"], rel=1e-4)
    assert found.arrays["test.accuracy"][0, 3] == pytest.approx(numbers["subjects"][1]["test"]["accuracy"], abs=1e-3)
    tensors = [load_file(f"{each.folder}/weights.safetensors") for each in (last, swa)]
    names = [name for name in tensors[0] if "running" not in name and "num_" not in name and "standard" not in name]
    apart = torch.cat([(tensors[1][name] - tensors[0][name]).flatten() for name in names]).double().norm()
    assert numbers["pairs"][0]["distance"] == pytest.approx(float(apart), rel=1e-5)
    assert numbers["pairs"][0]["same_seed"]


def test_the_barrier_of_a_double_well(run: Train, look: Look) -> None:
    """Between -1 and 1 the function is (x² - 1)²/4 + 0.15 x: a barrier of a quarter, in the middle; then back again."""
    ways = [point(run, "double_well", [x]) for x in (-1.0, 1.0, -1.0)]
    found = look(ways, kind="interpolation", steps=41)
    x = 2 * found.arrays["alpha"] - 1
    np.testing.assert_allclose(found.arrays["train.loss"][0], (x**2 - 1) ** 2 / 4 + 0.15 * x, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found.arrays["train.loss"][1], (x**2 - 1) ** 2 / 4 - 0.15 * x, rtol=1e-4, atol=1e-4)
    for pair in found.numbers["pairs"]:
        assert pair["barrier"]["train"] == pytest.approx({"height": 0.25, "alpha": 0.5, "loss": 0.25}, rel=1e-4)
    assert [(pair["from"], pair["to"]) for pair in found.numbers["pairs"]] == [
        ("subject 0", "subject 1"),
        ("subject 1", "subject 2"),
    ]


def test_a_barrier_is_above_the_line_between_the_ends() -> None:
    alphas = torch.tensor([-0.5, 0.0, 0.25, 0.5, 1.0, 1.5])
    downhill = torch.tensor([9.0, 4.0, 3.0, 2.0, 0.0, 7.0])
    assert find_barrier(alphas, downhill) == {"height": 0.0, "alpha": 0.0, "loss": 4.0}
    hill = torch.tensor([9.0, 4.0, 3.5, 3.0, 0.0, 7.0])
    assert find_barrier(alphas, hill) == {"height": 1.0, "alpha": 0.5, "loss": 3.0}
    assert find_barrier(alphas, torch.where(alphas == 0.5, torch.nan, hill)) is None
    assert find_barrier(alphas, torch.where(alphas > 1, torch.inf, hill)) is not None


def test_it_goes_on_where_it_was_stopped(run: Train, look: Look) -> None:
    pairs = [(job(seed=seed, epochs=1), run(job(seed=seed, epochs=1))[1].checkpoints()[8]) for seed in (0, 1, 2)]
    whole = look(pairs, kind="interpolation", range=[0, 1], steps=4)
    assert len(whole.arrays["alpha"]) == 4
    assert not whole.numbers["pairs"][0]["same_seed"]
    stopped = look(pairs, Watcher(stop_after=1), kind="interpolation", range=[0, 1], steps=4)
    (written,) = stopped.watcher.checkpoints().values()
    resumed = look(pairs, resume=kept(written), kind="interpolation", range=[0, 1], steps=4)
    assert (resumed.watcher.start, resumed.numbers) == (1, whole.numbers)
    cancelled = look(pairs, Watcher(stop_after=1, request="cancel"), kind="interpolation", range=[0, 1], steps=4)
    assert cancelled.numbers["pairs"][0] == whole.numbers["pairs"][0]
    assert cancelled.numbers["pairs"][1]["barrier"]["train"] is None
    assert np.isnan(cancelled.arrays["val.accuracy"][1]).all()


def test_the_ends_are_on_every_grid(run: Train, look: Look) -> None:
    found = look([point(run, "square", [x]) for x in (0.0, 2.0)], kind="interpolation", range=[0.4, 0.6], steps=2)
    assert found.arrays["alpha"].tolist() == [0.0, 0.4, 0.6, 1.0]
    assert {name: found.numbers[name] for name in ("steps", "places", "added")} == {
        "steps": 2,
        "places": 4,
        "added": [0.0, 1.0],
    }
    assert found.numbers["pairs"][0]["barrier"]["train"]["height"] == 0.0


@pytest.mark.parametrize(
    ("stretch", "steps", "added"),
    [
        ([-0.5, 1.5], 41, []),
        ([-0.5, 1.5], 11, [0.0, 1.0]),
        ([-0.5, 1.0], 4, []),
        ([0.0, 0.7], 8, [1.0]),
        ([-0.3, 1.3], 17, []),  # 0 and 1 are on it but for rounding
        ([-0.1, 1.1], 13, []),
        ([-1.1, 2.3], 35, []),
    ],
)
def test_as_many_places_as_asked_for_and_the_ends(
    run: Train, look: Look, stretch: list[float], steps: int, added: list[float]
) -> None:
    """What comes besides is told."""
    ways = [point(run, "square", [x]) for x in (0.0, 2.0)]
    found = look(ways, kind="interpolation", range=stretch, steps=steps)
    alphas = found.arrays["alpha"].tolist()
    assert (found.numbers["steps"], found.numbers["places"], found.numbers["added"]) == (steps, len(alphas), added)
    assert len(alphas) == steps + len(added)
    assert {0.0, 1.0} <= set(alphas)
    assert sorted(set(alphas) - set(added)) == pytest.approx(np.linspace(*stretch, steps))


def test_one_that_an_earlier_release_has_begun_keeps_its_places() -> None:
    """That one had 0 and what is 0 but for rounding side by side; the first pair of three is done."""
    subjects = [at([x], lambda place: (place**2).sum()) for x in (0.0, 1.0, 3.0)]
    three = [{"checkpoint": "ckpt_" + "0" * 26}] * 3
    asked = spec(range=[-0.3, 1.3], steps=17, splits=["train"], checkpoints=three)
    alphas = sorted({*axis_places(asked.range, asked.steps).tolist(), 0.0, 1.0})
    assert len(alphas) > 17
    analysis_progress, done = Bench(), torch.full((2, len(alphas)), torch.nan, dtype=torch.float64)
    done[0] = torch.tensor(alphas) ** 2
    analysis_progress.found, analysis_progress.done = (
        {"alpha": torch.tensor(alphas, dtype=torch.float64), "train.loss": done},
        1,
    )
    found = compute_tensors(asked, subjects, cast("AnalysisProgress", analysis_progress))
    assert found["alpha"].tolist() == alphas
    torch.testing.assert_close(found["train.loss"][1], (1 + 2 * found["alpha"]) ** 2)
    assert report_numbers(asked, subjects, found)["places"] == len(alphas)


def test_what_makes_no_sense_for_a_job() -> None:
    data: dict[str, Any] = {"name": "digits", "test": 0.0}
    norms = job(model={"name": "mlp", "hidden": [8], "batch_norm": True}, data=data)
    assert [each.pointer for each in spec(splits=["test"]).problems([norms, norms])] == ["/splits/0"]
    assert [each.pointer for each in spec(examples=1).problems([norms, norms])] == ["/examples"]
    assert [each.pointer for each in spec().problems([norms, job()])] == ["/checkpoints/1"]
    assert spec().splits_of(norms) == ("train", "val")
