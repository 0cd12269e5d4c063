"""The mean is the arithmetic mean of its members, its batch norm is that of the train part, and nobody notices it."""

from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from core.engine.datasets.resident import TensorSplit
from core.engine.evaluation.batch_norm import chunk_sizes, reestimate_batch_norm
from core.engine.events import CheckpointWritten
from core.engine.networks.network import Network, build_network
from core.recipe.facts import DataFacts
from core.recipe.models.cnn import CNN
from core.recipe.models.mlp import MLP
from tests.train.runs import Train, Watcher, digests, job

CPU = torch.device("cpu")
PICTURES = DataFacts(examples=50, input_shape=(1, 8, 8), task="classification", outputs=10)
TABLE = DataFacts(examples=50, input_shape=(6,), task="classification", outputs=3)


def weights(checkpoint: CheckpointWritten) -> dict[str, Any]:
    return load_file(f"{checkpoint.folder}/weights.safetensors")


@pytest.mark.parametrize(
    "model",
    [
        {"name": "mlp", "hidden": [16], "batch_norm": True, "dropout": 0.1},
        {"name": "cnn", "channels": [4], "hidden": [8]},
        {"name": "logistic"},
    ],
    ids=["mlp", "cnn", "logistic"],
)
def test_swa_is_the_arithmetic_mean_of_its_members(run: Train, model: dict[str, Any]) -> None:
    spec = job(model=model, epochs=4, swa={"start": "10st", "every": "5st"})
    _, watcher = run(spec, checkpoint_seconds=0.0)
    members = [weights(watcher.checkpoints()[step]) for step in (10, 15, 20, 25, 30)]
    mean = weights(watcher.checkpoints("swa")[32])
    assert watcher.checkpoints("swa")[32].manifest["models"] == len(members)
    learned = [name for name in mean if name.endswith(("weight", "bias"))]
    assert len(learned) >= 2
    for name in learned:
        expected = np.mean([member[name].astype(np.float64) for member in members], axis=0)
        np.testing.assert_allclose(mean[name], expected, rtol=1e-5, atol=1e-7)
    for name in ("standardize.mean", "standardize.std"):
        np.testing.assert_array_equal(mean[name], members[0][name])


def test_the_trained_weights_never_feel_the_average(run: Train) -> None:
    """With SWA's rate equal to the optimizer's, a run with SWA must be the run without, bit for bit."""
    model = {"name": "mlp", "hidden": [16], "batch_norm": True, "dropout": 0.1}
    _, plain = run(job(model=model))
    _, averaged = run(job(model=model, swa={"start": "2st", "lr": 0.1, "anneal": "0st", "every": "1st"}))
    assert averaged.series()["train.loss"] == plain.series()["train.loss"]
    assert averaged.series()["val.loss"] == plain.series()["val.loss"]
    first, second = (digests(each.checkpoints()[24])["weights"] for each in (plain, averaged))
    assert first == second


def test_swa_series_start_with_the_first_model(run: Train) -> None:
    spec = job(epochs=4, swa={"start": "10st", "every": "5st"}, evaluate={"every": "2st"})
    ending, watcher = run(spec)
    assert [step for step, _ in watcher.series()["swa.val.loss"]] == list(range(10, 33, 2))
    assert watcher.series()["swa.test.accuracy"][-1] == (32, ending.results["swa"]["test"]["accuracy"])
    rates = dict(watcher.series()["lr"])
    assert rates[9] == pytest.approx(0.1)
    assert rates[31] == pytest.approx(0.05)  # half the optimizer's, unless said otherwise


def test_a_linear_model_averages_its_outputs(run: Train) -> None:
    """Softmax regression is linear in its weights, so SWA's logits are the mean of the logits of its members.

    They are the weights at the ends of the last three epochs, the very last one among them.
    """
    spec = job(model={"name": "logistic"}, epochs=5, swa={"start": "3ep"})
    _, watcher = run(spec, checkpoint_seconds=0.0)
    members = [weights(watcher.checkpoints()[step]) for step in (24, 32, 40)]
    mean = weights(watcher.checkpoints("swa")[40])
    inputs = np.random.default_rng(0).normal(size=(30, 64))
    logits = [inputs @ each["output.weight"].astype(np.float64).T + each["output.bias"] for each in (*members, mean)]
    np.testing.assert_allclose(logits[-1], np.mean(logits[:-1], axis=0), rtol=0, atol=1e-5)
    assert np.abs(logits[0] - logits[1]).max() > 1e-2, "the members must differ, or this shows nothing"


def test_a_cyclic_tail_is_averaged_at_its_minima(run: Train) -> None:
    """40 steps, cycles of 8 from step 16 on: 24, 32 and 40, each after a step at the lowest rate."""
    spec = job(epochs=5, swa={"start": "2ep", "cycle": "1ep", "lr": 0.08, "lr_min": 0.02})
    _, watcher = run(spec, checkpoint_seconds=0.0)
    rates = dict(watcher.series()["lr"])
    assert [rates[step - 1] for step in (24, 32, 40)] == [0.02] * 3
    assert [rates[t] for t in (15, 16, 17)] == pytest.approx([0.1, 0.0725, 0.065])
    members = [weights(watcher.checkpoints()[step])["dense0.weight"].astype(np.float64) for step in (24, 32, 40)]
    mean = weights(watcher.checkpoints("swa")[40])["dense0.weight"]
    np.testing.assert_allclose(mean, np.mean(members, axis=0), rtol=1e-5, atol=1e-7)


NORMED = {"name": "mlp", "hidden": [16], "batch_norm": True, "dropout": 0.1}


