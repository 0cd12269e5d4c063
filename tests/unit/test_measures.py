"""Losses and metrics in a job: a name or an object, what is stored of them, and those of plug-ins."""

import json
import subprocess
import sys
from typing import Any

import pytest

from core.errors import InvalidSpec, UnreadableSpec
from core.recipe.losses import LossSpec
from core.recipe.metrics import MetricSpec
from core.recipe.monitor import default_mode
from core.recipe.parse import parse_job
from core.recipe.plugins import find_problem
from core.recipe.spec import JobSpec
from core.recipe.stored import read_job
from tests.support.measures import AbsoluteLoss
from tests.support.plugins import write_distribution
from tests.support.service import ROOT

JOB: dict[str, Any] = {
    "model": {"name": "mlp"},
    "data": {"name": "digits"},
    "optimizer": {"name": "sgd"},
    "epochs": 2,
}
SPECS = '''
from typing import ClassVar, Literal
from core.recipe.losses.base import LossSpec
from core.recipe.metrics.base import MetricSpec
class Bent(LossSpec):
    """Bent."""
    summary: ClassVar[str] = "A loss of a test."
    implementation: ClassVar[str] = "own_measures.engine:build"
    tasks: ClassVar = ("classification",)
    name: Literal["bent"] = "bent"
    delta: float = 0.5
class Straight(Bent):
    """Straight."""
    name: Literal["straight"] = "straight"
    delta: float
class Best(MetricSpec):
    """Best."""
    summary: ClassVar[str] = "A metric of a test."
    implementation: ClassVar[str] = "own_measures.engine:build"
    tasks: ClassVar = ("classification",)
    mode: ClassVar = "max"
    name: Literal["best"] = "best"
class Twin(Best):
    """A metric may have the name of a loss."""
    name: Literal["bent"] = "bent"
class Named(MetricSpec):
    """As the loss."""
    summary: ClassVar[str] = "A metric of a test."
    implementation: ClassVar[str] = "own_measures.engine:build"
    tasks: ClassVar = ("classification",)
    name: Literal["loss"] = "loss"
'''
REPORT = """
import json
from core.errors import InvalidSpec
from core.recipe.catalog import component_classes
from core.recipe.parse import parse_job
from core.recipe.plan import resolve_plan
from core.recipe.plugins import installed_plugins, plugin_identities
from core.recipe.spec import JobSpec
from core.recipe.stored import read_job
JOB = %r
def answer(**fields):
    try:
        spec = parse_job(json.dumps({**JOB, **fields}).encode())
    except InvalidSpec as error:
        return [[each.pointer, each.message, each.hint] for each in error.errors]
    assert read_job(spec.model_dump_json()) == spec
    shown = spec.dump()
    return [shown["loss"], shown["metrics"], list(resolve_plan(spec, "cpu").plugins or ())]
stopping = parse_job(json.dumps({**JOB, "metrics": ["best"], "early_stopping": {"monitor": "val.best"}}).encode())
schema = JobSpec.model_json_schema()
print(json.dumps({
    "refused": {each.name: each.reason for each in installed_plugins().refused},
    "entry points": [list(each.entry_points) for each in installed_plugins().refused],
    "losses": list(component_classes("losses")), "metrics": list(component_classes("metrics")),
    "by name": answer(loss="bent"), "object": answer(loss={"name": "bent", "delta": 2}),
    "requires": answer(loss="straight"), "metric": answer(metrics=["accuracy", "best"]),
    "metric as object": answer(metrics=[{"name": "best"}]), "built in": answer(),
    "misspelt": answer(loss="bnt"), "field": answer(loss={"name": "bent", "dleta": 2}),
    "smoothing": answer(loss="bent", label_smoothing=0.1),
    "mode": stopping.early_stopping.mode,
    "schema": sorted(each for each in schema["$defs"] if each in {"Bent", "Best"}),
}))
"""


def problems(**fields: Any) -> list[tuple[str, str | None]]:
    with pytest.raises(InvalidSpec) as refused:
        parse_job(json.dumps({**JOB, **fields}).encode())
    return [(each.pointer, each.hint) for each in refused.value.errors]


