"""A point on a function goes the way that arithmetic says, under the engine that trains everything else."""

import math
from itertools import pairwise
from typing import Any

import pytest
from safetensors.torch import load_file

from core.engine.events import CheckpointWritten, Ended
from core.recipe.catalog import component_classes
from tests.train.runs import Train, Watcher, digests, job

Place = tuple[float, ...]
DOUBLE_WELL = {"function": "double_well", "noise": {"scale": 1.5, "examples": 20}}


def spec(data: dict[str, Any], start: list[float], **fields: Any) -> Any:
    """Plain gradient descent on the full batch, evaluated once, unless `fields` say otherwise."""
    base: dict[str, Any] = {
        "optimizer": {"name": "sgd", "lr": 0.1},
        "batch_size": "full",
        "evaluate": {"every": "1run"},
    }
    given = {**base, "epochs": None, **fields}
    return job(model={"name": "point", "start": start}, data={"name": "function", **data}, **given)


def way(watcher: Watcher) -> list[Place]:
    """Where the point was at steps 0, 1, …"""
    series = watcher.series()
    columns = [series[name] for name in sorted(series) if name.startswith("point.")]
    assert all([step for step, _ in column] == list(range(len(columns[0]))) for column in columns)
    return list(zip(*([value for _, value in column] for column in columns), strict=True))


def descended(run: Train, data: dict[str, Any], start: list[float], **fields: Any) -> list[Place]:
    ending, watcher = run(spec(data, start, **fields))
    assert ending.outcome == "succeeded"
    return way(watcher)


@pytest.mark.parametrize(
    ("name", "place", "gradient"),
    [
        ("square", (1.5,), (3.0,)),
        ("saddle", (0.5, 2.0), (0.5, 6.0)),
        ("double_well", (2.0,), (6.15,)),
        ("sharp_flat", (-1.0,), (0.9 * math.exp(-0.5),)),  # nothing of the sharp minimum reaches so far
        ("rosenbrock", (-1.0, 2.0), (396.0, 200.0)),
        ("beale", (1.0, 2.0), (171.25, 278.0)),  # 2 (2.5 + 3 · 5.25 + 7 · 9.625), 2 (2.5 + 4 · 5.25 + 12 · 9.625)
        ("himmelblau", (1.0, 2.0), (-36.0, -32.0)),
        ("quadratic", (2.0, -1.0, 0.5), (2.0, -10.0, 1.5)),
    ],
)
def test_a_step_goes_against_the_gradient(run: Train, name: str, place: Place, gradient: Place) -> None:
    lr = 2.0**-10
    data = {"function": name, **({"h": [1, 10, 3]} if name == "quadratic" else {})}
    before, after = descended(run, data, list(place), steps=1, optimizer={"name": "sgd", "lr": lr})
    assert before == place
    assert [(a - b) / lr for a, b in zip(before, after, strict=True)] == pytest.approx(gradient, rel=1e-3)


@pytest.mark.parametrize(
    ("place", "name"),
    [((3.0, 0.5), "beale"), ((1.0, 1.0), "rosenbrock"), ((3.0, 2.0), "himmelblau"), ((0.0, 0.0), "saddle")],
)
def test_where_the_gradient_is_zero_nothing_moves(run: Train, place: Place, name: str) -> None:
    assert set(descended(run, {"function": name}, list(place), steps=5)) == {place}


def test_descent_on_a_quadratic_is_its_closed_form(run: Train) -> None:
    """x_t = (1 - lr h)^t x_0 along each axis."""
    h, start, lr = [1.0, 4.0, -0.5], [1.0, -2.0, 0.25], 0.2
    places = descended(run, {"function": "quadratic", "h": h}, start, steps=30, optimizer={"name": "sgd", "lr": lr})
    for t, place in enumerate(places):
        expected = [(1 - lr * curvature) ** t * x for curvature, x in zip(h, start, strict=True)]
        assert place == pytest.approx(expected, rel=1e-5, abs=1e-9)
    assert len(places) == 31


