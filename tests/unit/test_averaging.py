"""When weights are collected, and at what rate: literals worked out from the papers' formulas."""

import json
import math
from typing import Any

import pytest

from core.errors import InvalidSpec
from core.recipe.averaging import EMA, FGE, CheckpointEnsemble, CollectionSteps, EmaPhase, Snapshot, SwaPhase
from core.recipe.averaging.ema import DecayWarmup
from core.recipe.duration import Duration, RunLength
from core.recipe.parse import parse_job
from core.recipe.spec import JobSpec
from tests.support.specs import rate_of, warnings_of

HUNDRED = RunLength(steps_per_epoch=10, total_steps=100)


def parse(**changes: Any) -> JobSpec:
    """30 epochs of 40 steps."""
    job = {"model": {"name": "mlp"}, "data": {"name": "digits"}, "optimizer": {"name": "sgd", "lr": 0.1}, "epochs": 30}
    return parse_job(json.dumps({**job, **changes}).encode())


@pytest.mark.parametrize(("first", "every", "total"), [(1, 1, 7), (3, 3, 10), (5, 5, 30), (7, 3, 30), (40, 7, 20)])
def test_occasions_are_counted_as_they_come(first: int, every: int, total: int) -> None:
    occasions, seen = CollectionSteps(first, every), []
    for completed in range(total + 1):
        seen += [completed] if occasions.collects(completed) else []
        assert occasions.count_until(completed) == len(seen)
    assert list(occasions.steps_until(total)) == seen


# ---- SWA


def test_swa_owns_the_rate_from_its_start() -> None:
    """A line from the schedule's rate at the start (0.1 there) to 0.05 over ten steps, then constant."""
    phase = SwaPhase(start=50, anneal=10, lr=0.05, every=10)
    curve = phase.override_schedule(lambda t: 0.1 if t <= 50 else math.nan)
    assert [curve(t) for t in (0, 49, 50, 55, 60, 99)] == pytest.approx([0.1, 0.1, 0.1, 0.075, 0.05, 0.05])


def test_swa_counts_as_the_reference_code_does() -> None:
    """Epochs 161 to 300, one model each: 140 models (Izmailov et al. 2018); Lightning and torch's example lose one."""
    assert SwaPhase(start=161, anneal=0, lr=0.1, every=1).collection_steps.count_until(300) == 140
    assert SwaPhase(start=0, anneal=0, lr=0.1, every=3).collection_steps == CollectionSteps(3, 3)


def test_a_cyclic_tail_is_collected_at_its_minima() -> None:
    """Cycles of five steps from 0.05 to 0.01: (1 - i/5) 0.05 + (i/5) 0.01 in the i-th; the lowest, then a jump."""
    phase = SwaPhase(start=10, anneal=0, lr=0.05, every=5, lr_min=0.01)
    curve = phase.override_schedule(lambda t: 0.1 if t < 10 else math.nan)
    expected = [0.1, 0.042, 0.034, 0.026, 0.018, 0.01, 0.042, 0.034]
    assert [curve(t) for t in range(9, 17)] == pytest.approx(expected)
    assert list(phase.collection_steps.steps_until(25)) == [15, 20, 25]
    assert [curve(step - 1) for step in (15, 20, 25)] == [0.01] * 3


def test_a_cyclic_tail_is_spelled_out() -> None:
    spec = parse(swa={"cycle": "2ep"}).resolved()
    cyclic = {"start": "0.75run", "lr": 0.05, "anneal": "0st", "every": "cycle", "cycle": "2ep", "lr_min": 0.01}
    assert spec.dump()["swa"] == {**cyclic, "update_bn": True, "swag": None}
    assert spec.swa.phase_in_run(spec.shape().run, spec.optimizer.lr) == SwaPhase(
        start=920, anneal=0, lr=0.05, every=80, lr_min=0.01
    )
    assert parse(swa=spec.dump()["swa"]).resolved() == spec


def test_swag_true_is_spelled_out() -> None:
    assert parse(swa={"swag": True}).resolved().dump()["swa"]["swag"] == {"samples": 30, "max_rank": 20, "scale": 0.5}


# ---- EMA


