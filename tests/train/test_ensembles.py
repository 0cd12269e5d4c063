"""Members are the networks that stood at their steps; their probabilities are averaged, not their logits."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from core.engine.checkpoints.files import check_tensors
from core.engine.datasets.resident import TensorSplit, load_resident
from core.engine.events import CheckpointWritten, Ended
from core.engine.networks.network import build_network
from core.engine.weights.ensemble import Ensemble
from core.recipe.averaging import CollectionSteps
from core.recipe.facts import DataFacts
from core.recipe.models.mlp import MLP
from core.recipe.spec import JobSpec
from tests.support.specs import rate_of
from tests.train.runs import Train, Watcher, digests, job

NORMED = {"name": "mlp", "hidden": [16], "batch_norm": True, "dropout": 0.1}
SNAPSHOT = {"method": "snapshot", "cycles": 3, "lr": 0.2}
FGE = {"method": "fge", "start": "14st", "cycle": "4st"}
LAST = {"method": "checkpoints", "every": "4st", "members": 3}


def weights(checkpoint: CheckpointWritten) -> dict[str, Any]:
    return load_file(f"{checkpoint.folder}/weights.safetensors")


def metrics_of(ending: Ended, name: str) -> dict[str, float]:
    return {f"{split}.{metric}": v for split, part in ending.results[name].items() for metric, v in part.items()}


@pytest.mark.parametrize(
    ("ensemble", "steps"),
    [
        (SNAPSHOT, [8, 16, 24]),
        ({**SNAPSHOT, "cycles": 5, "members": 3}, [16, 20, 24]),
        (FGE, [16, 20, 24]),
        (LAST, [16, 20, 24]),
    ],
    ids=["snapshot", "last-snapshots", "fge", "checkpoints"],
)
def test_members_are_kept_as_they_stood(run: Train, ensemble: dict[str, Any], steps: list[int]) -> None:
    """Weights, batch-norm statistics and all: the same file, byte for byte, as the checkpoint of that step."""
    ending, watcher = run(job(model=NORMED, ensemble=ensemble, evaluate={"every": "4st"}), checkpoint_seconds=0.0)
    for step in steps:
        kept = watcher.checkpoints("snapshot")[step]
        assert digests(kept)["weights"] == digests(watcher.checkpoints()[step])["weights"]
        assert kept.metrics == metrics_of(ending, f"member_{steps.index(step) + 1}")
        assert kept.metrics["val.loss"] == dict(watcher.series()["val.loss"])[step]
        assert (kept.epoch, kept.resumable) == (step // 8, False)
    members = {f"member_{number + 1}" for number in range(len(steps))}
    assert set(ending.results) == {"base", "ensemble", "average", *members}


@pytest.mark.parametrize("ensemble", [SNAPSHOT, FGE, LAST], ids=["snapshot", "fge", "checkpoints"])
def test_it_grows_with_each_member(run: Train, ensemble: dict[str, Any]) -> None:
    spec = job(model=NORMED, ensemble=ensemble, evaluate={"every": "1st"})
    ending, watcher = run(spec)
    series = watcher.series()
    assert spec.ensemble
    collection_steps = list(spec.ensemble.collection_steps(spec.shape().run).steps_until(24))
    base = dict(series["val.loss"])
    assert series["member.val.loss"] == [(step, base[step]) for step in collection_steps]
    assert [step for step, _ in series["ensemble.val.loss"]] == collection_steps
    assert series["ensemble.val.loss"][0][1] == pytest.approx(base[collection_steps[0]], rel=1e-6)
    assert series["ensemble.val.loss"][-1] == (collection_steps[-1], ending.results["ensemble"]["val"]["loss"])
    assert series["ensemble.test.loss"] == [(24, ending.results["ensemble"]["test"]["loss"])]
    rate = rate_of(spec)
    assert dict(series["lr"]) == {t: rate(t) for t in range(24)}


def by_hand(run: Train, spec: JobSpec, dataset: Any) -> tuple[Ended, list[Any], Any]:
    """(ending, float64 outputs of each member on the test part, its targets) of a model that is one linear layer."""
    ending, watcher = run(spec)
    part = load_resident(spec.data, dataset, torch.device("cpu")).test
    inputs = part.inputs.flatten(1).double().numpy()
    members = [weights(each) for _, each in sorted(watcher.checkpoints("snapshot").items())]
    outputs = [inputs @ each["output.weight"].astype(np.float64).T + each["output.bias"] for each in members]
    return ending, outputs, part.targets.numpy()


def test_probabilities_are_averaged(run: Train, datasets: Any) -> None:
    """The mean softmax in numpy: its negative logarithm at the true class, and how often it is largest there."""
    spec = job(model={"name": "logistic"}, ensemble=SNAPSHOT)
    ending, logits, targets = by_hand(run, spec, datasets(spec.data))
    exponentials = [np.exp(each - each.max(1, keepdims=True)) for each in logits]
    probabilities = np.mean([each / each.sum(1, keepdims=True) for each in exponentials], axis=0)
    found = ending.results["ensemble"]["test"]
    assert found["loss"] == pytest.approx(-np.log(probabilities[np.arange(len(targets)), targets]).mean(), rel=1e-5)
    assert found["accuracy"] == (probabilities.argmax(1) == targets).mean()


def test_outputs_of_a_regression_are_averaged(run: Train, datasets: Any) -> None:
    """Averaging the weights of a linear model is the same thing."""
    spec = job(
        model={"name": "logistic"}, data={"name": "diabetes"}, optimizer={"name": "sgd", "lr": 0.02}, ensemble=LAST
    )
    ending, outputs, targets = by_hand(run, spec, datasets(spec.data))
    loss = ((np.mean(outputs, axis=0) - targets) ** 2).mean()
    assert ending.results["ensemble"]["test"]["loss"] == pytest.approx(loss, rel=1e-5)
    for name, value in metrics_of(ending, "average").items():
        assert value == pytest.approx(metrics_of(ending, "ensemble")[name], rel=1e-4)


def test_the_ensemble_is_never_worse_than_its_members_on_average(run: Train) -> None:
    """Jensen: -log of a mean of probabilities is at most the mean of their -logs, whatever the networks are."""
    for seed in range(3):
        ending, _ = run(job(model=NORMED, ensemble=SNAPSHOT, seed=seed))
        for split in ("val", "test"):
            losses = [ending.results[f"member_{number}"][split]["loss"] for number in (1, 2, 3)]
            assert ending.results["ensemble"][split]["loss"] < sum(losses) / 3
            assert max(losses) - min(losses) > 1e-3, "equal members would show nothing"


def test_the_average_of_the_members_is_what_swa_makes_of_them(run: Train) -> None:
    """The same four networks, 12, 16, 20 and 24, in SWA's mean and in the ensemble's average."""
    swa = {"start": "12st", "every": "4st"}
    ending, _ = run(job(model=NORMED, ensemble={**LAST, "members": 4}, swa=swa))
    assert metrics_of(ending, "average") == pytest.approx(metrics_of(ending, "swa"), rel=1e-6)
    assert ending.results["average"] != ending.results["ensemble"]


def test_the_trained_weights_never_feel_it(run: Train) -> None:
    """An ensemble of checkpoints leaves the run as it is; how often it is evaluated changes no bit of a snapshot's."""
    _, plain = run(job(model=NORMED))
    _, watched = run(job(model=NORMED, ensemble=LAST))
    assert digests(watched.checkpoints()[24])["weights"] == digests(plain.checkpoints()[24])["weights"]
    _, quiet = run(job(model=NORMED, ensemble=SNAPSHOT, evaluate={"every": "1run"}))
    _, busy = run(job(model=NORMED, ensemble=SNAPSHOT, evaluate={"every": "1st"}, checkpoints={"every": "1st"}))
    assert digests(busy.checkpoints()[24]) == digests(quiet.checkpoints()[24])
    for step in (8, 16, 24):
        assert digests(busy.checkpoints("snapshot")[step]) == digests(quiet.checkpoints("snapshot")[step])


