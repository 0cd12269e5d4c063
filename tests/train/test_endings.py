"""What ends a run before its budget, at exactly the step at which it should; and what plateau hears until then."""

from typing import Any

import pytest

from tests.train.runs import Script, Train, Watcher, digests, job

NORMED = {"name": "mlp", "hidden": [12], "batch_norm": True, "dropout": 0.1}


class Timed(Watcher):
    """Its clock has moved by a second whenever a step is over."""

    def clock(self) -> float:
        return float(self.steps)


def steps(watcher: Watcher, series: str) -> list[int]:
    return [step for step, _ in watcher.series().get(series, [])]


def test_stop_lr_ends_the_run_before_the_first_step_below_it(run: Train) -> None:
    """0.1 for ten steps, 0.01 for ten; the evaluation at the end is an extra one, the others come every eight steps."""
    spec = job(schedule={"name": "step", "step_size": 10}, stop_lr=0.02)
    ending, watcher = run(spec)
    assert (ending.outcome, ending.stop_reason, ending.progress["step"]) == ("succeeded", "stop_lr", 10)
    assert steps(watcher, "train.loss") == list(range(10))
    assert steps(watcher, "val.loss") == [8, 10]
    assert steps(watcher, "test.loss") == [10]
    again, second = run(spec, resume=watcher.checkpoints()[10])
    assert (again.stop_reason, again.results, second.series()) == ("stop_lr", ending.results, {})


def test_warm_up_is_not_too_low(run: Train) -> None:
    spec = job(schedule={"name": "step", "step_size": 10, "warmup": 6}, stop_lr=0.02)
    assert run(spec)[0].progress["step"] == 16


def test_plateau_reduces_and_stop_lr_ends_the_run(run: Train, script: Script) -> None:
    """Evaluations at 2, 4, 6, …: no better at 4 and 6 (0.05 from step 6 on), better at 8, no better at 10 and 12."""
    script([3.0, 3.0, 3.0, 2.0, 2.0, 2.0])
    plateau = {"name": "plateau", "patience": 2, "factor": 0.5}
    ending, watcher = run(job(schedule=plateau, evaluate={"every": "2st"}, stop_lr=0.03))
    assert (ending.stop_reason, ending.progress["step"]) == ("stop_lr", 12)
    assert watcher.series()["lr"] == [(t, 0.1 if t < 6 else 0.05) for t in range(12)]


def test_what_plateau_heard_survives_every_interruption(run: Train) -> None:
    """Real evaluations of a noisy run; with cooldown, warm-up, and both kinds of patience."""
    spec = job(
        model=NORMED,
        optimizer={"name": "sgd", "lr": 0.5, "momentum": 0.9},
        schedule={"name": "plateau", "patience": 2, "factor": 0.5, "cooldown": 1, "warmup": 4},
        evaluate={"every": "3st"},
        early_stopping={"patience": 9},
        epochs=9,
    )
    ending, whole = run(spec)
    total = ending.progress["step"]
    assert len({rate for t, rate in whole.series()["lr"] if t >= 4}) > 2, "it has to be reduced, or it shows nothing"
    for stop in range(1, total, 4):
        _, first = run(spec, Watcher(stop_after=stop))
        again, second = run(spec, resume=first.checkpoints()[stop])
        assert first.series()["lr"] + second.series()["lr"] == whole.series()["lr"]
        assert (again.stop_reason, again.results) == (ending.stop_reason, ending.results)
        assert digests(second.checkpoints()[total]) == digests(whole.checkpoints()[total])


@pytest.mark.parametrize(
    ("target", "losses", "step"),
    [
        ({"metric": "val.loss", "value": 2.0}, [3.0, 2.5, 2.0, 1.0], 6),
        ({"metric": "val.loss", "value": 1.9}, [3.0, 2.5, 2.0, 1.0], 8),
        ({"metric": "val.accuracy", "value": 0.5}, [3.0], 2),
    ],
)
def test_a_target_ends_the_run_where_it_is_reached(
    run: Train, script: Script, target: dict[str, Any], losses: list[float], step: int
) -> None:
    script(losses)
    ending, watcher = run(job(target=target, evaluate={"every": "2st"}, early_stopping={"patience": 1}))
    assert (ending.outcome, ending.stop_reason, ending.progress["step"]) == ("succeeded", "target", step)
    assert steps(watcher, "test.loss") == [step]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({}, "completed"),
        ({"schedule": {"name": "step", "step_size": 11}, "stop_lr": 0.02}, "stop_lr"),
        ({"target": {"metric": "val.accuracy", "value": 0.0}, "evaluate": {"every": "9st"}}, "target"),
        ({"epochs": None, "seconds": 13}, "time_limit"),
    ],
)
def test_the_best_weights_are_returned_however_a_run_ends(
    run: Train, script: Script, fields: dict[str, Any], reason: str
) -> None:
    """The first evaluation is the best one, and the run goes on for a while."""
    script([1.0, 2.0, 2.0, 2.0, 2.0])
    watcher = Timed()
    ending, _ = run(job(**{"early_stopping": True} | fields), watcher, clock=watcher.clock)
    (best,) = watcher.checkpoints("best").values()
    assert (ending.stop_reason, best.step) == (reason, 9 if reason == "target" else 8)
    assert ending.results["base"] == ending.results["best"]
    assert ending.results["base"]["val"]["loss"] == 1.0
    assert watcher.series()["test.loss"] == [(ending.progress["step"], ending.results["best"]["test"]["loss"])]
    assert ending.progress["step"] > best.step or reason == "target"


