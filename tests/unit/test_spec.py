"""Jobs that are refused say where and what to do; jobs that are accepted mean what they say."""

import json
from typing import Any

import pytest

from core.errors import FieldProblem, InvalidSpec
from core.recipe.averaging import SwaPhase
from core.recipe.data import SplitSizes
from core.recipe.duration import RunLength
from core.recipe.parse import parse_job
from core.recipe.plan import resolve_plan
from core.recipe.spec import JobSpec
from core.recipe.stopping import EarlyStopping
from tests.support.specs import warnings_of

JOB: dict[str, Any] = {
    "model": {"name": "mlp"},
    "data": {"name": "digits"},
    "optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.9},
    "epochs": 30,
}


def parse(**changes: Any) -> JobSpec:
    return parse_job(json.dumps({**JOB, **changes}).encode())


def refused(**changes: Any) -> FieldProblem:
    with pytest.raises(InvalidSpec) as caught:
        parse(**changes)
    return caught.value.errors[0]


@pytest.mark.parametrize(
    ("changes", "pointer", "message", "hint"),
    [
        ({"optimizer": {"name": "sdg"}}, "/optimizer/name", "unknown name 'sdg'", 'did you mean "sgd"?'),
        ({"model": {"name": "mpl"}}, "/model/name", "unknown name 'mpl'", 'did you mean "mlp"?'),
        ({"model": {"hidden": [3]}}, "/model/name", "required", None),
        ({"bathc_size": 32}, "/bathc_size", "unknown field", 'did you mean "batch_size"?'),
        (
            {"optimizer": {"name": "sgd", "momentm": 0.9}},
            "/optimizer/momentm",
            "unknown field",
            'did you mean "momentum"?',
        ),
        ({"checkpoints": {"evry": 1}}, "/checkpoints/evry", "unknown field", 'did you mean "every"?'),
        (
            {"checkpoints": {"monitor": "val.acuracy"}},
            "/checkpoints/monitor",
            "no eval",
            'did you mean "val.accuracy"?',
        ),
        (
            {"checkpoints": {"keep_best": 1, "monitor": "lr"}},
            "/checkpoints/monitor",
            "there are val.loss",
            "monitor val",
        ),
        (
            {"checkpoints": {"keep_best": 1}, "data": {"name": "digits", "validation": 0.0}},
            "/checkpoints/keep_best",
            "no validation split",
            "set data.validation above 0",
        ),
        ({"optimizer": {"name": "sgd", "lr": 0}}, "/optimizer/lr", "greater than 0", None),
        ({"optimizer": {"name": "sgd", "lr": "0.1"}}, "/optimizer/lr", "a valid number", None),
        ({"optimizer": {"name": "sgd", "lr": True}}, "/optimizer/lr", "a valid number", None),
        ({"optimizer": {"name": "sgd", "lr": float("nan")}}, "/optimizer/lr", "a finite number", None),
        (
            {"optimizer": {"name": "sgd", "nesterov": True}},
            "/optimizer/nesterov",
            "needs momentum",
            "momentum 0.9 is usual",
        ),
        ({"batch_size": 0}, "/batch_size", "a whole number from 1", None),
        ({"batch_size": -1}, "/batch_size", "a whole number from 1", None),
        ({"batch_size": True}, "/batch_size", "a whole number from 1", None),
        ({"batch_size": "ful"}, "/batch_size", "a whole number from 1", 'did you mean "full"?'),
        ({"batch_size": 1259}, "/batch_size", "larger than the train set of 1258", 'use "full" or at most 1258'),
        ({"epochs": None}, "/epochs", "no budget", 'give "epochs", "steps" or "seconds"'),
        ({"schedule": {"name": "cosine", "warmup": "1 epoch"}}, "/schedule/warmup", "is not a duration", None),
        (
            {"schedule": {"name": "step", "step_size": "0ep"}},
            "/schedule/step_size",
            "less than one optimizer step",
            None,
        ),
        ({"schedule": {"name": "cosine", "T_max": "2run"}}, "/schedule/T_max", "at most", None),
        ({"swa": {"start": "31ep"}}, "/swa/start", "run ends after 1,200", None),
        ({"swa": 1}, "/swa", "object", None),
        ({"swa": {"name": []}}, "/swa/name", "unknown field", None),
        ({"optimizer": {"name": "sgd", "x": {"name": {}}}}, "/optimizer/x", "unknown field", None),
        ({"name": "a\0b"}, "/name", "U+0000", None),
        ({"name": "a\u202eb"}, "/name", "U+202E", None),
        ({"metadata": {"a": "\x1b[31m"}}, "/metadata/a", "U+001B", None),
        ({"metadata": {str(i): "x" for i in range(17)}}, "/metadata", "at most 16", None),
        (
            {"model": {"name": "cnn"}, "data": {"name": "iris"}},
            "/model/name",
            "needs images",
            'use "mlp" for tables of numbers',
        ),
        ({"model": {"name": "mlp", "hidden": [10**9]}}, "/model/hidden/0", "65536", None),
        ({"model": {"name": "mlp", "hidden": [65536] * 64}}, "/model", "parameters", "make it narrower"),
        ({"model": {"name": "mlp", "batch_norm": True}, "batch_size": 1}, "/batch_size", "single one", None),
        ({"model": {"name": "mlp", "batch_norm": True}, "batch_size": 1257}, "/batch_size", "single one", None),
        ({"data": {"name": "digits", "validation": 0.6, "test": 0.5}}, "/data/validation", "nothing to train on", None),
        ({"loss": "mse"}, "/loss", "does not fit classification", "use cross_entropy"),
        ({"metrics": ["mae"]}, "/metrics/0", "does not fit classification", "use accuracy"),
        ({"clip_grad": {}}, "/clip_grad", "either by", 'give {"norm": 1.0}'),
        ({"clip_grad": {"norm": 1.0, "value": 1.0}}, "/clip_grad", "either by", None),
        ({"data": {"name": "diabetes", "label_noise": 0.1}}, "/data/label_noise", "no labels", "leave it out"),
        ({"data": {"name": "diabetes"}, "label_smoothing": 0.1}, "/label_smoothing", "no labels", "leave it out"),
        ({"no_decay": ["biases"]}, "/no_decay/0", "'bias' or 'norm'", 'did you mean "bias"?'),
        ({"sampling": "with_replacment"}, "/sampling", "must be", 'did you mean "with_replacement"?'),
        ({"sampling": "with_replacement", "batch_size": "full"}, "/sampling", "not sampled", None),
        ({"early_stopping": {"monitor": "val.los"}}, "/early_stopping/monitor", "no evaluation", 'mean "val.loss"?'),
        ({"early_stopping": {"monitor": "test.r2"}}, "/early_stopping/monitor", "val.loss, val.accuracy", None),
        ({"early_stopping": {"monitor": "val.accuracy"}, "metrics": []}, "/early_stopping/monitor", "no eval", None),
        (
            {"early_stopping": True, "data": {"name": "digits", "validation": 0.0}},
            "/early_stopping/monitor",
            "no validation split",
            "set data.validation above 0",
        ),
        ({"early_stopping": {"patince": 3}}, "/early_stopping/patince", "unknown field", 'did you mean "patience"?'),
        ({"early_stopping": {"start_from": "31ep"}}, "/early_stopping/start_from", "run ends after 1,200", None),
        ({"schedule": {"name": "multistep", "milestones": ["20ep", 9]}}, "/schedule/milestones/1", "ascending", None),
        ({"schedule": {"name": "multistep", "milestones": ["x"]}}, "/schedule/milestones/0", "not a duration", None),
        ({"schedule": {"name": "wsd", "warmup": "20ep", "decay": "11ep"}}, "/schedule/decay", "1,240 of 1,200", None),
        (
            {"schedule": {"name": "sequence", "schedules": [{"name": "cosine"}], "milestones": [1]}},
            "/schedule/schedules",
            "at least 2",
            None,
        ),
        (
            {
                "schedule": {
                    "name": "sequence",
                    "schedules": [{"name": "cosine"}, {"name": "wsd"}],
                    "milestones": [1, 2],
                }
            },
            "/schedule/milestones",
            "1 milestones between them, not 2",
            None,
        ),
        (
            {"schedule": {"name": "sequence", "schedules": [{"name": "sequence"}, {"name": "wsd"}], "milestones": [1]}},
            "/schedule/schedules/0/name",
            "unknown name 'sequence'",
            None,
        ),
        (
            {
                "schedule": {
                    "name": "sequence",
                    "schedules": [{"name": "wsd"}, {"name": "cosine", "T_max": 0}],
                    "milestones": [9],
                }
            },
            "/schedule/schedules/1/T_max",
            "less than one",
            None,
        ),
        ({"data": {"name": "blobs", "examples": 5, "classes": 6}}, "/data/examples", "6 classes need", None),
        (
            {"data": {"name": "gaussian_images", "examples": 10**6, "size": 32}},
            "/data/examples",
            "1,024,000,000 numbers",
            "make it smaller",
        ),
    ],
)
def test_refused_with_pointer_and_way_out(
    changes: dict[str, Any], pointer: str, message: str, hint: str | None
) -> None:
    problem = refused(**changes)
    assert problem.pointer == pointer
    assert message in f"{problem.message}; {problem.hint}"
    if hint is not None:
        assert hint in (problem.hint or "")


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"null", b"{", b"[" * 100_000, b'{"epochs":1e400}', b"\xff", b'{"name": "\\ud800"}', b"1", b'"x"'],
)
def test_refuses_what_is_no_job(body: bytes) -> None:
    with pytest.raises(InvalidSpec) as caught:
        parse_job(body)
    assert caught.value.errors