@pytest.mark.parametrize("momentum", [0.0, 0.8])
@pytest.mark.parametrize(("share", "stable"), [(0.99, True), (1.01, False)])
def test_steps_are_stable_below_two_over_the_curvature(run: Train, momentum: float, share: float, stable: bool) -> None:
    """Lr < 2 (1 + momentum) / L."""
    lr = share * 2 * (1 + momentum) / 5.0
    optimizer = {"name": "sgd", "lr": lr, "momentum": momentum}
    places = descended(run, {"function": "quadratic", "h": [5]}, [1.0], steps=300, optimizer=optimizer)
    assert (abs(places[-1][0]) < 1e-2) is stable
    assert (abs(places[-1][0]) > 1e2) is not stable


@pytest.mark.parametrize(("kappa", "plain", "heavy"), [(10, 71, 27), (100, 709, 95), (1000, 7082, 321)])
def test_momentum_accelerates_a_narrow_valley(run: Train, kappa: int, plain: int, heavy: int) -> None:
    """Steps to |x| < 1e-6 from (1, 1) at the best rates: 2 / (L + 1), and with momentum 4 / (√L + 1)² (Polyak 1964).

    In float32 a count may be off by one.
    """
    root = math.sqrt(kappa)
    ball = {"lr": 4 / (root + 1) ** 2, "momentum": ((root - 1) / (root + 1)) ** 2}
    data = {"function": "quadratic", "h": [1, kappa]}
    for steps, options in ((plain, {"lr": 2 / (kappa + 1)}), (heavy, ball)):
        places = descended(run, data, [1.0, 1.0], steps=steps + 1, optimizer={"name": "sgd", **options})
        first = next(t for t, place in enumerate(places) if math.hypot(*place) < 1e-6)
        assert abs(first - steps) <= 1


@pytest.mark.parametrize("name", sorted(set(component_classes("optimizers")) - {"muon"}))
def test_every_optimizer_moves_a_point(run: Train, name: str) -> None:
    """But Muon, which wants matrices. Where the point ends is what the checkpoint holds, or an average of the way."""
    extra = {"optimizer": "lion"} if name == "pytorch_optimizer" else {}
    one = spec({"function": "himmelblau"}, [1.0, 1.0], steps=3, optimizer={"name": name, "lr": 1e-3, **extra})
    ending, watcher = run(one)
    places = way(watcher)
    assert len(set(places)) == 4
    kept = place_of(watcher.checkpoints()[3])
    assert tuple(kept) == places[-1] or one.optimizer.averages
    assert all(min(axis) <= each <= max(axis) for each, axis in zip(kept, zip(*places, strict=True), strict=True))
    assert ending.results["base"]["train"]["loss"] < 106.0  # as at the start: (1 + 1 - 11)² + (1 + 1 - 7)²


SADDLE = {"function": "saddle", "noise": [[0, 0.1], [0, -0.1], [0, 0.05], [0, -0.05]]}


def test_descent_stays_on_the_ridge_of_a_saddle(run: Train) -> None:
    """Exactly: noise that sums to zero adds not one bit to the full batch."""
    places = descended(run, SADDLE, [1.0, 0.0], steps=500)
    assert {y for _, y in places} == {0.0}
    assert abs(places[-1][0]) < 1e-20


def test_a_hair_beside_the_ridge_takes_188_steps(run: Train) -> None:
    """Y grows by 1.1 a step: ln(0.5 / 1e-8) / ln 1.1 = 186, and a little more where y⁴ begins to count."""
    places = descended(run, SADDLE, [1.0, 1e-8], steps=188)
    assert [y > 0.5 for _, y in places[-2:]] == [False, True]


@pytest.mark.parametrize("seed", range(3))
def test_one_example_at_a_time_leaves_the_ridge(run: Train, seed: int) -> None:
    places = descended(run, SADDLE, [1.0, 0.0], steps=400, batch_size=1, seed=seed)
    assert abs(abs(places[-1][1]) - 1) < 0.1


