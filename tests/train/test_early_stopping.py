"""Patience counts evaluations, exactly; the best weights are what a run reports, however it ended."""

import math
from typing import Any

import pytest
import torch

from core.engine.events import CheckpointWritten
from core.engine.networks.network import build_network
from core.engine.weights.best import BestWeights
from core.recipe.facts import DataFacts
from core.recipe.models.mlp import MLP
from core.recipe.stopping import EarlyStopping
from tests.train.runs import Script, Train, Watcher, digests, job

NORMED = {"name": "mlp", "hidden": [12], "batch_norm": True, "dropout": 0.1}
NOISY = {"name": "sgd", "lr": 0.5, "momentum": 0.9}
FACTS = DataFacts(examples=9, input_shape=(4,), task="classification", outputs=3)


@pytest.mark.parametrize(
    ("policy", "losses", "expected"),
    [
        # evaluations at steps 2, 4, 6, …; 3.0, 2.0 improve, then exactly three do not
        ({"patience": 3}, [3.0, 2.0, 2.5, 2.0, 2.1], (10, 4)),
        # an improvement starts the count again
        ({"patience": 3}, [3.0, 4.0, 4.0, 2.9, 3.0, 3.0, 3.0], (14, 8)),
        # 0.05 less is not enough of an improvement
        ({"patience": 2, "min_delta": 0.1}, [3.0, 2.95, 2.91], (6, 2)),
        # evaluations before step 7 do not count, not even as the best
        ({"patience": 2, "start_from": "7st"}, [1.0, 5.0, 5.0, 3.0, 4.0, 4.0], (12, 8)),
        ({"patience": 1}, [1.0, 1.0], (4, 2)),
        ({"patience": 2, "mode": "max"}, [1.0, 2.0, 2.0, 1.5], (8, 4)),
    ],
)
def test_it_stops_after_exactly_so_many(
    run: Train, script: Script, policy: dict[str, Any], losses: list[float], expected: tuple[int, int]
) -> None:
    stops, best = expected
    script(losses)
    ending, watcher = run(job(evaluate={"every": "2st"}, early_stopping=policy))
    assert (ending.outcome, ending.stop_reason) == ("succeeded", "early_stopping")
    assert ending.progress["step"] == stops
    assert ending.progress["fraction"] == pytest.approx(stops / 24)
    assert [t for t, _ in watcher.series()["train.loss"]] == list(range(stops))
    assert [step for step, _ in watcher.series()["val.loss"]] == list(range(2, stops + 1, 2))
    assert max(watcher.checkpoints()) == stops
    assert list(watcher.checkpoints("best")) == [best]
    assert ending.results["best"]["val"]["loss"] == losses[best // 2 - 1]


def test_a_budget_that_is_spent_first_is_completed(run: Train, script: Script) -> None:
    """Three epochs of eight steps: the evaluation that ends patience is the run's last one."""
    script([1.0, 2.0, 2.0])
    ending, _ = run(job(early_stopping={"patience": 2}))
    assert (ending.stop_reason, ending.progress["step"]) == ("completed", 24)


@pytest.mark.parametrize("restore", [True, False])
def test_the_best_weights_are_those_of_their_step(run: Train, restore: bool) -> None:
    """Found again by hand: the first smallest validation loss, and the weights and buffers that stood there."""
    policy = {"patience": 4, "restore_best": restore}
    fields: dict[str, Any] = {"model": NORMED, "optimizer": NOISY, "evaluate": {"every": "3st"}, "epochs": 30}
    spec = job(**fields, early_stopping=policy)
    _, free = run(job(**fields), checkpoint_seconds=0.0)
    ending, watcher = run(spec)

    best, wait, stop = (0, math.inf), 0, 240
    for step, loss in free.series()["val.loss"]:
        best, wait = ((step, loss), 0) if loss < best[1] else (best, wait + 1)
        if wait == 4:
            stop = step
            break
    assert stop < 240, "this job must stop early, or it shows nothing"
    assert (ending.stop_reason, ending.progress["step"]) == ("early_stopping", stop)
    for name, points in watcher.series().items():
        if not name.startswith(("test.", "best.")):
            last = stop if name.startswith("val.") else stop - 1
            assert points == [point for point in free.series()[name] if point[0] <= last], name
    kept = watcher.checkpoints("best")[best[0]]
    assert digests(kept)["weights"] == digests(free.checkpoints()[best[0]])["weights"]
    assert digests(watcher.checkpoints()[stop])["weights"] == digests(free.checkpoints()[stop])["weights"]

    assert ending.results["best"]["val"]["loss"] == best[1]
    assert (ending.results["base"] == ending.results["best"]) == restore
    assert ending.results["base"]["val"]["loss"] == (best[1] if restore else watcher.series()["val.loss"][-1][1])
    tested = ending.results["base"]["test"]["loss"]
    assert watcher.series()["test.loss"] == [(stop, tested)]
    assert watcher.series()["best.test.loss"] == [(stop, ending.results["best"]["test"]["loss"])]
    assert kept.metrics == {f"{split}.{n}": v for split, m in ending.results["best"].items() for n, v in m.items()}
    assert (kept.epoch, kept.manifest["monitor"]) == (best[0] // 8, "val.loss")
    assert ("test.loss" in watcher.checkpoints()[stop].metrics) != restore


def test_a_run_that_stopped_early_ends_at_once_when_resumed(run: Train, script: Script) -> None:
    spec = job(evaluate={"every": "2st"}, early_stopping={"patience": 1})
    script([1.0, 2.0])
    ending, watcher = run(spec)
    again, second = run(spec, resume=watcher.checkpoints()[4])
    assert (again.stop_reason, again.results) == ("early_stopping", ending.results)
    assert second.series() == {}
    assert second.checkpoints() == second.checkpoints("best") == {}


def test_best_goes_out_with_each_resumable_checkpoint_once(run: Train, script: Script) -> None:
    """Improvements at 2 and 6, checkpoints every 4 steps; those at 12, 16 and 20 have nothing new to say."""
    script([3.0, 3.0, 2.0, 2.5])
    spec = job(evaluate={"every": "2st"}, checkpoints={"every": "4st"}, early_stopping={"patience": 99})
    _, watcher = run(spec)
    order = [(each.kind, each.step) for each in watcher.events if isinstance(each, CheckpointWritten)]
    expected = [("best", 2), ("last", 4), ("best", 6), ("last", 8), ("last", 12), ("last", 16), ("last", 20)]
    assert order == [*expected, ("best", 6), ("last", 24)]


def test_who_cancels_keeps_the_best(run: Train, script: Script) -> None:
    script([1.0, 2.0])
    spec = job(evaluate={"every": "2st"}, early_stopping={"patience": 9})
    ending, watcher = run(spec, Watcher(stop_after=5, request="cancel"))
    found = {"val": {"loss": 1.0, "accuracy": 0.5}}
    assert (ending.outcome, ending.stop_reason) == ("cancelled", "cancelled")
    assert ending.results == {"base": found, "best": found}
    assert list(watcher.checkpoints("best")) == [2]
    assert watcher.checkpoints() == {}


def test_who_diverges_keeps_the_best(run: Train) -> None:
    spec = job(
        data={"name": "diabetes"},
        optimizer={"name": "sgd", "lr": 1.0, "momentum": 0.9},
        evaluate={"every": "1st"},
        early_stopping={"patience": 10**6},
        epochs=50,
    )
    ending, watcher = run(spec)
    assert (ending.outcome, ending.stop_reason) == ("failed", "non_finite")
    values = {loss: step for step, loss in reversed(watcher.series()["val.loss"])}
    assert ending.results["base"]["val"]["loss"] == min(value for value in values if math.isfinite(value))
    assert list(watcher.checkpoints("best")) == [values[ending.results["base"]["val"]["loss"]]]


def test_what_is_no_number_never_improves() -> None:
    network, own = (build_network(MLP(hidden=(4,)), FACTS, seed, torch.device("cpu")) for seed in (0, 1))
    best = BestWeights(EarlyStopping(patience=3), own, 0)
    verdicts = [
        best.record_evaluation(done, value, network) for done, value in enumerate([math.nan, 5.0, math.nan, math.inf])
    ]
    assert verdicts == [False, True, False, False]
    assert not best.is_exhausted
    assert not best.record_evaluation(4, 5.0, network)
    assert best.is_exhausted


def test_patience_survives_a_round_trip() -> None:
    spec = MLP(hidden=(4,), batch_norm=True)
    trained, own, other = (build_network(spec, FACTS, seed, torch.device("cpu")) for seed in (0, 1, 2))
    best = BestWeights(EarlyStopping(patience=3), own, 0)
    trained.module[2].running_mean.fill_(7.0)
    best.record_evaluation(1, 5.0, trained)
    best.record_evaluation(2, 6.0, trained)
    again = BestWeights(EarlyStopping(patience=3), other, 0)
    again.restore({name: each.clone() for name, each in best.tensors().items()})
    assert again.tensors().keys() == best.tensors().keys()
    assert all(torch.equal(each, best.tensors()[name]) for name, each in again.tensors().items())
    assert again.step == 1
    assert torch.equal(again.network.weights, trained.weights)
    assert again.network.module[2].running_mean.tolist() == [7.0] * 4
    assert [again.record_evaluation(3, 5.0, trained), again.is_exhausted] == [False, False]
    assert [again.record_evaluation(4, 5.5, trained), again.is_exhausted] == [False, True]
