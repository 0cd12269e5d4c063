"""What ends a run, before anything is trained: where a rate gets too low, what is refused, what is warned of."""

import json
from typing import Any

import pytest

from core.recipe.duration import RunLength
from core.recipe.learning_rate import learning_rate_plan
from core.recipe.parse import parse_preview
from core.recipe.preview import Preview, compute_preview
from core.recipe.schedules.base import first_below
from core.recipe.spec import JobSpec
from core.recipe.stopping import EarlyStopping, Target
from tests.support.specs import rate_of, warnings_of
from tests.unit.test_spec import parse, refused

RESTARTS = {"name": "cosine_restarts", "T_0": "10ep", "T_mult": 2}


def stop_of(**fields: Any) -> int | None:
    """1,200 steps, 40 an epoch, from 0.1 on unless the fields say otherwise."""
    spec = parse(**fields)
    course = learning_rate_plan(spec, spec.shape().run)
    return course.stop_step(course.rate_function())


@pytest.mark.parametrize(
    ("schedule", "stop_lr", "step"),
    [
        # 0.1, 0.01 from step 400, 0.001 from 800: not yet at 0.01 itself
        ({"name": "step", "step_size": "10ep"}, 0.01, 800),
        ({"name": "step", "step_size": "10ep"}, 0.0101, 400),
        # 0.9^22 = 0.0985 is the first below a tenth
        ({"name": "exponential", "gamma": 0.9, "every": 1}, 0.01, 22),
        ({"name": "exponential", "gamma": 0.9, "every": 1, "warmup": 50}, 0.01, 72),
        # a line of 1,200 steps: 0.1 (1 - t / 1200) < 0.05 from step 601 on
        ({"name": "linear"}, 0.05, 601),
        # at the end of the first cycle of 400 steps: (1 + cos(pi v / 400)) / 2 < 0.01 from v = 375
        (RESTARTS, 0.001, 375),
        # with warm-up the rate is tiny at first, which does not count
        ({"name": "cosine", "T_max": 400, "warmup": 100}, 0.001, 475),
        # up first, then down below lr / 25
        ({"name": "one_cycle", "total_steps": 100, "anneal_strategy": "linear", "div_factor": 10}, 0.01, 93),
        # the second of two: its own warm-up does not count
        (
            {
                "name": "sequence",
                "schedules": [{"name": "constant"}, {"name": "linear", "warmup": 10, "total_iters": 100}],
                "milestones": [500],
            },
            0.05,
            561,
        ),
    ],
)
def test_where_the_rate_falls_below(schedule: dict[str, Any], stop_lr: float, step: int) -> None:
    assert stop_of(schedule=schedule, stop_lr=stop_lr) == step
    spec = parse(schedule=schedule, stop_lr=stop_lr)
    rate = rate_of(spec)
    warm = spec.schedule.warmup.steps(spec.shape().run)
    if schedule["name"] != "sequence":
        assert next(t for t in range(warm, 1200) if rate(t) < stop_lr) == step


def test_it_is_found_as_by_looking_at_every_step() -> None:
    rates = [5.0, 7.0, 6.0, 4.0, 5.0, 3.0, 1.0]
    for bound in (8.0, 6.5, 5.5, 4.5, 4.0, 2.0, 1.0):
        slow = next((t for t, rate in enumerate(rates) if rate < bound), None)
        assert first_below(bound, rates.__getitem__, iter([(0, 4), (4, 7)])) == slow


REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"stop_lr": 0.01}, "/stop_lr", "constant does not fall below 0.01 within this run; the lowest rate is 0.1"),
    ({"stop_lr": 0.2}, "/stop_lr", "begins at 0.1, below 0.2"),
    ({"stop_lr": 0}, "/stop_lr", "greater than 0"),
    ({"stop_lr": 0.01, "schedule": {"name": "cosine", "eta_min": 0.01}}, "/stop_lr", "the lowest rate is 0.01"),
    ({"stop_lr": 0.01, "schedule": {"name": "cyclic", "base_lr": 0.02}}, "/stop_lr", "the lowest rate is 0.02"),
    ({"stop_lr": 0.01, "schedule": {"name": "cyclic", "base_lr": 0.001}}, "/stop_lr", "begins at 0.001"),
    ({"stop_lr": 1e-3, "schedule": {"name": "plateau", "min_lr": 1e-3}}, "/stop_lr", "the lowest rate is 0.001"),
    # 30 evaluations, the last of them at the end: 1 + 10 r <= 29 allows two reductions
    ({"stop_lr": 1e-3, "schedule": {"name": "plateau"}}, "/stop_lr", "the lowest rate is 0.001"),
    ({"stop_lr": 1e-3, "schedule": {"name": "plateau", "patience": 9, "cooldown": 2}}, "/stop_lr", "is 0.001"),
    # SWA takes over after 23 epochs, when the cosine stands at 0.0129
    ({"stop_lr": 0.01, "schedule": {"name": "cosine"}, "swa": True}, "/stop_lr", "the lowest rate is 0.0129"),
    ({"schedule": {"name": "plateau", "monitor": "val.los"}}, "/schedule/monitor", 'mean "val.loss"?'),
    ({"schedule": {"name": "plateau", "monitor": "swa.val.loss"}}, "/schedule/monitor", "there are val.loss"),
    (
        {"schedule": {"name": "plateau", "monitor": "swa.val.loss"}, "swa": True, "ema": {"with_swa": True}},
        "/schedule/monitor",
        "there are val.loss, val.accuracy, ema.val.loss, ema.val.accuracy",
    ),
    ({"stop_lr": 0.01, "ensemble": {"method": "snapshot"}}, "/stop_lr", "the lowest rate is 0.1"),
    ({"schedule": {"name": "plateau", "threshold_mode": "relative"}}, "/schedule/threshold_mode", "'rel' or 'abs'"),
    ({"target": {"metric": "val.acuracy", "value": 0.9}}, "/target/metric", 'mean "val.accuracy"?'),
    ({"target": {"metric": "val.loss"}}, "/target/value", "required"),
    ({"early_stopping": {"monitor": "ema.val.loss"}}, "/early_stopping/monitor", "there are val.loss"),
    ({"rollback": {"factor": 1.0}}, "/rollback/factor", "less than 1"),
    ({"rollback": {"times": 0}}, "/rollback/times", "greater than or equal to 1"),
    ({"seconds": 0}, "/seconds", "greater than 0"),
    ({"seconds": True}, "/seconds", "a valid number"),
    (
        {"schedule": {"name": "cyclic", "cycle_momentum": {"base": 0.8, "max": 0.9}}, "optimizer": {"name": "sgd"}},
        "/schedule",
        "has no momentum",
    ),
    (
        {"schedule": {"name": "cyclic", "cycle_momentum": {"base": 0.9, "max": 0.8}}},
        "/schedule/cycle_momentum/base",
        "0.9 is above max, 0.8",
    ),
    ({"schedule": {"name": "cosine_restarts", "T_0": "0.001ep"}}, "/schedule/T_0", "less than one"),
]


@pytest.mark.parametrize(("changes", "pointer", "message"), REFUSED)
def test_refused_with_pointer_and_reason(changes: dict[str, Any], pointer: str, message: str) -> None:
    problem = refused(**changes)
    assert problem.pointer == pointer
    assert message in f"{problem.message}; {problem.hint}"


@pytest.mark.parametrize(
    "changes",
    [
        {"stop_lr": 0.00101, "schedule": {"name": "plateau"}},
        {"stop_lr": 0.00101, "schedule": {"name": "plateau", "patience": 9, "cooldown": 2}},
        {"swa": True, "early_stopping": {"monitor": "swa.val.loss"}, "schedule": {"name": "cosine"}},
        {"swa": True, "target": {"metric": "swa.val.accuracy", "value": 0.9}},
        {
            "schedule": {"name": "one_cycle", "cycle_momentum": {"base": 0.8, "max": 0.9}},
            "optimizer": {"name": "adam"},
        },
        {"epochs": None, "seconds": 10},
        {"epochs": None, "seconds": 0.5, "schedule": RESTARTS, "swa": {"start": "5ep", "anneal": "1ep"}},
        {"seconds": 10, "schedule": {"name": "cosine"}, "swa": True},
    ],
)
def test_accepted(changes: dict[str, Any]) -> None:
    spec = parse(**changes).resolved()
    assert JobSpec.model_validate_json(json.dumps(spec.dump())) == spec


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"schedule": {"name": "cosine"}}, "/schedule/T_max"),
        ({"schedule": {"name": "one_cycle"}}, "/schedule/total_steps"),
        ({"schedule": {"name": "linear", "total_iters": "0.5run"}}, "/schedule/total_iters"),
        ({"schedule": {"name": "wsd"}}, "/schedule/decay"),
        ({"schedule": {"name": "cosine", "T_max": "5ep", "warmup": "0.1run"}}, "/schedule/warmup"),
        ({"swa": {"start": "5ep"}}, "/swa/anneal"),
        ({"evaluate": {"every": "0.1run"}}, "/evaluate/every"),
        (
            {
                "schedule": {
                    "name": "sequence",
                    "schedules": [{"name": "cosine"}, {"name": "linear"}],
                    "milestones": [50],
                }
            },
            "/schedule/schedules/1/total_iters",
        ),
        ({"ensemble": {"method": "snapshot"}}, "/ensemble/method"),
        ({"ensemble": {"method": "fge", "cycle": "8st"}}, "/ensemble/start"),
    ],
)
def test_seconds_alone_give_no_length(changes: dict[str, Any], pointer: str) -> None:
    problem = refused(epochs=None, seconds=60, **changes)
    assert problem.pointer == pointer
    assert "seconds alone do not give" in problem.message
    parse(epochs=10, seconds=60, **changes)


