"""The average of weights beside the average of predictions."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from core.engine.datasets.resident import load_resident
from core.engine.events import CheckpointWritten
from core.recipe.data import DataSpec
from core.recipe.spec import JobSpec
from tests.train.looks import Look, kept
from tests.train.runs import Train, Watcher, job, no_trace

Trained = tuple[JobSpec, CheckpointWritten]


def trained(run: Train, **fields: object) -> Trained:
    spec = job(**{"epochs": 2, **fields})
    return spec, run(spec)[1].checkpoints()[spec.shape().run.total_steps]


def validation(spec: JobSpec, datasets: Callable[[str | DataSpec], Path]) -> tuple[Tensor, Tensor]:
    part = load_resident(spec.data, datasets(spec.data), torch.device("cpu")).validation
    return part.inputs.double().flatten(1), part.targets


def test_of_linear_models_against_the_formulas(
    run: Train, look: Look, datasets: Callable[[str | DataSpec], Path]
) -> None:
    """The loss of the mean weights is that of the mean logits; the ensemble's is that of the mean probabilities."""
    pairs = [trained(run, model={"name": "logistic"}, seed=seed) for seed in (0, 1, 2)]
    with no_trace():
        found = look(pairs, kind="average").numbers
    inputs, targets = validation(pairs[0][0], datasets)
    members = [load_file(f"{written.folder}/weights.safetensors") for _, written in pairs]
    logits = [inputs @ each["output.weight"].double().T + each["output.bias"].double() for each in members]
    own = range(len(targets))
    losses = [-torch.log_softmax(each, 1)[own, targets].mean() for each in logits]
    mean = -torch.log_softmax(torch.stack(logits).mean(0), 1)[own, targets].mean()
    mixed = -torch.softmax(torch.stack(logits), 2).mean(0)[own, targets].log().mean()
    assert [each["val"]["loss"] for each in found["members"]] == pytest.approx([float(each) for each in losses])
    assert found["average"]["val"]["loss"] == pytest.approx(float(mean))
    assert found["ensemble"]["val"]["loss"] == pytest.approx(float(mixed))
    assert not found["partial"]
    assert found["ensemble"]["train"]["loss"] <= sum(each["train"]["loss"] for each in found["members"]) / 3  # Jensen


def test_batch_norm_of_averaged_weights_is_estimated_again(
    run: Train, look: Look, datasets: Callable[[str | DataSpec], Path]
) -> None:
    """By hand: example-weighted means over the batches of the train part, whose variances are unbiased."""
    pairs = [trained(run, model={"name": "mlp", "hidden": [8], "batch_norm": True}, seed=seed) for seed in (0, 1)]
    found = look(pairs, kind="average").numbers
    spec = pairs[0][0]
    data = load_resident(spec.data, datasets(spec.data), torch.device("cpu"))
    members = [load_file(f"{written.folder}/weights.safetensors") for _, written in pairs]
    mean = {name: sum(each[name].double() for each in members) / 2 for name in members[0]}

    def hidden(inputs: Tensor) -> Tensor:
        return inputs.double().flatten(1) @ mean["dense0.weight"].T + mean["dense0.bias"]

    train = hidden(data.train.inputs)
    batches = torch.split(train, spec.shape().batch)
    assert len(batches[-1]) > 1
    centre = sum(len(each) * each.mean(0) for each in batches) / len(train)
    spread = sum(len(each) * each.var(0) for each in batches) / len(train)
    scaled = (hidden(data.validation.inputs) - centre) / (spread + 1e-5).sqrt()
    active = torch.relu(scaled * mean["dense_norm0.weight"] + mean["dense_norm0.bias"])
    logits = active @ mean["output.weight"].T + mean["output.bias"]
    loss = torch.nn.functional.cross_entropy(logits, data.validation.targets)
    assert found["average"]["val"]["loss"] == pytest.approx(float(loss), rel=1e-5)


def test_it_can_be_stopped_between_tiles_and_cancelled(run: Train, look: Look) -> None:
    """A stop leaves a checkpoint from which the same numbers come; a cancel leaves what there is, marked."""
    pairs = [trained(run, seed=seed, epochs=1) for seed in (0, 1)]
    whole = look(pairs, kind="average")
    stopped = look(pairs, Watcher(stop_after=2), kind="average")
    assert stopped.ended.outcome == "stopped"
    (written,) = stopped.watcher.checkpoints().values()
    resumed = look(pairs, resume=kept(written), kind="average")
    assert resumed.numbers == whole.numbers
    assert resumed.watcher.start == 2

    cancelled = look(pairs, Watcher(stop_after=1, request="cancel"), kind="average")
    assert (cancelled.ended.outcome, cancelled.ended.stop_reason) == ("cancelled", "cancelled")
    assert cancelled.numbers["partial"]
    assert cancelled.numbers["members"][0] == whole.numbers["members"][0]
    assert math.isnan(cancelled.numbers["ensemble"]["val"]["loss"])
    (written,) = cancelled.watcher.checkpoints("result").values()
    assert written.manifest["numbers"]["ensemble"]["val"]["loss"] == "NaN"


def test_who_is_cancelled_writes_what_matters_before_drawing(run: Train, look: Look) -> None:
    """A worker has seconds to end: the arrays and numbers are safe before the first picture is begun."""
    pairs = [trained(run, seed=seed, epochs=1) for seed in (0, 1)]
    watcher = Watcher(stop_after=1, request="cancel")
    before: list[int] = []

    def draw(*_: object) -> dict[str, bytes]:
        before.append(len(watcher.checkpoints("result")))
        return {"bars.svg": b"<svg/>"}

    look(pairs, watcher, draw=draw, kind="average")
    assert before == [1]
    (last,) = watcher.checkpoints("result").values()
    assert (Path(last.folder) / "bars.svg").read_bytes() == b"<svg/>"
    undisturbed = Watcher()
    look(pairs, undisturbed, draw=draw, kind="average")
    results = [event for event in undisturbed.events if isinstance(event, CheckpointWritten) and event.kind == "result"]
    assert len(results) == 1
