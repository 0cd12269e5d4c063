"""Stored specs are trusted data: read as they were accepted, whatever the rules and the bounds are now."""

import json
from typing import Any

import pytest

from core.errors import InvalidSpec, UnreadableSpec
from core.recipe.analyses import analysis_classes
from core.recipe.assignment import Assignment
from core.recipe.outline import RunOutline, outline_stored_run
from core.recipe.parse import parse_job
from core.recipe.plan import resolve_plan
from core.recipe.spec import Checkpoints, JobSpec
from core.recipe.stored import read_analysis, read_job, read_stored
from tests.contract.test_components import EVERY, job
from tests.support.manifests import look_up
from tests.support.specs import analysis_of

FULL: dict[str, Any] = {
    "name": "all of it",
    "model": {"name": "cnn", "channels": [4], "init": {"scheme": "orthogonal", "seed": 3}},
    "data": {"name": "digits", "label_noise": 0.1},
    "optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.9},
    "schedule": {"name": "plateau", "warmup": "1ep", "patience": 3},
    "swa": {"start": "0.5run", "cycle": "2ep", "swag": True},
    "ema": {"half_life": "1ep", "warmup": True, "with_swa": True},
    "ensemble": {"method": "checkpoints", "every": "1ep"},
    "early_stopping": {"patience": 20},
    "target": {"metric": "val.accuracy", "value": 1},
    "rollback": True,
    "clip_grad": {"norm": 1},
    "sam": {"rho": 0.1},
    "no_decay": ["bias", "norm"],
    "from": {"job": "job_" + "0" * 26, "weights": "swa"},
    "metrics": ["accuracy"],
    "metadata": {"a": "b"},
    "epochs": 10,
    "seconds": 60,
}
SMALL: dict[str, Any] = {
    "model": {"name": "logistic"},
    "data": {"name": "iris"},
    "optimizer": {"name": "sgd", "lr": 0.1},
    "epochs": 3,
}


def stored(**changes: Any) -> dict[str, Any]:
    """The JSON of a row, with fields that were accepted by other rules than today's."""
    row: dict[str, Any] = json.loads(parse_job(json.dumps(SMALL).encode()).model_dump_json())
    return row | changes


def same(read: JobSpec, made: JobSpec) -> None:
    assert read == made
    assert read.model_dump_json() == made.model_dump_json()
    assert read.resolved() == made


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, name, _ in EVERY])
def test_every_component_comes_back_as_it_was(kind: str, name: str) -> None:
    made = parse_job(json.dumps(job(kind, name)).encode(), look_up)
    same(read_job(made.model_dump_json()), made)


@pytest.mark.parametrize(
    "changes",
    [
        FULL,
        {**SMALL, "optimizer": {"name": "muon"}, "model": {"name": "mlp", "hidden": [8, 8]}},
        {**SMALL, "schedule": {"name": "cyclic", "cycle_momentum": {"base": 0.8, "max": 0.9}},
         "optimizer": {"name": "adam"}},
        {**SMALL, "data": {"name": "function", "function": "quadratic", "h": [1, 10],
                           "noise": {"scale": 0.5, "examples": 4}}, "model": {"name": "point", "start": [1, 2]},
         "batch_size": 2},
        {**SMALL, "data": {"name": "function", "function": "square", "noise": [[1], [-1]]},
         "model": {"name": "point", "start": [1]}, "batch_size": 1},
    ],
)  # fmt: skip
def test_nested_parts_come_back_as_they_were(changes: dict[str, Any]) -> None:
    made = parse_job(json.dumps(changes).encode())
    same(read_job(made.model_dump_json()), made)