def test_every_problem_is_reported_at_once() -> None:
    with pytest.raises(InvalidSpec) as caught:
        parse(optimizer={"name": "sgd", "lr": -1, "momentum": 2}, seed=-1, epoch=3)
    assert [each.pointer for each in caught.value.errors] == ["/optimizer/lr", "/optimizer/momentum", "/seed", "/epoch"]


def test_arithmetic_of_the_run() -> None:
    """1,797 digits: 359 test (359.4), 180 validation (179.7), 1,258 train; ceil(1258 / 32) = 40 steps per epoch."""
    spec = parse()
    assert spec.shape().split == SplitSizes(train=1258, validation=180, test=359)
    assert spec.shape().run == RunLength(steps_per_epoch=40, total_steps=1200)
    assert parse(steps=100).shape().run.total_steps == 100
    assert parse(epochs=None, steps=100).shape().run.total_steps == 100
    assert parse(batch_size="full").shape().run == RunLength(1, 30)
    assert parse(batch_size=1258).shape().run == RunLength(1, 30)


def test_arithmetic_of_accumulation() -> None:
    """1,258 examples in batches of 32: 39 whole ones and 10 examples; by 3 they are ceil(40 / 3) = 14 steps, or 13."""
    assert parse(accumulate=3).shape().run == RunLength(14, 420)
    assert parse(accumulate=3, drop_last=True).shape().run == RunLength(13, 390)
    assert parse(drop_last=True).shape().run == RunLength(39, 1170)
    assert parse(drop_last=True).shape().examples_per_epoch == 1248
    assert parse(accumulate=100).shape().run == RunLength(1, 30)
    assert parse(batch_size="full", accumulate=2, drop_last=True).shape().run == RunLength(1, 30)
    assert (
        parse(batch_size=1257, drop_last=True, model={"name": "mlp", "batch_norm": True}).shape().run.steps_per_epoch
        == 1
    )