def test_what_is_restored_forgets_what_came_after() -> None:
    """Taken back to its first member, an ensemble asks the next one anew, also when it has the step of another."""
    facts = DataFacts(examples=9, input_shape=(4,), task="classification", outputs=3)
    visited, own = (build_network(MLP(hidden=(4,), batch_norm=True), facts, 0, torch.device("cpu")) for _ in range(2))
    part = TensorSplit(torch.randn(9, 4, generator=torch.Generator().manual_seed(0)), torch.zeros(9, dtype=torch.int64))
    ensemble = Ensemble(CollectionSteps(2, 2), 3, own)
    ensemble.collect(visited)
    first = {name: each.clone() for name, each in ensemble.tensors().items()}
    seen = []
    for factor in (2.0, -3.0):
        with torch.no_grad():
            visited.weights.mul_(factor)
        ensemble.collect(visited)
        seen.append([each.clone() for each in ensemble.member_outputs(part)])
        assert ensemble.member_steps == range(2, 6, 2)
        ensemble.restore(first)
        assert ensemble.member_steps == range(2, 4, 2)
    (before, other), (again, make_network) = seen
    assert torch.equal(before, again)
    assert not torch.equal(other, make_network)


def test_a_state_of_the_release_before_is_read() -> None:
    """It counted what came in and knew of nothing missed."""
    facts = DataFacts(examples=9, input_shape=(4,), task="classification", outputs=3)
    visited, *own = (build_network(MLP(hidden=(4,)), facts, 0, torch.device("cpu")) for _ in range(3))
    ensemble, other = (Ensemble(CollectionSteps(2, 2), 3, each) for each in own)
    for _ in range(4):
        ensemble.collect(visited)
    written = {name: each for name, each in ensemble.tensors().items() if name != "ensemble.counts"}
    written["ensemble.collected"] = torch.tensor(4)
    check_tensors("state", written, other.expected(written, 8))
    other.restore(written)
    assert (ensemble.member_steps, other.member_steps) == (range(4, 10, 2), range(4, 10, 2))
    assert all(torch.equal(each, other.tensors()[name]) for name, each in ensemble.tensors().items())