def test_half_life() -> None:
    """2^(-1/1000) by hand: after a thousand steps half of the average is what it was."""
    phase = EMA(half_life=Duration.of_steps(1000)).phase_in_run(RunLength(10, 5000))
    assert phase.decay == pytest.approx(0.9993070929904525, rel=1e-12)
    assert phase.initial_share(1001) == pytest.approx(0.5)


def test_fewer_collections_decay_as_fast() -> None:
    """0.999^10 each tenth step; of the first weights nothing is left of what stood there before."""
    phase = EMA(every=Duration.of_steps(10), decay=0.999).phase_in_run(HUNDRED)
    assert [phase.decay_at(step) for step in (10, 20, 90)] == pytest.approx(
        [0.0, 0.9900448802097482, 0.9900448802097482]
    )
    assert phase.initial_share(100) == pytest.approx(0.999**90)


def test_warmup_is_timms() -> None:
    """1 - (1 + t)^(-2/3) at t = 0, 1, 7, 26 after the first collection; decay 0.999 is reached at t = 31,622."""
    phase = EmaPhase(CollectionSteps(5, 1), 0.999, DecayWarmup())
    expected = [0.0, 0.3700394750525634, 0.75, 0.8888888888888888, 0.999, 0.999]
    assert [phase.decay_at(5 + t) for t in (0, 1, 7, 26, 31622, 40000)] == pytest.approx(expected, rel=1e-9)
    steeper = EmaPhase(CollectionSteps(1, 1), 0.999, DecayWarmup(gamma=2.0, power=0.75))
    assert steeper.decay_at(63) == pytest.approx(0.9256745553123299)


def test_ema_true_is_spelled_out() -> None:
    spelled = {"decay": 0.999, "half_life": None, "warmup": None, "start": "0st", "every": "1st", "with_swa": False}
    assert parse(ema=True).resolved().dump()["ema"] == {**spelled, "update_bn": True}
    assert parse(ema={"warmup": True}).resolved().dump()["ema"]["warmup"] == {"gamma": 1.0, "power": 2 / 3}


# ---- ensembles


def unused(t: int) -> float:
    """The schedule of a job whose ensemble has a schedule of its own."""
    raise AssertionError(t)


def test_snapshot_cycles() -> None:
    """103 steps in 5 cycles: the first has 23, the others 20. lr / 2 (cos(pi u / C) + 1) in plain Python."""
    ensemble, run = Snapshot(cycles=5, lr=0.2), RunLength(10, 103)
    curve = ensemble.override_schedule(unused, run, 0.1)
    expected = [0.2, 0.199068594604, 0.000931405396, 0.2, 0.1, 0.00123116594, 0.2, 0.00123116594]
    assert [curve(t) for t in (0, 1, 22, 23, 33, 42, 43, 102)] == pytest.approx(expected, rel=1e-8)
    assert list(ensemble.collection_steps(run).steps_until(103)) == [23, 43, 63, 83, 103]


def test_no_snapshot_is_taken_at_a_high_rate() -> None:
    """164 steps in 5 cycles end at 0.0826 in the reference code, which snapshots there; here at 0.00048."""
    ensemble, run = Snapshot(cycles=5, lr=0.2), RunLength(1, 164)
    curve = ensemble.override_schedule(unused, run, 0.1)
    before_snapshots = [curve(step - 1) for step in ensemble.collection_steps(run).steps_until(164)]
    assert before_snapshots == pytest.approx([0.00038053019, *[0.00048152733] * 4], rel=1e-6)
    jumps = [t for t in range(1, 164) if curve(t) > curve(t - 1)]
    assert jumps == [36, 68, 100, 132]


def test_fge_cycles() -> None:
    """Cycles of four steps between 0.05 and 0.01 from step 80 on: down for two steps, collected, up for two."""
    ensemble = FGE(cycle=Duration.of_steps(4))
    curve = ensemble.override_schedule(lambda t: 1.0 if t < 80 else math.nan, HUNDRED, 0.1)
    assert [curve(t) for t in range(79, 88)] == pytest.approx([1.0, 0.03, 0.01, 0.03, 0.05, 0.03, 0.01, 0.03, 0.05])
    assert list(ensemble.collection_steps(HUNDRED).steps_until(100)) == [82, 86, 90, 94, 98]
    assert {curve(step - 1) for step in ensemble.collection_steps(HUNDRED).steps_until(100)} == {0.01}