@pytest.mark.parametrize("kind", analysis_classes())
def test_every_analysis_comes_back_as_it_was(kind: str) -> None:
    two = {"checkpoints": [{"job": "job_" + "0" * 26}, {"job": "job_" + "1" * 26, "weights": "last"}]}
    wants: dict[str, dict[str, Any]] = {
        "assembly": {"analyses": ["an_" + "0" * 26, "an_" + "1" * 26]},
        **dict.fromkeys(("interpolation", "connect", "average"), two),
    }
    made = analysis_of({"kind": kind, **wants.get(kind, {"job": "job_" + "0" * 26})})
    read = read_analysis(made.model_dump_json())
    assert (read, read.model_dump_json()) == (made, made.model_dump_json())


@pytest.mark.parametrize(
    "changes",
    [
        {"log_every": 10**12},  # beyond a bound
        {"seed": -1, "label_smoothing": 1.5, "priority": 1000, "max_retries": 99},
        {"optimizer": {"name": "sgd", "lr": 1e40, "momentum": 0.0, "nesterov": True}},  # and no momentum
        {"clip_grad": {"norm": 1.0, "value": 1.0}},
        {"evaluate": {"every": "1.5st"}, "stop_lr": -1.0},
        {"early_stopping": {"start_from": "99ep"}},  # after the end of the run
        {"epochs": None},
    ],
)
def test_neither_bounds_nor_rules_are_asked(changes: dict[str, Any]) -> None:
    """The door refuses each of these, and what is stored is read."""
    row = stored(**changes)
    with pytest.raises(InvalidSpec):
        parse_job(json.dumps(row).encode())
    read = read_stored(JobSpec, row)
    assert isinstance(read, JobSpec)
    for name, value in changes.items():
        shown = read.dump()[name]
        assert ({**shown, **value} if isinstance(value, dict) else value) == shown


def test_a_field_that_the_row_lacks_takes_its_default() -> None:
    row = {name: value for name, value in stored().items() if name in SMALL}
    row["checkpoints"] = {"keep_last": 5}
    read = read_stored(JobSpec, row)
    assert (read.batch_size, read.ensemble, read.checkpoints) == (32, None, Checkpoints(keep_last=5))


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"later": 1}, "/later"),
        ({"optimizer": {"name": "newest", "lr": 1.0}}, "/optimizer/name"),
        ({"optimizer": {"name": "sgd", "lr": 1.0, "twist": 1}}, "/optimizer/twist"),
        ({"optimizer": {"name": "pytorch_optimizer", "optimizer": "gone", "lr": 1.0}}, "/optimizer/optimizer"),
        ({"data": {"name": "function", "function": "gone"}}, "/data/function"),
        ({"schedule": {"name": "sequence", "milestones": ["1ep"], "schedules": [{"name": "constant"}, {"name": "x"}]}},
         "/schedule/schedules/1/name"),
        ({"precision": "bf16"}, "/precision"),
        ({"swa": {"every": "moon"}}, "/swa/every"),
        ({"batch_size": [1]}, "/batch_size"),
        ({"ema": 3}, "/ema"),
    ],
)  # fmt: skip
def test_what_this_release_does_not_know_is_told(changes: dict[str, Any], pointer: str) -> None:
    """To leave it out would be to train another job. What is shown of such a job is shown without it."""
    with pytest.raises(UnreadableSpec) as caught:
        read_stored(JobSpec, stored(**changes))
    assert [each.pointer for each in caught.value.errors] == [pointer]
    assert outline_stored_run(stored(**changes)) == RunOutline()


def test_a_row_without_what_every_job_has_is_told() -> None:
    row = stored()
    del row["model"]
    with pytest.raises(UnreadableSpec, match="/model"):
        read_job(json.dumps(row))
    with pytest.raises(UnreadableSpec):
        read_job("[]")


def test_a_runner_judges_nothing_either(tmp_path: Any) -> None:
    spec = read_stored(JobSpec, stored(log_every=10**12, clip_grad={"norm": 1.0, "value": 1.0}))
    order = Assignment(
        job="job", attempt=1, spec=spec, plan=resolve_plan(spec, "cpu"), dataset=tmp_path, scratch=tmp_path
    )
    assert read_stored(Assignment, json.loads(order.model_dump_json())) == order