def test_members_go_out_with_each_resumable_checkpoint_once(run: Train) -> None:
    """Collected at 4, 8 … 24, three kept: at 15 those of 4, 8 and 12 are there, at 24 those that were never written."""
    _, watcher = run(job(ensemble=LAST, checkpoints={"every": "15st"}))
    order = [(each.kind, each.step) for each in watcher.events if isinstance(each, CheckpointWritten)]
    early = [("snapshot", 4), ("snapshot", 8), ("snapshot", 12), ("last", 15)]
    assert order == [*early, ("snapshot", 16), ("snapshot", 20), ("snapshot", 24), ("last", 24)]


def test_who_cancels_keeps_the_members(run: Train) -> None:
    ending, watcher = run(job(ensemble=SNAPSHOT), Watcher(stop_after=17, request="cancel"))
    assert ending.outcome == "cancelled"
    found = watcher.checkpoints("snapshot")
    assert {step: each.metrics["val.loss"] for step, each in found.items()} == dict(watcher.series()["member.val.loss"])
    assert list(found) == [8, 16]


@pytest.mark.parametrize(
    ("model", "lr", "survivors"),
    [
        pytest.param({"name": "logistic"}, 1e30, [1], id="the-second-has-infinite-weights"),
        pytest.param({"name": "mlp", "hidden": [4]}, 1e30, [], id="the-first-has-infinite-outputs"),
    ],
)
def test_who_diverges_keeps_the_members_that_are_numbers(
    run: Train, model: dict[str, Any], lr: float, survivors: list[int]
) -> None:
    spec = job(
        data={"name": "diabetes"},
        model=model,
        optimizer={"name": "sgd", "lr": lr},
        ensemble={"method": "checkpoints", "every": "1st", "members": 9},
    )
    ending, watcher = run(spec)
    assert (ending.outcome, ending.stop_reason) == ("failed", "non_finite")
    kept = watcher.checkpoints("snapshot")
    assert list(kept) == survivors
    assert all(np.isfinite(value).all() for each in kept.values() for value in weights(each).values())
    assert all(math.isfinite(value) for each in kept.values() for value in each.metrics.values())


def test_a_run_that_stops_early_has_the_members_that_it_met(run: Train) -> None:
    stopping = {"patience": 1, "min_delta": 100.0}
    ending, watcher = run(job(ensemble=LAST, early_stopping=stopping, evaluate={"every": "5st"}))
    assert (ending.stop_reason, ending.progress["step"]) == ("early_stopping", 10)
    assert list(watcher.checkpoints("snapshot")) == [4, 8]
    assert set(ending.results) == {"base", "best", "ensemble", "member_1", "member_2", "average"}


def test_nothing_held_out_nothing_judged(run: Train) -> None:
    ending, watcher = run(job(data={"name": "iris", "validation": 0.0, "test": 0.0}, ensemble=LAST, batch_size=50))
    assert ending.outcome == "succeeded"
    assert ending.results == {}
    assert len(watcher.checkpoints("snapshot")) == 2
