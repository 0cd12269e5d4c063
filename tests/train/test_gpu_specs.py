"""What is tried on a GPU, tried without one: no minute of a device goes to a job that is refused."""

import pytest

from core.engine.events import RolledBack
from core.recipe.catalog import component_classes
from core.recipe.spec import JobSpec
from tests.gpu.specs import MODELS, STEPS, further_specs, learning, stepped_specs
from tests.train.runs import Train


def test_every_optimizer_has_its_two_jobs() -> None:
    names = {name.rpartition("-")[0] for name in stepped_specs()}
    assert names == set(component_classes("optimizers"))
    assert len(stepped_specs()) == len(MODELS) * len(names)


@pytest.mark.parametrize("spec", [pytest.param(spec, id=name) for name, spec in stepped_specs().items()])
def test_a_job_for_the_gpu_trains_on_a_cpu(run: Train, spec: JobSpec) -> None:
    assert spec.shape().run.total_steps == STEPS
    ending, watcher = run(spec)
    assert ending.outcome == "succeeded", ending.error
    assert max(watcher.checkpoints()) == STEPS


@pytest.mark.parametrize("name", further_specs())
def test_what_keeps_more_state_trains_on_a_cpu(run: Train, name: str) -> None:
    ending, watcher = run(further_specs()[name])
    assert ending.outcome == "succeeded", ending.error
    assert any(isinstance(event, RolledBack) for event in watcher.events) == (name == "rollback")


def test_the_network_that_shall_learn_on_a_gpu_learns(run: Train) -> None:
    ending, _ = run(learning())
    assert ending.results["base"]["test"]["accuracy"] > 0.9