def test_a_name_and_its_object_are_one_job_and_the_name_is_stored() -> None:
    """The bytes of every release: a string, and no object."""
    plain = parse_job(json.dumps(JOB).encode())
    objects = {"loss": {"name": "cross_entropy"}, "metrics": [{"name": "accuracy"}]}
    assert parse_job(json.dumps({**JOB, **objects}).encode()) == plain
    assert '"loss":"cross_entropy",' in plain.model_dump_json()
    assert '"metrics":["accuracy"],' in plain.model_dump_json()
    stored = plain.dump()
    for each in (stored, {**stored, **objects}):
        read = read_job(json.dumps(each))
        assert (read, read.model_dump_json()) == (plain, plain.model_dump_json())
    assert JobSpec.model_validate_json(json.dumps(stored)) == plain


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ({"loss": "mes"}, [("/loss", 'did you mean "mse"?')]),
        ({"loss": {"name": "mes"}}, [("/loss/name", 'did you mean "mse"?')]),
        ({"loss": {"name": "mse", "delta": 1}}, [("/loss/delta", None)]),
        ({"loss": {}}, [("/loss/name", None)]),
        ({"loss": 7}, [("/loss", None)]),
        ({"loss": "mse"}, [("/loss", "use cross_entropy")]),
        ({"metrics": ["acuracy"]}, [("/metrics/0", 'did you mean "accuracy"?')]),
        ({"metrics": ["accuracy", "r2"]}, [("/metrics/1", "use accuracy")]),
        ({"metrics": ["accuracy", {"name": "accuracy", "k": 5}]}, [("/metrics/1/k", None)]),
        ({"metrics": "accuracy"}, [("/metrics", None)]),
        ({"metadata": {"object": 7}}, [("/metadata/object", None)]),
    ],
)
def test_each_wrong_form_has_one_problem_at_its_place(
    fields: dict[str, Any], found: list[tuple[str, str | None]]
) -> None:
    assert problems(**fields) == found


def test_a_stored_name_that_is_not_here_is_unreadable_at_its_place() -> None:
    stored = parse_job(json.dumps(JOB).encode()).dump()
    for change, pointer in (
        ({"loss": "of_a_plugin"}, "/loss"),
        ({"loss": {"name": "of_a_plugin", "delta": 1}}, "/loss/name"),
        ({"metrics": ["accuracy", "of_a_plugin"]}, "/metrics/1"),
    ):
        with pytest.raises(UnreadableSpec) as unreadable:
            read_job(json.dumps({**stored, **change}))
        assert unreadable.value.pointer == pointer


def test_higher_is_better_where_the_class_says_so() -> None:
    modes = {name: default_mode(f"swa.val.{name}") for name in ("loss", "accuracy", "mae", "r2", "unknown")}
    assert modes == {"loss": "min", "accuracy": "max", "mae": "min", "r2": "max", "unknown": "min"}


def test_a_class_without_tasks_is_refused() -> None:
    assert find_problem(AbsoluteLoss, LossSpec) is None
    assert find_problem(AbsoluteLoss, MetricSpec) == "it is no subclass of MetricSpec"
    without = type("Without", (AbsoluteLoss,), {"tasks": (), "__module__": __name__})
    assert find_problem(without, LossSpec) == "it has no `tasks`"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a process finds where distributions have two losses, two metrics, and a metric named `loss`."""
    folder = tmp_path_factory.mktemp("installed")
    files = {"own_measures/__init__.py": "", "own_measures/specs.py": SPECS}
    write_distribution(folder, "basin-bent", files, {"basin.losses": "own_measures.specs:Bent"})
    write_distribution(folder, "basin-straight", {}, {"basin.losses": "own_measures.specs:Straight"})
    write_distribution(folder, "basin-best", {}, {"basin.metrics": "own_measures.specs:Best"})
    write_distribution(folder, "basin-twin", {}, {"basin.metrics": "own_measures.specs:Twin"})
    write_distribution(folder, "basin-named", {}, {"basin.metrics": "own_measures.specs:Named"})
    done = subprocess.run(
        [sys.executable, "-c", REPORT % JOB],
        env={"PYTHONPATH": f"{ROOT}:{folder}", "PATH": ""},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_those_of_plugins_join(report: dict[str, Any]) -> None:
    assert report["losses"] == ["cross_entropy", "mse", "function", "bent", "straight"]
    assert report["metrics"] == ["accuracy", "mae", "r2", "best", "bent"]
    reason = "own_measures.specs:Named (basin.metrics): there is a 'loss' already"
    assert (report["refused"], report["entry points"]) == (
        {"basin-named": reason},
        [["basin.metrics:of_basin_named"]],
    )
    assert report["schema"] == ["Bent", "Best"]


def test_with_fields_it_is_an_object_and_the_plan_names_its_plugin(report: dict[str, Any]) -> None:
    """A name stands for the defaults, which are written out: another release may have others."""
    assert report["by name"] == [{"name": "bent", "delta": 0.5}, ["accuracy"], ["basin-bent"]]
    assert report["object"] == [{"name": "bent", "delta": 2.0}, ["accuracy"], ["basin-bent"]]
    assert report["metric"] == ["cross_entropy", ["accuracy", "best"], ["basin-best"]]
    assert report["metric as object"] == ["cross_entropy", ["best"], ["basin-best"]]
    assert report["built in"] == ["cross_entropy", ["accuracy"], []]
    assert report["mode"] == "max"


def test_a_wrong_one_is_named(report: dict[str, Any]) -> None:
    known = "must be 'cross_entropy', 'mse', 'function' or 'bent'"
    assert report["requires"] == [["/loss", known, None]]  # it has no default, so its name alone is not enough
    assert report["misspelt"] == [["/loss", known, 'did you mean "bent"?']]
    assert report["field"] == [["/loss/dleta", "unknown field", 'did you mean "delta"?']]
    message = "the loss bent does not smooth labels"
    assert report["smoothing"] == [["/label_smoothing", message, "leave it out"]]
