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
        ({"optimizer": {"name": "sgd", "lr": 0}}, "/optimizer/lr", "greater than 0", None),
        ({"optimizer": {"name": "sgd", "lr": -1}}, "/optimizer/lr", "greater than 0", None),
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
        ({"epochs": None}, "/epochs", "no budget", 'give "epochs", "steps" or both'),
        ({"epochs": 0}, "/epochs", "greater than or equal to 1", None),
        ({"epochs": True}, "/epochs", "a valid integer", None),
        ({"schedule": {"name": "cosine", "warmup": "1 epoch"}}, "/schedule/warmup", "is no duration", None),
        (
            {"schedule": {"name": "step", "step_size": "0ep"}},
            "/schedule/step_size",
            "less than one optimizer step",
            None,
        ),
        ({"schedule": {"name": "cosine", "T_max": "2run"}}, "/schedule/T_max", "at most", None),
        ({"swa": {"start": "31ep"}}, "/swa/start", "run ends after 1,200", None),
        ({"swa": 1}, "/swa", "object", None),
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
        ({"seed": 2**63}, "/seed", "less than", None),
    ],
)
def test_refused_with_pointer_and_way_out(
    changes: dict[str, Any], pointer: str, message: str, hint: str | None
) -> None:
    problem = refused(**changes)
    assert problem.pointer == pointer
    assert message in problem.message
    if hint is not None:
        assert problem.hint == hint


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
    assert spec.split() == SplitSizes(train=1258, validation=180, test=359)
    assert spec.run_length() == RunLength(steps_per_epoch=40, total_steps=1200)
    assert parse(steps=100).run_length().total_steps == 100
    assert parse(epochs=None, steps=100).run_length().total_steps == 100
    assert parse(batch_size="full").run_length() == RunLength(1, 30)
    assert parse(batch_size=1258).run_length() == RunLength(1, 30)


def test_swa_true_is_spelled_out() -> None:
    """0.75 of 1,200 steps is 900, which lies inside epoch 23; models are collected at the ends of epochs 23 to 30."""
    spec = parse(swa=True).resolved()
    assert spec.dump()["swa"] == {"start": "0.75run", "lr": 0.05, "anneal": "0.05run", "every": "1ep"}
    phase = spec.swa_phase()
    assert phase == SwaPhase(start=920, anneal=60, lr=0.05, every=40)
    assert phase.models(1200) == 8
    assert parse(swa=False).resolved().swa is None


def test_defaults_are_written_out() -> None:
    written = parse(schedule={"name": "cosine", "warmup": "1ep"}).resolved().dump()
    assert written["schedule"] == {"name": "cosine", "warmup": "1ep", "T_max": "1160st", "eta_min": 0.0}
    assert written["loss"] == "cross_entropy"
    assert written["metrics"] == ["accuracy"]
    assert written["batch_size"] == 32
    assert parse(data={"name": "diabetes"}, model={"name": "logistic"}).resolved().metrics == ("mae", "r2")


def test_warnings() -> None:
    assert parse(swa=True, schedule={"name": "cosine"}).warnings() == ()
    ends_early = parse(swa=True, schedule={"name": "cosine", "T_max": "0.75run"})
    assert [each.code for each in ends_early.warnings()] == ["schedule_ends_before_swa"]
    assert [each.code for each in parse(swa=True, epochs=1).warnings()] == ["swa_single_model"]
    assert [each.code for each in parse(schedule={"name": "constant", "warmup": "1run"}).warnings()] == [
        "warmup_fills_run"
    ]


def test_the_plan_comes_from_tables() -> None:
    on_cpu, on_gpu = resolve_plan(parse(), "cpu"), resolve_plan(parse(), "gpu")
    assert (on_cpu.device, on_cpu.threads, on_cpu.precision) == ("cpu", 1, "fp32")
    assert on_gpu.device == "cuda"
    assert resolve_plan(parse(resources={"device": "cpu"}), "gpu").device == "cpu"
    assert on_cpu.versions["torch"].startswith("2.13")