def test_one_example_escapes_where_the_full_batch_stays(run: Train) -> None:
    """From 1.2 down to the local minimum 0.9143, or over the hill to the global one at -1.0679."""
    fields: dict[str, Any] = {
        "epochs": 300,
        "optimizer": {"name": "sgd", "lr": 0.2},
        "schedule": {"name": "linear", "start_factor": 1, "end_factor": 0},
    }
    full = descended(run, DOUBLE_WELL, [1.2], **fields)
    assert full[-1][0] == pytest.approx(0.9142973, abs=1e-4)
    for seed in range(2):
        one = descended(run, DOUBLE_WELL, [1.2], batch_size=1, seed=seed, **fields)
        assert len(one) == 6001
        assert one[-1][0] == pytest.approx(-1.0679230, abs=0.02)


@pytest.mark.parametrize(("lr", "stays"), [(0.044, True), (0.046, False)])
def test_a_sharp_minimum_holds_below_its_threshold(run: Train, lr: float, stays: bool) -> None:
    """Its curvature is 44.42, and 2 / 44.42 = 0.0450."""
    places = descended(run, {"function": "sharp_flat"}, [1.51], steps=400, optimizer={"name": "sgd", "lr": lr})
    assert (abs(places[-1][0] - 1.499844884) < 1e-6) is stays


def test_the_full_batch_is_the_function_itself(run: Train) -> None:
    """Noise or none, the same bits: of every place, and of every loss."""
    noisy = {"function": "saddle", "noise": [[0.1, 0.7], [0.2, -0.4], [-0.3, -0.3], [0, 0]]}
    (_, one), (_, other) = (
        run(spec(data, [0.3, 0.7], steps=25, evaluate={"every": 1})) for data in (noisy, {"function": "saddle"})
    )
    assert one.series() == other.series()


@pytest.mark.parametrize("batch", [1, 2])
def test_a_batch_adds_the_mean_of_its_own_examples(run: Train, batch: int) -> None:
    """On flat ground, h = 0, a step is -lr times it. An epoch sees every example once and ends where it began."""
    data = {"function": "quadratic", "h": [0], "noise": [[1], [2], [4], [-7]]}
    places = descended(run, data, [0.0], epochs=3, batch_size=batch, optimizer={"name": "sgd", "lr": 0.5})
    moves = [-2 * batch * (after[0] - before[0]) for before, after in pairwise(places)]
    per_epoch = 4 // batch
    for start in range(0, 3 * per_epoch, per_epoch):
        epoch = moves[start : start + per_epoch]
        assert sum(epoch) == 0
        assert sorted(epoch) == [-7, 1, 2, 4] or (batch == 2 and abs(epoch[0]) in {3, 5, 6})
    assert {places[epoch * per_epoch] for epoch in range(4)} == {(0.0,)}


def test_losses_are_those_of_the_batch_and_of_the_function(run: Train) -> None:
    """At 2, f_i = 4 ± 2: the batch loss is that before the step; f itself is evaluated after it."""
    ending, watcher = run(
        spec({"function": "square", "noise": [[1], [-1]]}, [2.0], steps=2, batch_size=1, evaluate={"every": 1})
    )
    (_, first), (_, second) = watcher.series()["train.loss"]
    places = [x for (x,) in way(watcher)]
    assert first in {2.0, 6.0}
    assert places[1] == pytest.approx(2 - 0.1 * (4 + (first - 4) / 2))
    assert second == pytest.approx(places[1] ** 2 - (first - 4) / 2 * places[1], rel=1e-6)
    assert watcher.series()["function.loss"] == [(1, pytest.approx(places[1] ** 2)), (2, pytest.approx(places[2] ** 2))]
    assert ending.results == {"base": {"train": {"loss": pytest.approx(places[2] ** 2)}}}


