"""A run that stops being finite goes back to its last mark, and on at lower rates: exactly, whatever interrupts it."""

import math
from collections.abc import Callable
from typing import Any

import pytest

from core.engine.events import CheckpointWritten, RolledBack
from core.engine.failure import DivergedError
from core.engine.rate import Rate
from core.engine.session import Session
from core.recipe.catalog import component_classes
from core.recipe.spec import JobSpec
from tests.support.specs import rate_of
from tests.train.recipes import FULL, OPTIONS
from tests.train.runs import Train, Watcher, digests, job

NORMED = {"name": "mlp", "hidden": [12], "batch_norm": True, "dropout": 0.1}
MOMENTUM = {"name": "sgd", "lr": 0.1, "momentum": 0.9}
MARKS = {"every": "8st"}
AT = 21  # the step that ruins the weights, between the marks at 16 and at 24


def rich(**fields: Any) -> JobSpec:
    """32 steps with everything that keeps a state: averages, the best weights, cycles, windows of the log."""
    return job(
        **{
            "model": NORMED,
            "optimizer": MOMENTUM,
            "schedule": {"name": "cosine_restarts", "T_0": 9},
            "swa": {"start": "18st", "every": "3st", "anneal": 2},
            "early_stopping": {"patience": 1000},
            "evaluate": {"every": "3st"},
            "checkpoints": MARKS,
            "log_every": 3,
            "epochs": 4,
            **fields,
        }
    )


@pytest.fixture
def ruin(monkeypatch: pytest.MonkeyPatch) -> Callable[[set[int]], None]:
    """Make the rate of step AT infinite, as long as the run was rolled back as often as these numbers say."""
    rate = Rate.__call__

    def arm(rollbacks: set[int]) -> None:
        monkeypatch.setattr(
            Rate, "__call__", lambda self, t: math.inf if t == AT and self.rollbacks in rollbacks else rate(self, t)
        )

    return arm


def told(watcher: Watcher) -> list[RolledBack]:
    return [event for event in watcher.events if isinstance(event, RolledBack)]


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"optimizer": {"name": "adam", "lr": 0.01}, "no_decay": ["bias"], "accumulate": 2, "batch_size": 12},
        {"model": {"name": "mlp", "hidden": [12]}, "clip_grad": {"norm": 0.5}, "swa": None},
        {"sampling": "with_replacement", "schedule": {"name": "plateau", "patience": 1, "factor": 0.5}},
    ],
)
def test_it_is_as_if_rates_had_been_lower_from_the_mark_on(
    run: Train, ruin: Callable[[set[int]], None], monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any]
) -> None:
    with monkeypatch.context() as patch:
        rate = Rate.__call__
        patch.setattr(Rate, "__call__", lambda self, t: rate(self, t) * (0.5 if t >= 16 else 1.0))
        expected, undisturbed = run(rich(**fields))
    ruin({0})
    ending, watcher = run(rich(**fields, rollback=True))
    (back,) = told(watcher)
    assert back.step == 16
    assert "back to step 16" in back.message
    assert "multiplied by 0.5 (rollback 1 of 3)" in back.message
    assert (ending.outcome, ending.stop_reason, ending.results) == ("succeeded", "completed", expected.results)
    assert watcher.series() == undisturbed.series()
    for kind in ("last", "best", "swa", "cycle_end"):
        known, found = undisturbed.checkpoints(kind), watcher.checkpoints(kind)
        assert known.keys() <= found.keys()
        assert all(digests(found[step])["weights"] == digests(known[step])["weights"] for step in known), kind