@pytest.mark.parametrize("value", [0.5, 1.0])
def test_a_target_out_of_reach_and_one_at_the_very_end(run: Train, script: Script, value: float) -> None:
    script([3.0, 3.0, 1.0])
    ending, _ = run(job(target={"metric": "val.loss", "value": value}))
    assert (ending.stop_reason, ending.progress["step"]) == ("completed", 24)


def test_the_time_is_over(run: Train) -> None:
    """After 10 seconds, which the clock shows in the 11th step; the run ends in full, with a last evaluation."""
    watcher = Timed()
    ending, _ = run(job(epochs=None, seconds=10, evaluate={"every": "3st"}), watcher, clock=watcher.clock)
    assert (ending.outcome, ending.stop_reason, ending.progress["step"]) == ("succeeded", "time_limit", 11)
    assert (ending.progress["steps"], ending.progress["epochs"], ending.progress["fraction"]) == (None, None, 1.0)
    assert steps(watcher, "train.loss") == list(range(11))
    assert steps(watcher, "val.loss") == [3, 6, 9, 11]
    assert steps(watcher, "test.loss") == [11]
    assert ending.results["base"].keys() == {"val", "test"}
    assert watcher.checkpoints()[11].manifest["seconds"] == 10
    assert {each.steps for each in watcher.progress()} == {None}
    assert all(each.fraction == max(0, each.step - 1) / 10 for each in watcher.progress())
    assert [log.message.partition(":")[0] for log in watcher.logs()] == ["this run is approximate"]
    assert watcher.events[0].environment["resume"]["fidelity"] == "approximate"  # type: ignore[union-attr]


def test_time_adds_up_over_attempts(run: Train) -> None:
    """Six seconds until the first interruption, ten until the second: then a step shows that twelve are over."""
    spec = job(epochs=None, seconds=12)
    checkpoint, starts = None, []
    for stop in (7, 4, 0):
        watcher = Timed(stop_after=stop)
        ending, _ = run(spec, watcher, resume=checkpoint, clock=watcher.clock)
        starts.append(watcher.start)
        checkpoint = max(watcher.checkpoints().items())[1]
    assert starts == [0, 7, 11]
    assert (ending.stop_reason, ending.progress["step"]) == ("time_limit", 13)


def test_steps_may_end_a_run_before_its_time(run: Train) -> None:
    watcher = Timed()
    ending, _ = run(job(seconds=1000), watcher, clock=watcher.clock)
    assert (ending.stop_reason, ending.progress["steps"], ending.progress["fraction"]) == ("completed", 24, 1.0)
    assert {each.steps for each in watcher.progress()} == {24}


@pytest.mark.parametrize("restore", [True, False])
def test_the_best_average_is_judged_kept_and_returned(run: Train, restore: bool) -> None:
    """Found again by hand: the first smallest loss of the mean, and the mean as it was written there."""
    fields: dict[str, Any] = {
        "model": NORMED,
        "optimizer": {"name": "sgd", "lr": 0.5, "momentum": 0.9},
        "evaluate": {"every": "3st"},
        "swa": {"start": "6st", "every": "2st", "lr": 0.8, "anneal": "4st"},
        "epochs": 9,
    }
    policy = {"monitor": "swa.val.loss", "patience": 4, "restore_best": restore}
    ending, watcher = run(job(**fields, early_stopping=policy))
    series = watcher.series()["swa.val.loss"]
    best = min(series, key=lambda point: (point[1], point[0]))
    assert series[0][0] == 6, "there is no mean before, so nothing was judged"
    assert (ending.stop_reason, series[-1]) == ("early_stopping", series[series.index(best) + 4])

    _, until_then = run(job(**fields | {"epochs": None, "steps": best[0]}))
    kept = watcher.checkpoints("best")[best[0]]
    assert digests(kept)["weights"] == digests(until_then.checkpoints("swa")[best[0]])["weights"]
    written = max(watcher.checkpoints("swa").items())[1]
    assert (digests(written) == digests(kept)) == restore
    assert ending.results["best"]["val"]["loss"] == best[1]
    assert (ending.results["swa"] == ending.results["best"]) == restore
    assert ending.results["base"]["val"]["loss"] == watcher.series()["val.loss"][-1][1]