def test_a_run_that_only_a_clock_ends() -> None:
    run = parse(epochs=None, seconds=60).shape().run
    assert (run.steps_per_epoch, run.bounded) == (40, False)
    assert parse(seconds=60).shape().run == RunLength(40, 1200)


def codes(**changes: Any) -> list[str]:
    return [each.code for each in warnings_of(parse(**changes))]


def test_warnings() -> None:
    plateau = {"name": "plateau", "patience": 5, "cooldown": 2}
    assert codes(schedule=plateau, early_stopping={"patience": 7}) == ["stops_before_reduction"]
    assert codes(schedule=plateau, early_stopping={"patience": 8}) == []
    assert codes(schedule={"name": "cosine"}, early_stopping={"patience": 1}) == []
    assert codes(schedule=RESTARTS) == []
    assert codes(schedule=RESTARTS, epochs=29) == ["last_cycle_cut_short"]
    assert codes(schedule=RESTARTS, epochs=9) == ["no_cycle_completes"]
    assert codes(epochs=None, seconds=9, schedule=RESTARTS) == []


def test_targets() -> None:
    down, up = Target(metric="val.loss", value=0.5), Target(metric="swa.val.accuracy", value=0.9)
    assert [down.is_reached(value) for value in (0.51, 0.5, 0.4)] == [False, True, True]
    assert [up.is_reached(value) for value in (0.89, 0.9, 0.95)] == [False, True, True]


def test_early_stopping_knows_whose_weights_it_judges() -> None:
    found = [
        EarlyStopping(monitor=name).monitored_weights() for name in ("val.loss", "swa.val.loss", "ema.val.accuracy")
    ]
    assert found == ["base", "swa", "ema"]


def shown(**fields: Any) -> Preview:
    request = {"optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.9}, "batch_size": 10, "examples": 100, **fields}
    return compute_preview(parse_preview(json.dumps(request).encode()))


def marked(found: Preview) -> list[tuple[int, str]]:
    return [(mark.step, mark.kind) for mark in found.marks]


def test_a_preview_marks_restarts() -> None:
    found = shown(schedule=RESTARTS | {"T_0": "1ep"}, epochs=7)
    assert marked(found) == [(10, "restart"), (30, "restart"), (70, "stop")]
    assert (found.lr[10], found.lr[30], found.momentum) == (0.1, 0.1, None)


def test_a_preview_ends_where_stop_lr_ends_it() -> None:
    found = shown(schedule={"name": "step", "step_size": "2ep"}, epochs=9, stop_lr=0.005)
    assert (found.total_steps, found.stop_reason, len(found.steps)) == (90, "stop_lr", 40)
    assert marked(found) == [(40, "stop")]


def test_a_preview_shows_what_plateau_does_with_given_metrics() -> None:
    """Evaluations every 5 steps: the third and the fourth are no better than the second."""
    schedule = {"name": "plateau", "patience": 2, "factor": 0.5}
    values = [3.0, 2.0, 2.5, 2.0, 1.0, 1.0, 1.0, 1.0, 1.0]
    found = shown(schedule=schedule, steps=60, evaluate={"every": 5}, metrics=values)
    assert marked(found) == [(20, "reduction"), (35, "reduction"), (45, "reduction"), (60, "stop")]
    assert found.lr == [0.1] * 20 + [0.05] * 15 + [0.025] * 10 + [0.0125] * 15
    stopped = shown(schedule=schedule, steps=60, evaluate={"every": 5}, metrics=values, stop_lr=0.03)
    assert marked(stopped) == [(20, "reduction"), (35, "reduction"), (35, "stop")]
    assert (stopped.lr, stopped.stop_reason) == ([0.1] * 20 + [0.05] * 15, "stop_lr")
    assert shown(schedule=schedule, steps=60).lr == [0.1] * 60


def test_a_preview_shows_momentum_until_swa_begins() -> None:
    schedule = {"name": "cyclic", "step_size_up": 2, "cycle_momentum": {"base": 0.8, "max": 0.9}}
    found = shown(schedule=schedule, steps=12, swa={"start": 8, "anneal": 0, "every": 2, "lr": 0.01})
    assert found.momentum == pytest.approx([0.9, 0.85, 0.8, 0.85, 0.9, 0.85, 0.8, 0.85, 0.9, 0.9, 0.9, 0.9])
    assert found.lr[8:] == [0.01] * 4
    assert marked(found) == [
        *((4, "restart"), (8, "restart"), (8, "swa_start")),
        *((8, "collect"), (10, "collect"), (12, "collect"), (12, "stop")),
    ]