def test_fge_begins_at_the_end_of_an_epoch() -> None:
    """0.75 of 100 steps lies in the eighth epoch; two epochs of ten steps have their middle after ten."""
    spec = FGE.model_validate_json('{"start": "0.75run"}')
    assert spec.collection_steps(HUNDRED) == CollectionSteps(90, 20)
    assert FGE.model_validate_json('{"start": "0.75run", "cycle": "6st"}').collection_steps(HUNDRED) == CollectionSteps(
        78, 6
    )


def test_the_last_checkpoints() -> None:
    spec = CheckpointEnsemble(every=Duration.of_steps(15), members=4)
    assert spec.collection_steps(HUNDRED) == CollectionSteps(15, 15)
    assert spec.member_count(HUNDRED) == 4
    assert CheckpointEnsemble(every=Duration.of_steps(40)).member_count(HUNDRED) == 2


@pytest.mark.parametrize(
    ("ensemble", "spelled"),
    [
        ({"method": "snapshot"}, {"members": 5, "cycles": 5, "lr": 0.1}),
        ({"method": "snapshot", "cycles": 6, "members": 3}, {"members": 3, "cycles": 6, "lr": 0.1}),
        ({"method": "fge"}, {"members": 3, "start": "0.8run", "cycle": "2ep", "lr_1": 0.05, "lr_2": 0.01}),
        ({"method": "checkpoints"}, {"members": 5, "every": "1ep"}),
    ],
)
def test_ensembles_are_spelled_out(ensemble: dict[str, Any], spelled: dict[str, Any]) -> None:
    written = parse(ensemble=ensemble).resolved().dump()["ensemble"]
    assert written == {**spelled, "method": ensemble["method"]}


# ---- what does not fit together