@pytest.mark.parametrize("name", sorted(component_classes("optimizers")))
def test_every_optimizer_goes_back(run: Train, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Ruined after step 21 in any case, whatever the optimizer would make of a rate; what it keeps is that of 16."""
    kind: Any = component_classes("optimizers")[name]
    fields: dict[str, Any] = {
        "model": NORMED | {"hidden": [16, 12]},
        "optimizer": {"name": name, "lr": 0.01, **OPTIONS.get(name, {})},
        "no_decay": ["bias"],
        "sam": None if kind.closure else {"interval": 2},
        "checkpoints": MARKS,
        **(FULL if kind.full_batch else {}),
    }
    with monkeypatch.context() as patch:
        rate = Rate.__call__
        patch.setattr(Rate, "__call__", lambda self, t: rate(self, t) * (0.5 if t >= 16 else 1.0))
        _, undisturbed = run(job(**fields))
    judge = Session.run_due_evaluations

    def ruined(self: Session, done: int) -> None:
        judge(self, done)
        if done == AT and not self.run.rate.rollbacks:
            for each in self.run.network.floats():
                each.fill_(math.nan)
            raise DivergedError("nothing", done, 0.0)

    monkeypatch.setattr(Session, "run_due_evaluations", ruined)
    _, watcher = run(job(**fields, rollback=True))
    assert [back.step for back in told(watcher)] == [16]
    assert watcher.series() == undisturbed.series()
    assert digests(watcher.checkpoints()[24])["weights"] == digests(undisturbed.checkpoints()[24])["weights"]


def test_killed_at_any_moment_it_ends_with_the_same_bits(run: Train, ruin: Callable[[set[int]], None]) -> None:
    """From checkpoints before and after the mark at 16, also those up to 21 that were written in vain."""
    ruin({0})
    spec = rich(rollback={"factor": 0.25})
    ending, whole = run(spec, checkpoint_seconds=0.0)
    written = [event for event in whole.events if isinstance(event, CheckpointWritten) and event.kind == "last"]
    assert [each.step for each in written] == [*range(1, 22), *range(16, 33)]
    last = written.pop()
    for checkpoint in [written[index] for index in (0, 7, 14, 15, 16, 18, 20, 21, 22, 28, 36)]:
        again, watcher = run(spec, resume=checkpoint)
        assert again.results == ending.results
        assert digests(watcher.checkpoints()[32]) == digests(last)
        assert watcher.checkpoints()[32].manifest["digest"] == last.manifest["digest"]
        for name, points in watcher.series().items():
            assert points == [each for each in whole.series()[name] if each[0] >= points[0][0]], name


def test_twice_to_the_same_mark_and_once_to_another(run: Train, ruin: Callable[[set[int]], None]) -> None:
    ruin({0, 1})
    ending, watcher = run(rich(rollback={"factor": 0.5, "times": 2}))
    assert [back.step for back in told(watcher)] == [16, 16]
    assert ending.outcome == "succeeded"
    rates = dict(watcher.series()["lr"])
    pure = rate_of(rich())
    assert [rates[t] for t in (14, 17, 20)] == [pure(14), pure(17) / 4, pure(20) / 4]
    assert all(len({step for step, _ in points}) == len(points) for points in watcher.series().values())


def test_after_so_many_times_it_has_diverged(run: Train, ruin: Callable[[set[int]], None]) -> None:
    ruin({0, 1, 2})
    ending, watcher = run(rich(rollback={"times": 2}))
    assert (ending.outcome, ending.stop_reason) == ("failed", "non_finite")
    assert (ending.error or {})["code"] == "diverged"
    assert len(told(watcher)) == 2
    assert set(ending.results) == {"base", "best", "incumbent"}


def test_unless_asked_for_it_diverges_at_once(run: Train, ruin: Callable[[set[int]], None]) -> None:
    ruin({0})
    ending, watcher = run(rich())
    assert (ending.stop_reason, told(watcher)) == ("non_finite", [])


def test_the_start_is_a_mark_too(run: Train) -> None:
    """A rate that no run survives: rolled back to nothing learnt until it is low enough."""
    fields: dict[str, Any] = {"data": {"name": "diabetes"}, "epochs": 10}
    steep = {"name": "sgd", "lr": 1.0, "momentum": 0.9}
    ending, watcher = run(job(**fields, optimizer=steep, rollback={"factor": 0.001}))
    assert [back.step for back in told(watcher)] == [0]
    assert ending.outcome == "succeeded"
    _, gentle = run(job(**fields, optimizer=steep | {"lr": 0.001}))
    assert watcher.series() == gentle.series()
    again, second = run(job(**fields, optimizer=steep, rollback={"factor": 0.001}), resume=watcher.checkpoints()[0])
    assert (told(second), again.results, second.series()) == ([], ending.results, watcher.series())
    (last,) = {max(each.checkpoints()) for each in (watcher, second)}
    assert digests(second.checkpoints()[last]) == digests(watcher.checkpoints()[last])
    assert second.checkpoints()[last].manifest["digest"] == watcher.checkpoints()[last].manifest["digest"]


def test_a_point_begins_again_where_it_began(run: Train) -> None:
    """X <- x - 2 · 2 x triples the distance at each step until no float holds it; a quarter of the rate ends at 0."""
    data = {"name": "function", "function": "square"}
    fields: dict[str, Any] = {
        "data": data,
        "model": {"name": "point", "start": [1.0]},
        "batch_size": "full",
        "epochs": None,
        "steps": 200,
    }
    _, watcher = run(job(**fields, optimizer={"name": "sgd", "lr": 2.0}, rollback={"factor": 0.25}))
    _, gentle = run(job(**fields, optimizer={"name": "sgd", "lr": 0.5}))
    assert [back.step for back in told(watcher)] == [0]
    assert watcher.series() == gentle.series()
    assert watcher.series()["point.x"][:3] == [(0, 1.0), (1, 0.0), (2, 0.0)]


def test_stop_lr_counts_what_rollbacks_do(run: Train, ruin: Callable[[set[int]], None]) -> None:
    """Halved at step 16, the cosine is too low some steps earlier; what was not halved before does not count."""
    fields: dict[str, Any] = {"schedule": {"name": "cosine"}, "swa": None, "stop_lr": 0.0149, "early_stopping": None}
    pure = rate_of(rich(**fields))
    expected = next(t for t in range(16, 32) if pure(t) / 2 < 0.0149)
    ruin({0})
    ending, _ = run(rich(**fields, rollback=True))
    assert (ending.stop_reason, ending.progress["step"]) == ("stop_lr", expected)
    assert expected < next(t for t in range(32) if pure(t) < 0.0149)
