"""The way of a run in a plane."""

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

from core.engine.analysis.directions import centred_shares, principal_directions, project_moves
from core.engine.events import CheckpointWritten
from core.recipe.spec import JobSpec
from tests.support.specs import analysis_of
from tests.train.looks import Look, Looked, kept
from tests.train.runs import Train, Watcher, job, no_trace

pytestmark = pytest.mark.usefixtures("one_thread")

Kept = list[tuple[JobSpec, CheckpointWritten]]
Array = NDArray[np.float64]


def descent(run: Train, function: dict[str, Any], start: list[float], lr: float = 0.1) -> Kept:
    """Fifteen steps of a point, every third kept."""
    data = {"name": "function", **function}
    fields: dict[str, Any] = {"optimizer": {"name": "sgd", "lr": lr}, "batch_size": "full", "epochs": 15}
    made = job(model={"name": "point", "start": start}, data=data, checkpoints={"every": "3st"}, **fields)
    return [(made, each) for each in run(made)[1].checkpoints().values()]


def weights(pairs: Kept) -> Array:
    """(checkpoints, P)"""
    skipped = ("running", "num_batches", "standardize")
    found = [load_file(f"{each.folder}/weights.safetensors") for _, each in pairs]
    rows = [[each[name].flatten() for name in sorted(each) if not any(s in name for s in skipped)] for each in found]
    return np.stack([torch.cat(row).double().numpy() for row in rows])


def path(found: Looked) -> Array:
    return np.array([each["at"] for each in found.numbers["path"]])


def test_it_is_a_principal_component_analysis_around_the_last_weights(run: Train, look: Look) -> None:
    """Of a point in three dimensions, against numpy's SVD; in the plane and from it distances are those of weights."""
    pairs = descent(run, {"function": "quadratic", "h": [1, 4, 7]}, [3.0, -2.0, 1.0])
    with no_trace():
        found = look(pairs, kind="trajectory", steps=4)
    places = weights(pairs)
    moves = places[:-1] - places[-1]
    _, lengths, _ = np.linalg.svd(moves)
    np.testing.assert_allclose(found.numbers["explained"], (lengths**2 / (lengths**2).sum())[:2], rtol=1e-6)
    _, centred, _ = np.linalg.svd(places - places.mean(0))
    np.testing.assert_allclose(found.numbers["centred"], (centred**2 / (centred**2).sum())[:2], rtol=1e-6)
    at, off = path(found), np.array([each["off"] for each in found.numbers["path"]])
    np.testing.assert_allclose((at[:-1] ** 2).sum(1) + off[:-1] ** 2, (moves**2).sum(1), rtol=1e-5)
    assert (off[:-1] ** 2).sum() == pytest.approx(lengths[2] ** 2, rel=1e-3)
    assert at[-1] == pytest.approx([0, 0], abs=1e-12)
    assert at[0, 0] > 0
    assert found.numbers["cosine"] == pytest.approx(0, abs=1e-6)
    losses = [each["train"]["loss"] for each in found.numbers["path"]]
    np.testing.assert_allclose(losses, (places**2 * [1, 4, 7]).sum(1) / 2, rtol=1e-5)
    assert [each["step"] for each in found.numbers["path"]] == [each.step for _, each in pairs]


def test_the_surface_is_that_of_the_plane(run: Train, look: Look) -> None:
    """In two dimensions the plane is everything: no way is off it, and the surface is the function itself."""
    pairs = descent(run, {"function": "himmelblau"}, [0.5, 4.0], lr=0.005)
    found = look(pairs, kind="trajectory", steps=7, margin=0.5)
    places, at = weights(pairs), path(found)
    axes, *_ = np.linalg.lstsq(at, places - places[-1], rcond=None)  # at @ axes = moves
    x, y = np.meshgrid(found.arrays["x"], found.arrays["y"])
    a, b = (places[-1][each] + x * axes[0, each] + y * axes[1, each] for each in (0, 1))
    np.testing.assert_allclose(found.arrays["train.loss"], (a**2 + b - 11) ** 2 + (a + b**2 - 7) ** 2, rtol=1e-3)
    assert max(each["off"] for each in found.numbers["path"]) < 1e-5
    spread = at.max(0) - at.min(0)
    np.testing.assert_allclose(
        found.numbers["axes"][1]["range"], [at[:, 1].min() - spread[1] / 2, at[:, 1].max() + spread[1] / 2]
    )


