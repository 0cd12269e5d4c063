"""The end of each cycle is judged and kept, and the last of them is the incumbent."""

from typing import Any

import pytest
import torch
from torch import nn

from core.engine.events import CheckpointWritten
from core.engine.networks.network import flatten
from core.engine.optimizers.flat import build_flat_stepper
from core.recipe.optimizers.adam import Adam
from core.recipe.optimizers.sgd import SGD
from core.recipe.spec import JobSpec
from tests.train.runs import Train, Watcher, digests, job

NORMED = {"name": "mlp", "hidden": [12], "batch_norm": True, "dropout": 0.1}


def cycling(**fields: Any) -> JobSpec:
    """24 steps, whose cycles end at 3, 9 and 21."""
    schedule = {"name": "cosine_restarts", "T_0": 3, "T_mult": 2}
    return job(**{"model": NORMED, "schedule": schedule, "evaluate": {"every": "8st"}, **fields})


def test_the_end_of_each_cycle_is_judged_and_kept(run: Train) -> None:
    """Compared with a checkpoint of every step: same weights and buffers, and the rate is lr again at the next step."""
    ending, watcher = run(cycling(), checkpoint_seconds=0.0)
    kept = watcher.checkpoints("cycle_end")
    assert sorted(kept) == [3, 9, 21]
    for step, each in kept.items():
        assert digests(each)["weights"] == digests(watcher.checkpoints()[step])["weights"]
    rates = dict(watcher.series()["lr"])
    assert [rates[step] for step in (0, 3, 9, 21)] == [0.1] * 4
    series = dict(watcher.series()["incumbent.val.loss"])
    assert sorted(series) == [3, 9, 21]
    assert [each.metrics["val.loss"] for _, each in sorted(kept.items())] == [series[3], series[9], series[21]]
    incumbent = ending.results["incumbent"]
    assert incumbent["val"]["loss"] == series[21]
    assert watcher.series()["incumbent.test.loss"] == [(24, incumbent["test"]["loss"])]
    assert incumbent != ending.results["base"]


def test_an_incumbent_that_is_the_end_is_what_the_run_ends_with(run: Train) -> None:
    ending, watcher = run(cycling(epochs=None, steps=21))
    assert ending.results["incumbent"] == ending.results["base"]
    assert digests(watcher.checkpoints("cycle_end")[21])["weights"] == digests(watcher.checkpoints()[21])["weights"]


def test_a_cycle_is_kept_before_the_checkpoint_of_its_step(run: Train) -> None:
    _, watcher = run(cycling(checkpoints={"every": "3st"}, epochs=None, steps=10))
    order = [(each.kind, each.step) for each in watcher.events if isinstance(each, CheckpointWritten)]
    assert order == [
        *(("cycle_end", 3), ("last", 3), ("last", 6), ("cycle_end", 9), ("last", 9)),
        *(("cycle_end", 9), ("last", 10)),  # again, now that it has been tested too
    ]


def test_cycles_end_where_swa_begins(run: Train) -> None:
    _, watcher = run(cycling(swa={"start": "9st", "every": "5st"}))
    assert sorted(watcher.checkpoints("cycle_end")) == [3, 9]


@pytest.mark.parametrize(
    ("schedule", "optimizer"),
    [
        ({"name": "cosine_restarts", "T_0": 5, "cycle_decay": 0.7}, {"name": "sgd", "lr": 0.1, "momentum": 0.9}),
        (
            {"name": "cyclic", "step_size_up": 3, "cycle_momentum": {"base": 0.7, "max": 0.95}},
            {"name": "sgd", "lr": 0.1, "momentum": 0.9, "nesterov": True},
        ),
        ({"name": "one_cycle", "cycle_momentum": {"base": 0.7, "max": 0.95}}, {"name": "adam", "lr": 0.01}),
    ],
)
def test_every_interruption_leaves_the_same_end(
    run: Train, schedule: dict[str, Any], optimizer: dict[str, Any]
) -> None:
    spec = cycling(schedule=schedule, optimizer=optimizer, no_decay=["bias"])
    ending, whole = run(spec)
    ends = whole.checkpoints("cycle_end")
    assert bool(ends) == (schedule["name"] != "one_cycle")
    for stop in range(1, 24, 5):
        _, first = run(spec, Watcher(stop_after=stop))
        again, second = run(spec, resume=first.checkpoints()[stop])
        assert again.results == ending.results
        assert digests(second.checkpoints()[24]) == digests(whole.checkpoints()[24])
        kept = {step: digests(each)["weights"] for step, each in second.checkpoints("cycle_end").items()}
        due = {step for step in ends if step > stop or step == max(ends)}
        assert kept == {step: digests(ends[step])["weights"] for step in due}


def test_looking_leaves_no_trace(run: Train) -> None:
    """However often it is evaluated and kept, a run with cycles goes the same way."""
    quiet = cycling(evaluate={"every": "1run"}, target={"metric": "val.loss", "value": 0.0})
    busy = cycling(evaluate={"every": "1st"}, checkpoints={"every": "1st"}, target={"metric": "val.loss", "value": 0.0})
    (_, one), (_, other) = run(quiet), run(busy)
    assert one.series()["train.loss"] == other.series()["train.loss"]
    assert one.series()["incumbent.val.loss"] == other.series()["incumbent.val.loss"]
    assert digests(one.checkpoints()[24]) == digests(other.checkpoints()[24])


def test_who_cancels_has_the_incumbent(run: Train) -> None:
    ending, watcher = run(cycling(), Watcher(stop_after=5, request="cancel"))
    (point,) = watcher.series()["incumbent.val.loss"]
    assert point[0] == 3
    assert {weights: found["val"]["loss"] for weights, found in ending.results.items()} == {"incumbent": point[1]}


def test_momentum_is_cycled_as_by_hand() -> None:
    """Gradients of 1: b <- m b + 1, w <- w - 0.1 b, with the m of each step."""
    network = flatten(nn.Sequential(nn.Linear(1, 1, bias=False)))
    stepper = build_flat_stepper(SGD(lr=0.1, momentum=0.9), network)
    with torch.no_grad():
        network.weights.fill_(0.0)
    network.gradient.fill_(1.0)
    velocity, weight = 0.0, 0.0
    for momentum in (0.9, 0.5, 0.25, 0.75):
        velocity = momentum * velocity + 1.0
        weight -= 0.1 * velocity
        stepper.step(0.1, momentum=momentum)
        assert float(network.weights.detach()) == pytest.approx(weight, rel=1e-6)


def test_adams_first_beta_is_cycled_as_torch_does() -> None:
    network, other = (flatten(nn.Sequential(nn.Linear(3, 1, bias=False))) for _ in range(2))
    other.copy(network)
    stepper = build_flat_stepper(Adam(lr=0.1), network)
    own = torch.optim.Adam([other.weights], lr=0.1)
    for step, beta in enumerate((0.95, 0.9, 0.85, 0.95)):
        gradient = torch.tensor([1.0, -2.0, 0.5]) * (step + 1)
        network.gradient.copy_(gradient)
        other.gradient.copy_(gradient)
        stepper.step(0.1, momentum=beta)
        own.param_groups[0]["betas"] = (beta, 0.999)
        own.step()  # type: ignore[no-untyped-call]
    assert torch.allclose(network.weights, other.weights, rtol=1e-6)