@pytest.mark.parametrize(
    ("changes", "pointer", "message", "hint"),
    [
        ({"swa": True, "ema": True}, "/ema", "averages the same weights already", '"with_swa": true'),
        ({"swa": {"every": "cycle"}}, "/swa/cycle", "the length of", '"2ep"'),
        ({"swa": {"every": "1epoch"}}, "/swa/every", "is not a duration", None),
        ({"swa": {"lr_min": 0.1}}, "/swa/lr_min", "this one is constant", 'give "cycle"'),
        ({"swa": {"cycle": "2ep", "every": "1ep"}}, "/swa/every", "where its rate is lowest", "leave"),
        ({"swa": {"cycle": "2ep", "anneal": "1ep"}}, "/swa/anneal", "begins at lr at once", "leave"),
        ({"swa": {"cycle": "2ep", "lr_min": 0.05}}, "/swa/lr_min", "falls from lr, 0.05", "smaller"),
        ({"swa": {"cycle": 0}}, "/swa/cycle", "less than one optimizer step", "longer"),
        ({"swa": {"cycle": "8ep"}}, "/swa/start", "collect first at step 1,240", "start earlier"),
        ({"swa": {"start": "1run", "swag": True}}, "/swa/swag", "no variance", "collect more often"),
        ({"ema": {"decay": 1.0}}, "/ema/decay", "less than 1", None),
        ({"ema": {"decay": 0.9, "half_life": 9}}, "/ema/half_life", "both set the decay", "one of them"),
        ({"ema": {"half_life": 0}}, "/ema/half_life", "less than one optimizer step", "longer"),
        ({"ema": {"start": "31ep"}}, "/ema/start", "the run ends after 1,200", "start earlier"),
        ({"ema": {"warmup": {"gama": 1.0}}}, "/ema/warmup/gama", "unknown field", 'did you mean "gamma"?'),
        ({"ensemble": {}}, "/ensemble/method", "the method selects the kind", None),
        ({"ensemble": {"method": "fgee"}}, "/ensemble/method", "unknown method 'fgee'", 'did you mean "fge"?'),
        ({"ensemble": {"method": "fge", "cycel": 4}}, "/ensemble/cycel", "unknown field", 'did you mean "cycle"?'),
        ({"ensemble": {"method": "fge", "fge": 4}}, "/ensemble/fge", "unknown field", None),
        ({"ensemble": {"method": "fge", "cycle": 1}}, "/ensemble/cycle", "1 optimizer steps have none", '"2st"'),
        ({"ensemble": {"method": "fge", "cycle": 7}}, "/ensemble/cycle", "7 optimizer steps have none", '"8st"'),
        ({"ensemble": {"method": "fge", "lr_1": 0.01, "lr_2": 0.05}}, "/ensemble/lr_2", "the largest rate", "swap"),
        ({"ensemble": {"method": "fge", "cycle": "8ep"}}, "/ensemble", "at least two members", "train longer"),
        ({"ensemble": {"method": "checkpoints", "every": "16ep"}}, "/ensemble", "at step 1,280", "more often"),
        ({"ensemble": {"method": "snapshot", "members": 6}}, "/ensemble/members", "5 cycles give 5", "more cycles"),
        ({"ensemble": {"method": "snapshot"}, "steps": 4}, "/ensemble/cycles", "5 cycles do not fit into 4", "longer"),
        ({"ensemble": {"method": "snapshot"}, "swa": True}, "/swa", "would both set the learning rate", "checkpoints"),
        ({"ensemble": {"method": "fge"}, "swa": True}, "/swa", "would both set the learning rate", "checkpoints"),
        (
            {"ensemble": {"method": "snapshot"}, "schedule": {"name": "cosine"}},
            "/schedule",
            "cosine would not be used",
            '"method": "checkpoints"',
        ),
        (
            {"ensemble": {"method": "checkpoints", "members": 20}, "model": {"name": "mlp", "hidden": [4000, 4000]}},
            "/ensemble/members",
            "1.3 GB, and at most 1.0 GB can be kept: 15",
            "fewer members",
        ),
        (
            {"swa": {"swag": True, "every": "5st"}, "model": {"name": "mlp", "hidden": [4000, 4000]}},
            "/swa/swag/max_rank",
            "20 times 16,304,010 weights are 1.3 GB",
            "smaller",
        ),
    ],
)
def test_refused_with_pointer_and_way_out(
    changes: dict[str, Any], pointer: str, message: str, hint: str | None
) -> None:
    with pytest.raises(InvalidSpec) as caught:
        parse(**changes)
    problem = caught.value.errors[0]
    assert problem.pointer == pointer
    assert message in problem.message
    assert hint is None or hint in (problem.hint or "")


@pytest.mark.parametrize(
    ("changes", "codes"),
    [
        ({"ensemble": {"method": "snapshot"}}, []),
        ({"ensemble": {"method": "snapshot", "cycles": 7}}, ["snapshot_remainder"]),
        ({"ensemble": {"method": "fge"}, "schedule": {"name": "cosine"}}, []),
        ({"ensemble": {"method": "checkpoints"}, "swa": True, "schedule": {"name": "cosine"}}, []),
        ({"ensemble": {"method": "snapshot"}, "early_stopping": {"start_from": "5ep"}}, ["may_stop_before_ensemble"]),
        ({"ensemble": {"method": "snapshot"}, "early_stopping": {"start_from": "6ep"}}, []),
        ({"ema": {"decay": 0.9}, "swa": False}, []),
        ({"ema": {"decay": 0.9, "with_swa": True}, "swa": True}, []),
        ({"ema": True}, ["ema_remembers_start"]),
        ({"ema": {"warmup": True}}, []),
    ],
)
def test_allowed_and_told(changes: dict[str, Any], codes: list[str]) -> None:
    assert [each.code for each in warnings_of(parse(**changes))] == codes


def test_what_remains_goes_to_the_first_cycle_and_is_said() -> None:
    (warning,) = warnings_of(parse(ensemble={"method": "snapshot", "cycles": 7}))
    assert "the first has 174 of them, the others have 171" in warning.message
    assert rate_of(parse(ensemble={"method": "snapshot", "cycles": 7}))(174) == pytest.approx(0.1)