@pytest.mark.parametrize("kind", ["swa", "ema"])
def test_without_update_bn_the_average_has_the_trained_networks_statistics(run: Train, kind: str) -> None:
    """Those of the end, although the last weights came in at step 21 of 24. Its weights are what they were."""
    fields: dict[str, Any] = {"start": "9st", "every": "6st"}
    its_own, own = run(job(model=NORMED, **{kind: fields}))
    ending, borrowed = run(job(model=NORMED, **{kind: {**fields, "update_bn": False}}))
    trained = weights(borrowed.checkpoints()[24])
    mean, updated = (weights(each.checkpoints(kind)[24]) for each in (borrowed, own))
    statistics = [name for name in mean if "running_" in name or name.endswith("batches_tracked")]
    assert len(statistics) == 3
    for name, value in mean.items():
        np.testing.assert_array_equal(value, trained[name] if name in statistics else updated[name], err_msg=name)
    assert np.abs(mean["dense_norm0.running_mean"] - updated["dense_norm0.running_mean"]).max() > 1e-3
    assert digests(own.checkpoints()[24])["weights"] == digests(borrowed.checkpoints()[24])["weights"]
    assert ending.results[kind] != its_own.results[kind]
    assert ending.results["base"] == its_own.results["base"]


@pytest.mark.parametrize("stop", [8, 9, 11, 17])
def test_borrowed_statistics_survive_a_resume(run: Train, stop: int) -> None:
    """An interruption, and evaluations that the other run does not make, change no bit of either average."""
    averages: dict[str, Any] = {
        "swa": {"start": "9st", "every": "4st", "update_bn": False},
        "ema": {"decay": 0.9, "start": "5st", "every": "3st", "update_bn": False, "with_swa": True},
    }
    ending, whole = run(job(model=NORMED, evaluate={"every": "1run"}, **averages))
    _, first = run(job(model=NORMED, evaluate={"every": "1st"}, **averages), Watcher(stop_after=stop))
    again, second = run(job(model=NORMED, evaluate={"every": "1st"}, **averages), resume=first.checkpoints()[stop])
    assert again.results == ending.results
    for kind in ("last", "swa", "ema"):
        assert digests(second.checkpoints(kind)[24]) == digests(whole.checkpoints(kind)[24])


def test_an_accident_while_statistics_are_estimated_leaves_no_trace() -> None:
    network = build_network(MLP(hidden=(4,), batch_norm=True), TABLE, 0, CPU)
    network.module.train()
    with pytest.raises(RuntimeError):
        reestimate_batch_norm(network, TensorSplit(torch.zeros(4, 7), torch.zeros(4)), 2)  # one feature too many
    assert all(layer.training for layer in network.module.modules())
    assert {layer.momentum for layer in network.module.modules() if hasattr(layer, "momentum")} == {0.1}


def naive_statistics(network: Network, inputs: torch.Tensor, batch_size: int) -> dict[str, np.ndarray[Any, Any]]:
    """Example-weighted means over batches of what each batch norm layer sees; slow, in order, by the definition."""
    sums: dict[str, Any] = {}
    for batch in torch.split(inputs, chunk_sizes(len(inputs), batch_size)):
        values = batch.double()
        for name, layer in network.module.double().named_children():
            if isinstance(layer, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
                axes = tuple(axis for axis in range(values.ndim) if axis != 1)
                shape = [1, -1, *[1] * (values.ndim - 2)]
                mean = values.detach().numpy().mean(axes)
                count = values.numel() // values.shape[1]
                variance = values.detach().numpy().var(axes) * count / (count - 1)
                old = sums.setdefault(name, [0.0, 0.0])
                sums[name] = [old[0] + len(batch) * mean, old[1] + len(batch) * variance]
                biased = torch.from_numpy(variance * (count - 1) / count).reshape(shape)
                values = (values - torch.from_numpy(mean).reshape(shape)) / torch.sqrt(biased + layer.eps)
                values = values * layer.weight.reshape(shape) + layer.bias.reshape(shape)
            elif not isinstance(layer, torch.nn.Dropout):
                values = layer(values)
    return {
        f"{name}.running_{kind}": total / len(inputs)
        for name, pair in sums.items()
        for kind, total in zip(("mean", "var"), pair, strict=True)
    }


@pytest.mark.parametrize("batch_size", [16, 7, 50])
@pytest.mark.parametrize(
    ("spec", "facts"),
    [(MLP(hidden=(5, 4), batch_norm=True, dropout=0.5), TABLE), (CNN(channels=(3, 4), dropout=0.5), PICTURES)],
    ids=["mlp", "cnn"],
)
def test_reestimated_batch_norm_equals_the_naive_one(spec: Any, facts: DataFacts, batch_size: int) -> None:
    network = build_network(spec, facts, 3, CPU)
    inputs = torch.randn(50, *facts.input_shape, generator=torch.Generator().manual_seed(1)) * 3 + 1
    network.module.train()
    before = torch.default_generator.get_state()
    reestimate_batch_norm(network, TensorSplit(inputs, torch.zeros(len(inputs))), batch_size)
    assert torch.equal(torch.default_generator.get_state(), before)
    assert all(layer.training for layer in network.module.modules())
    assert {layer.momentum for layer in network.module.modules() if hasattr(layer, "momentum")} == {0.1}
    found = {name: tensor.numpy().copy() for name, tensor in network.tensors().items() if "running_" in name}
    expected = naive_statistics(network, inputs, batch_size)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=2e-4, atol=1e-5)


def test_a_single_example_never_stands_alone() -> None:
    assert chunk_sizes(33, 8) == [8, 8, 8, 9]
    assert chunk_sizes(34, 8) == [8, 8, 8, 8, 2]
    assert chunk_sizes(8, 8) == [8]
    assert chunk_sizes(1, 8) == [1]
    assert chunk_sizes(3, 1) == [1, 2]