def test_early_stopping_true_is_spelled_out() -> None:
    assert parse(early_stopping=True).resolved().dump()["early_stopping"] == {
        "monitor": "val.loss",
        "mode": "min",
        "patience": 10,
        "min_delta": 0.0,
        "start_from": "0st",
        "restore_best": True,
    }
    modes = {"val.accuracy": "max", "val.loss": "min"}
    for monitor, mode in modes.items():
        spec = parse(early_stopping={"monitor": monitor}).resolved()
        assert spec.early_stopping
        assert spec.early_stopping.mode == mode
    assert parse(early_stopping=False).early_stopping is None


@pytest.mark.parametrize(
    ("mode", "min_delta", "values", "improvements"),
    [
        ("min", 0.0, [3.0, 2.0, 2.0, 1.5], [True, True, False, True]),
        ("min", 0.5, [3.0, 2.5, 2.4, 1.9], [True, False, True, False]),
        ("max", 0.0, [-3.0, -2.0, -2.0, -2.5], [True, True, False, False]),
        ("min", 0.0, [float("nan"), 5.0, float("nan"), float("-inf"), 4.0], [False, True, False, False, True]),
    ],
)
def test_what_an_improvement_is(mode: Any, min_delta: float, values: list[float], improvements: list[bool]) -> None:
    """By hand; the difference is absolute, so that it means the same for negative values."""
    policy, best, seen = EarlyStopping(mode=mode, min_delta=min_delta), None, []
    for value in values:
        seen.append(policy.is_improvement(value, best))
        best = value if seen[-1] else best
    assert seen == improvements