def test_an_average_is_judged_by_the_function_too(run: Train) -> None:
    """SWA from step 6 of 8 on, every step: the mean of three places. EMA: m ← (m + x) / 2."""
    swa, ema = {"start": 6, "every": 1, "lr": 0.1}, {"decay": 0.5, "with_swa": True}
    ending, watcher = run(spec({"function": "square"}, [1.0], steps=8, swa=swa, ema=ema))
    follower = 0.8  # the first place that it sees
    for t in range(2, 9):
        follower = (follower + 0.8**t) / 2
    assert ending.results["ema"]["train"]["loss"] == pytest.approx(follower**2, rel=1e-5)
    mean = (0.8**6 + 0.8**7 + 0.8**8) / 3
    assert ending.results["swa"]["train"]["loss"] == pytest.approx(mean**2, rel=1e-5)
    assert ending.results["base"]["train"]["loss"] == pytest.approx(0.8**16, rel=1e-5)
    assert place_of(watcher.checkpoints("swa")[8]) == pytest.approx([mean], rel=1e-5)
    assert place_of(watcher.checkpoints()[8]) == pytest.approx([0.8**8], rel=1e-5)


def place_of(checkpoint: CheckpointWritten) -> list[float]:
    tensors = load_file(f"{checkpoint.folder}/weights.safetensors")
    assert set(tensors) == {"point.weight"}
    place: list[float] = tensors["point.weight"].tolist()
    return place


def test_early_stopping_watches_the_function(run: Train) -> None:
    """At rate 1 the point jumps between 1 and -1: no evaluation after the first improves, the third such ends it."""
    fields: dict[str, Any] = {
        "optimizer": {"name": "sgd", "lr": 1.0},
        "early_stopping": {"monitor": "function.loss", "patience": 3},
        "evaluate": {"every": 1},
    }
    ending, watcher = run(spec({"function": "square"}, [1.0], steps=50, **fields))
    assert (ending.stop_reason, ending.progress["step"]) == ("early_stopping", 4)
    assert ending.results["best"] == ending.results["base"] == {"train": {"loss": 1.0}}
    assert place_of(watcher.checkpoints("best")[1]) == [-1.0]


def bumpy() -> Any:
    return spec(
        {"function": "himmelblau", "noise": {"scale": 5, "examples": 12}},
        [0.5, -0.5],
        steps=40,
        batch_size=5,
        log_every=3,
        optimizer={"name": "adam", "lr": 0.1},
        evaluate={"every": 7},
        checkpoints={"every": 9},
        swa={"start": 20, "every": 4},
    )


def test_a_resume_goes_the_same_way(run: Train) -> None:
    """Places at windows of three steps, and none twice, however often it was interrupted."""
    ending, whole = run(bumpy())
    assert [step for step, _ in whole.series()["point.y"]] == [0, *range(3, 40, 3), 40]
    pieces: list[Watcher] = []
    ended: Ended | None = None
    last: CheckpointWritten | None = None
    for steps in (1, 1, 9, 7, 0):
        ended, piece = run(bumpy(), Watcher(stop_after=steps), resume=last)
        pieces.append(piece)
        last = max(piece.checkpoints().items())[1]
    joined: dict[str, list[tuple[int, float]]] = {}
    for piece in pieces:
        for name, points in piece.series().items():
            joined.setdefault(name, []).extend(points)
    assert joined == whole.series()
    assert ended is not None
    assert ended.results == ending.results
    assert digests(pieces[-1].checkpoints()[40]) == digests(whole.checkpoints()[40])


def test_a_point_that_flies_off_ends_like_any_other_job(run: Train) -> None:
    """Where the loss is no number any more, the way ends."""
    ending, watcher = run(spec({"function": "rosenbrock"}, [5.0, 5.0], steps=50, optimizer={"name": "sgd", "lr": 1.0}))
    assert (ending.outcome, ending.stop_reason) == ("failed", "non_finite")
    series = watcher.series()
    bad, loss = series["train.loss"][-1]
    assert not math.isfinite(loss)
    assert [step for step, _ in series["point.x"]] == list(range(bad + 1))