def test_a_line_has_one_direction(run: Train, look: Look) -> None:
    """One weight, or two checkpoints, or all of them on a line."""
    found = look(descent(run, {"function": "double_well"}, [2.0]), kind="trajectory", steps=5)
    assert found.arrays["train.loss"].shape == (5,)
    assert found.numbers["explained"] == pytest.approx([1.0])
    straight = descent(run, {"function": "quadratic", "h": [1, 1]}, [3.0, 4.0])
    found = look(straight, kind="trajectory", steps=0)
    assert path(found).shape == (len(straight), 1)
    assert np.diff(path(found)[:, 0]).max() < 0
    assert (found.numbers["surface"], found.numbers["points"]) == ({}, 0)
    assert "train.loss" not in found.arrays
    still = look(straight[:1] * 3, kind="trajectory")
    assert still.ended.error is not None
    assert "do not move" in still.ended.error["message"]
    alone = look(straight[:1], kind="trajectory")
    assert alone.ended.error is not None
    assert "keep_last" in alone.ended.error["remedy"]


def test_of_a_network_with_its_average_beside(run: Train, look: Look) -> None:
    """Batch norm is estimated again in the plane; the average is drawn but not followed; random axes show little."""
    model = {"name": "mlp", "hidden": [8], "batch_norm": True}
    ours = job(model=model, swa={"start": "0.5run"}, epochs=4, checkpoints={"every": "1ep", "keep_last": 9})
    _, watcher = run(ours)
    ways = [(ours, each) for each in watcher.checkpoints().values()]
    (swa,) = watcher.checkpoints("swa").values()
    assert len(ways) == 4
    found = look([*ways, (ours, swa)], kind="trajectory", steps=3, splits=["train", "test"])
    (average,) = found.numbers["averages"]
    assert (average["kind"], len(found.numbers["path"])) == ("swa", len(ways))
    assert average["test"]["loss"] > 0
    assert (found.numbers["bn"], found.numbers["norm"]) == ("reestimate", "none")
    assert np.isfinite(found.arrays["test.accuracy"]).all()

    stopped = look([*ways, (ours, swa)], Watcher(stop_after=1, request="checkpoint"), kind="trajectory", steps=3)
    (written,) = stopped.watcher.checkpoints().values()
    resumed = look([*ways, (ours, swa)], resume=kept(written), kind="trajectory", steps=3)
    np.testing.assert_array_equal(resumed.arrays["train.loss"], found.arrays["train.loss"])

    random = look([*ways, (ours, swa)], kind="trajectory", directions="random", steps=0)
    moved = [np.hypot(*each["at"]) for each in random.numbers["path"][:-1]]
    assert random.numbers["explained"] is None
    assert all(each["off"] > 0 for each in random.numbers["path"][:-1])
    assert np.isfinite(moved).all()


def test_projections_are_least_squares() -> None:
    """Onto axes that are not square to each other: what is in the plane is put together from them, the rest is off."""
    axes = torch.tensor([[1.0, 0.0, 0.0, 0.0], [1.0, 1.0, 0.0, 0.0]])
    moves = torch.tensor([[2.0, 3.0, 0.0, 0.0], [1.0, 0.0, 3.0, 4.0]])
    at, off = project_moves(moves, axes)
    torch.testing.assert_close(at, torch.tensor([[-1.0, 3.0], [1.0, 0.0]], dtype=torch.float64))
    torch.testing.assert_close(off, torch.tensor([0.0, 5.0], dtype=torch.float64))
    found, shares = principal_directions(torch.tensor([[0.0, -3.0, 0.0], [1.0, 0.0, 0.0]]), 2)
    torch.testing.assert_close(found[0], torch.tensor([0.0, -1.0, 0.0]))
    torch.testing.assert_close(found[1].abs(), torch.tensor([1.0, 0.0, 0.0]))
    torch.testing.assert_close(shares, torch.tensor([0.9, 0.1], dtype=torch.float64))
    line = torch.tensor([[2.0, 0.0], [1.0, 0.0]])
    assert centred_shares(line)[0] == pytest.approx(1.0)
    assert len(principal_directions(line, 2)[0]) == 1


def test_what_makes_no_sense() -> None:
    whole = {"kind": "trajectory", "job": "job_" + "0" * 26}
    one = analysis_of({**whole, "steps": 1, "splits": ["val"]})
    data = {"name": "function", "function": "square"}
    place = job(model={"name": "point", "start": [1.0]}, data=data, batch_size="full")
    assert [each.pointer for each in one.problems([place] * 2)] == ["/steps", "/splits/0"]
    plain = analysis_of(whole)
    assert [each.pointer for each in plain.problems([place])] == ["/job"]
    large = job(model={"name": "mlp", "hidden": [3000, 3000]})
    assert list(plain.problems([large] * 10)) == []
    assert [each.pointer for each in plain.problems([large] * 100)] == ["/job"]
