"""What every component owes, checked for each one that exists: new ones join by existing."""

import importlib
import inspect
import json
from typing import Any, get_args

import pytest
from pydantic import ValidationError

from core.recipe.averaging import AVERAGING
from core.recipe.catalog import Described, Kind, component_catalog, component_classes
from core.recipe.data import DataSpec
from core.recipe.optimizers.base import OptimizerSpec
from core.recipe.schedules.base import ScheduleSpec
from core.recipe.schedules.plateau import Plateau
from core.recipe.schedules.sequence import Sequence
from core.recipe.spec import JobSpec
from core.testing.model import check_counts
from tests.support.manifests import looked_up
from tests.support.specs import rate_of

REQUIRED: dict[str, dict[str, Any]] = {
    "step": {"step_size": "1ep"},
    "exponential": {"gamma": 0.9},
    "multistep": {"milestones": ["1ep", "100st"]},
    "pytorch_optimizer": {"optimizer": "lion", "lr": 1e-3},
    "sequence": {"schedules": [{"name": "linear"}, {"name": "cosine"}], "milestones": ["1ep"]},
    "function": {"function": "square"},
    "dataset": looked_up(dataset="birds", target="species"),
    "point": {"start": [1.0]},
}
PLAYGROUND = {"model": {"name": "point", "start": [1.0]}, "data": {"name": "function", "function": "square"}}
BESIDES: dict[str, dict[str, Any]] = {name: {**PLAYGROUND, "batch_size": "full"} for name in ("function", "point")}
"""What those need that go with nothing else."""

EVERY = [(kind, name, each) for kind in get_args(Kind) for name, each in component_classes(kind).items()]
FIELD = {"optimizers": "optimizer", "schedules": "schedule", "models": "model", "datasets": "data"}
FIELDS = {each.name: each.field for each in AVERAGING}


def job(kind: str, name: str) -> dict[str, Any]:
    """A small valid job that uses the component."""
    full = getattr(component_classes(kind)[name], "full_batch", False)  # type: ignore[index]
    base = {
        "model": {"name": "mlp", "hidden": [8, 8]},
        "data": {"name": "digits"},
        "batch_size": "full" if full else 32,
        "optimizer": {"name": "sgd"},
        "epochs": 20,
    }
    if kind == "averaging":
        return base | switched_on(name)
    return {**base, **BESIDES.get(name, {}), FIELD[kind]: {"name": name, **REQUIRED.get(name, {})}}


def switched_on(name: str) -> dict[str, Any]:
    """The field of a job that turns an averaging method on: swa.swag lies within swa, ensembles have a method."""
    document: dict[str, Any] = {"method": name} if FIELDS[name] == "ensemble" else {}
    for field in reversed(FIELDS[name].split(".")):
        document = {field: document}
    return document


def chosen(document: dict[str, Any], kind: str, name: str) -> dict[str, Any]:
    """The part of such a job that is the component's own."""
    for field in FIELDS[name].split(".") if kind == "averaging" else [FIELD[kind]]:
        document = document[field]
    return document


@pytest.mark.parametrize(("kind", "name", "component"), EVERY)
def test_describes_itself(kind: str, name: str, component: type[Described]) -> None:
    assert component.summary.endswith(".")
    assert component.__doc__
    entry = next(each for each in component_catalog()[kind] if each.name == name)  # type: ignore[index]
    assert json.loads(entry.model_dump_json())["parameters"]["type"] == "object"


@pytest.mark.parametrize(("kind", "name", "component"), EVERY)
def test_resolves_once_and_for_all(kind: str, name: str, component: type[Described]) -> None:
    spec = JobSpec.model_validate_json(json.dumps(job(kind, name)))
    resolved = spec.resolved()
    again = JobSpec.model_validate_json(json.dumps(resolved.dump()))
    assert again.resolved() == resolved == again
    assert hash(resolved.model_dump_json()) == hash(again.model_dump_json())


@pytest.mark.parametrize(("kind", "name", "component"), EVERY)
def test_is_frozen_and_strict(kind: str, name: str, component: type[Described]) -> None:
    document = job(kind, name)
    chosen(document, kind, name)["no_such_field"] = 1
    with pytest.raises(ValidationError, match="no_such_field"):
        JobSpec.model_validate_json(json.dumps(document))
    spec = component.model_validate_json(json.dumps(REQUIRED.get(name, {})))
    with pytest.raises(ValidationError, match="frozen"):
        setattr(spec, next(iter(component.model_fields)), None)


@pytest.mark.parametrize(("name", "component"), component_classes("optimizers").items())
def test_optimizer_defaults_are_torchs_own(name: str, component: type[OptimizerSpec]) -> None:
    spec = component.model_validate_json(json.dumps(REQUIRED.get(name, {})))
    module, attribute = spec.import_string().split(":")
    torchs = inspect.signature(getattr(importlib.import_module(module), attribute)).parameters
    assert set(spec.kwargs()) <= set(torchs)
    for option, value in spec.kwargs().items():
        if option not in REQUIRED.get(name, {}):
            assert torchs[option].default == value, option


def test_a_sequence_may_hold_every_schedule_of_the_step_alone_but_itself() -> None:
    member = get_args(Sequence.model_fields["schedules"].annotation)[0]
    members = set(get_args(get_args(member)[0]))
    assert members == set(component_classes("schedules").values()) - {Sequence, Plateau}


@pytest.mark.parametrize(("name", "component"), component_classes("schedules").items())
def test_schedule_is_finite_and_non_negative(name: str, component: type[ScheduleSpec]) -> None:
    spec = JobSpec.model_validate_json(json.dumps(job("schedules", name)))
    rate = rate_of(spec)
    rates = [rate(t) for t in range(spec.shape().run.total_steps)]
    assert all(0 <= lr <= 10 for lr in rates)


@pytest.mark.parametrize("name", component_classes("models"))
def test_a_model_says_of_its_network_what_is_so(name: str) -> None:
    spec = JobSpec.model_validate_json(json.dumps(job("models", name)))
    check_counts(spec.model, spec.data.facts())


BUILT_IN = [pair for pair in component_classes("datasets").items() if pair[0] != "dataset"]


@pytest.mark.parametrize(("name", "component"), BUILT_IN)
def test_dataset_is_what_its_facts_say(name: str, component: type[DataSpec], datasets: Any) -> None:
    from safetensors.numpy import load_file

    spec = component.model_validate_json(json.dumps(REQUIRED.get(name, {})))
    facts = spec.facts()
    assert datasets(spec) == datasets(json.dumps({"name": name, **REQUIRED[name]}) if name in REQUIRED else name)
    tensors = load_file(datasets(spec))
    assert tensors["inputs"].shape == (facts.examples, *facts.input_shape)
    assert tensors["inputs"].dtype == "float32"
    if facts.classes:
        assert sorted(set(tensors["targets"].tolist())) == list(range(facts.classes))
    else:
        assert tensors["targets"].shape == (facts.examples, facts.outputs)