def test_swa_true_is_spelled_out() -> None:
    """0.75 of 1,200 steps is 900, which lies inside epoch 23; models are collected at the ends of epochs 23 to 30."""
    spec = parse(swa=True).resolved()
    constant = {"start": "0.75run", "lr": 0.05, "anneal": "0.05run", "every": "1ep"}
    assert spec.dump()["swa"] == {**constant, "cycle": None, "lr_min": None, "update_bn": True, "swag": None}
    phase = spec.swa.phase_in_run(spec.shape().run, spec.optimizer.lr)
    assert phase == SwaPhase(start=920, anneal=60, lr=0.05, every=40)
    assert phase.collection_steps.count_until(1200) == 8
    assert parse(swa=False).resolved().swa is None


def test_defaults_are_written_out() -> None:
    written = parse(schedule={"name": "cosine", "warmup": "1ep"}).resolved().dump()
    assert written["schedule"] == {"name": "cosine", "warmup": "1ep", "T_max": "1160st", "eta_min": 0.0}
    assert written["loss"] == "cross_entropy"
    assert written["metrics"] == ["accuracy"]
    assert written["batch_size"] == 32
    assert written["checkpoints"] == {
        "every": "1000st",
        "keep_last": 2,
        "keep_cycles": 20,
        "keep_best": 0,
        "monitor": "val.loss",
        "initial": False,
    }
    assert parse(data={"name": "diabetes"}, model={"name": "logistic"}).resolved().dump()["metrics"] == ["mae", "r2"]


def test_warnings() -> None:
    assert warnings_of(parse(swa=True, schedule={"name": "cosine"})) == ()
    ends_early = parse(swa=True, schedule={"name": "cosine", "T_max": "0.75run"})
    assert [each.code for each in warnings_of(ends_early)] == ["schedule_ends_before_swa"]
    assert [each.code for each in warnings_of(parse(swa=True, epochs=1))] == ["swa_single_model"]
    assert [each.code for each in warnings_of(parse(schedule={"name": "constant", "warmup": "1run"}))] == [
        "warmup_fills_run"
    ]
    assert [each.code for each in warnings_of(parse(accumulate=41))] == ["accumulates_whole_epoch"]
    assert warnings_of(parse(accumulate=40)) == ()
    assert [each.code for each in warnings_of(parse(no_decay=["bias"]))] == ["no_decay_without_decay"]
    assert [each.code for each in warnings_of(parse(swa=True, early_stopping=True))] == ["may_stop_before_swa"]
    assert warnings_of(parse(swa=True, early_stopping={"start_from": "23ep"})) == ()


@pytest.mark.parametrize("kind", ["swa", "ema"])
def test_an_average_with_the_statistics_of_other_weights_is_warned_of(kind: str) -> None:
    """Only where there is a batch norm that could have any."""
    fields: dict[str, Any] = {kind: {"update_bn": False}, "epochs": 200}
    (found,) = warnings_of(parse(model={"name": "mlp", "batch_norm": True}, **fields))
    assert (found.code, found.pointer) == ("statistics_not_updated", f"/{kind}/update_bn")
    assert warnings_of(parse(model={"name": "mlp", "batch_norm": False}, **fields)) == ()
    assert warnings_of(parse(model={"name": "mlp", "batch_norm": True}, **{**fields, kind: True})) == ()


def test_the_plan_comes_from_tables() -> None:
    on_cpu, on_gpu = resolve_plan(parse(), "cpu"), resolve_plan(parse(), "gpu")
    assert (on_cpu.device, on_cpu.threads, on_cpu.precision) == ("cpu", 1, "fp32")
    assert on_gpu.device == "cuda"
    assert resolve_plan(parse(resources={"device": "cpu"}), "gpu").device == "cpu"
    assert on_cpu.versions["torch"].startswith("2.13")
