"""What a run reports, in which order, and how it ends."""

from typing import Any

import pytest

from core.engine.events import CheckpointWritten, Log, PointsLogged, RunProgress, Started
from tests.support.specs import rate_of
from tests.train.runs import Train, Watcher, digests, job, no_trace


def test_series_follow_the_step_convention(run: Train) -> None:
    spec = job(schedule={"name": "linear", "warmup": "4st"}, evaluate={"every": "10st"})
    ending, watcher = run(spec)
    series, rate = watcher.series(), rate_of(spec)
    assert set(series) == {"train.loss", "lr", "val.loss", "val.accuracy", "test.loss", "test.accuracy"}
    assert [t for t, _ in series["train.loss"]] == list(range(24))
    assert series["lr"] == [(t, rate(t)) for t in range(24)]
    assert [step for step, _ in series["val.loss"]] == [10, 20, 24]
    assert [step for step, _ in series["test.loss"]] == [24]
    assert ending.results == {
        "base": {
            split: {name: series[f"{split}.{name}"][-1][1] for name in ("loss", "accuracy")}
            for split in ("val", "test")
        }
    }


def test_events_come_in_order(run: Train) -> None:
    ending, watcher = run(job(checkpoints={"every": "8st"}, swa=True))
    first, last = watcher.events[0], watcher.events[-1]
    assert isinstance(first, Started)
    assert (first.step, first.parameters) == (0, 64 * 16 + 16 + 16 * 10 + 10)
    assert isinstance(last, CheckpointWritten)
    assert (last.step, last.kind, last.resumable) == (24, "last", True)
    kinds = [(each.kind, each.step, each.epoch) for each in watcher.events if isinstance(each, CheckpointWritten)]
    assert kinds == [("last", 8, 1), ("last", 16, 2), ("swa", 24, 3), ("last", 24, 3)]
    for checkpoint in watcher.checkpoints().values():
        earlier = watcher.events[: watcher.events.index(checkpoint)]
        steps = [
            t for each in earlier if isinstance(each, PointsLogged) for t in each.series.get("train.loss", ([],))[0]
        ]
        assert steps == list(range(checkpoint.step))
    assert (ending.outcome, ending.stop_reason, ending.error) == ("succeeded", "completed", None)
    assert ending.progress["fraction"] == 1.0
    assert not any(isinstance(each, Log) for each in watcher.events)


def test_progress_counts(run: Train) -> None:
    _, watcher = run(job(steps=20))
    final = watcher.progress()[-1]
    assert isinstance(final, RunProgress)
    assert (final.step, final.steps, final.epoch, final.epochs, final.fraction) == (20, 20, 2, 3, 1.0)
    assert final.metrics["val.accuracy"] == watcher.series()["val.accuracy"][-1][1]
    assert final.loss == watcher.series()["train.loss"][-1][1]
    assert [each.step for each in watcher.progress()] == sorted(each.step for each in watcher.progress())


def test_cancel_ends_at_once_without_a_checkpoint(run: Train) -> None:
    ending, watcher = run(job(), Watcher(stop_after=5, request="cancel"))
    assert (ending.outcome, ending.stop_reason, ending.results) == ("cancelled", "cancelled", {})
    assert watcher.checkpoints() == {}
    assert [t for t, _ in watcher.series()["train.loss"]] == list(range(5))


def test_the_same_job_has_the_same_bits_and_another_seed_has_others(run: Train) -> None:
    model = {"name": "cnn", "channels": [4], "hidden": [8], "dropout": 0.1}
    with no_trace():
        (_, one), (_, two), (_, other) = (run(job(model=model, seed=seed)) for seed in (5, 5, 6))
    assert one.series() == two.series() != other.series()
    first, second, third = (digests(each.checkpoints()[24]) for each in (one, two, other))
    assert first == second
    assert first["weights"] != third["weights"]


def test_seeds_of_weights_and_order_are_separate(run: Train) -> None:
    same_start = job(model={"name": "mlp", "hidden": [16], "init": {"seed": 9}}, seed=1)
    other_order = job(model={"name": "mlp", "hidden": [16], "init": {"seed": 9}}, seed=2)
    (_, one), (_, other) = run(same_start, checkpoint_seconds=0.0), run(other_order)
    assert one.series()["train.loss"] != other.series()["train.loss"]
    full = [job(batch_size="full", model=each.model.dump(), seed=each.seed) for each in (same_start, other_order)]
    (_, three), (_, four) = run(full[0]), run(full[1])
    assert three.series()["train.loss"] == four.series()["train.loss"]


@pytest.mark.parametrize(
    "scheme", ["kaiming_normal", "kaiming_uniform", "xavier_normal", "xavier_uniform", "orthogonal", "zeros"]
)
def test_every_start_trains(run: Train, scheme: str) -> None:
    ending, _ = run(job(model={"name": "mlp", "hidden": [16], "init": {"scheme": scheme}}, epochs=1))
    assert ending.outcome == "succeeded"


@pytest.mark.parametrize(
    ("fields", "least"),
    [
        ({"data": {"name": "digits"}, "model": {"name": "cnn", "channels": [8, 16]}, "epochs": 4}, 0.95),
        ({"data": {"name": "breast_cancer"}, "model": {"name": "logistic"}, "epochs": 20}, 0.93),
        ({"data": {"name": "wine"}, "optimizer": {"name": "adamw", "lr": 0.01}, "epochs": 20}, 0.9),
        ({"data": {"name": "iris"}, "optimizer": {"name": "rmsprop", "lr": 0.01}, "epochs": 30}, 0.9),
    ],
    ids=["digits", "breast_cancer", "wine", "iris"],
)
def test_it_learns_classes(run: Train, fields: dict[str, Any], least: float) -> None:
    ending, _ = run(job(**fields))
    assert ending.results["base"]["test"]["accuracy"] >= least


def test_it_learns_numbers(run: Train) -> None:
    """Least squares reaches r² of about 0.5 and an error of about 43 on this data."""
    spec = job(data={"name": "diabetes"}, model={"name": "logistic"}, optimizer={"name": "adam", "lr": 0.05}, epochs=20)
    ending, watcher = run(spec)
    assert ending.results["base"]["test"]["r2"] > 0.35
    assert 35 < ending.results["base"]["test"]["mae"] < 52
    assert set(watcher.series()) >= {"val.loss", "val.mae", "val.r2"}


def test_the_demo_reaches_its_accuracy(run: Train) -> None:
    spec = job(
        model={"name": "mlp", "hidden": [128, 128]},
        data={"name": "digits", "split_seed": 0},
        optimizer={"name": "sgd", "lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 5e-4},
        batch_size=32,
        schedule={"name": "cosine", "warmup": "1ep"},
        swa=True,
        epochs=30,
    )
    ending, _ = run(spec)
    assert ending.results["swa"]["test"]["accuracy"] >= 0.96


def test_nothing_held_out_means_no_series_of_it(run: Train) -> None:
    ending, watcher = run(job(data={"name": "iris", "validation": 0.0, "test": 0.0}, swa=True))
    assert ending.results == {}
    assert set(watcher.series()) == {"train.loss", "lr"}


def test_metrics_are_those_that_the_job_names(run: Train) -> None:
    ending, _ = run(job(data={"name": "diabetes"}, metrics=["r2"]))
    assert set(ending.results["base"]["val"]) == {"loss", "r2"}
