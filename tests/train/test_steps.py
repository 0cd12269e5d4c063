"""Accumulation, clipping, sampling, smoothing, decay: what the engine computes is what the textbook does."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from core.engine.datasets.batches import BatchSampler, epoch_draws, epoch_order, iterate_batches
from core.engine.datasets.resident import TensorSplit, load_resident
from core.engine.determinism import seed_device
from core.engine.evaluation.objective import Classification, build_objective
from core.engine.gradients.clip import build_clip
from core.engine.networks.network import build_network
from core.engine.optimizers.flat import build_flat_stepper as build_stepper
from core.recipe.clipping import ClipGrad
from core.recipe.facts import DataFacts
from core.recipe.models.cnn import CNN
from core.recipe.models.mlp import MLP
from core.recipe.spec import JobSpec
from tests.train.runs import Train, Watcher, job

CPU = torch.device("cpu")
PLAIN = {"name": "mlp", "hidden": [16]}
NORMED = {"name": "mlp", "hidden": [12], "batch_norm": True}
DECAY = {"name": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 0.05}
TABLE = DataFacts(examples=50, input_shape=(6,), task="classification", outputs=3)


def micro_batches(spec: JobSpec, epoch: int, examples: int) -> Iterator[list[Tensor]]:
    """The indices of each optimizer step of an epoch, in its micro-batches."""
    order = (epoch_draws if spec.sampling == "with_replacement" else epoch_order)(examples, spec.seed, epoch)
    pieces = [order[start : start + spec.shape().batch] for start in range(0, examples, spec.shape().batch)]
    if spec.drop_last:
        pieces = [piece for piece in pieces if len(piece) == spec.shape().batch]
    for start in range(0, len(pieces), spec.accumulate):
        yield pieces[start : start + spec.accumulate]


def groups(module: nn.Module, spec: JobSpec) -> list[dict[str, Any]]:
    """Parameter groups as people write them: by name, and by the kind of layer."""
    norms = {name for name, layer in module.named_modules() if isinstance(layer, nn.BatchNorm1d)}
    free = [
        name
        for name, _ in module.named_parameters()
        if ("bias" in spec.no_decay and name.endswith("bias"))
        or ("norm" in spec.no_decay and name.rpartition(".")[0] in norms)
    ]
    named = dict(module.named_parameters())
    return [
        {"params": [each for name, each in named.items() if name not in free]},
        {"params": [named[name] for name in free], "weight_decay": 0.0},
    ]


def textbook(spec: JobSpec, dataset: Path) -> tuple[nn.Module, list[float], list[float]]:
    """The trained network, the loss of every step, and the norm of every gradient, by an ordinary torch loop."""
    part = load_resident(spec.data, dataset, CPU).train
    module = build_network(spec.model, spec.data.facts(), spec.seed, CPU).module
    seed_device(CPU, spec.seed)
    optimizer = torch.optim.SGD(groups(module, spec), **spec.optimizer.kwargs())
    losses, norms = [], []
    for epoch in range(spec.epochs or 0):
        for pieces in micro_batches(spec, epoch, len(part)):
            optimizer.zero_grad()
            total, loss = sum(len(piece) for piece in pieces), 0.0
            for piece in pieces:
                summed = functional.cross_entropy(
                    module(part.inputs[piece]),
                    part.targets[piece],
                    reduction="sum",
                    label_smoothing=spec.label_smoothing,
                )
                (summed / total).backward()
                loss += float(summed.detach()) / total
            losses.append(loss)
            if spec.clip_grad and spec.clip_grad.norm:
                norms.append(float(nn.utils.clip_grad_norm_(module.parameters(), spec.clip_grad.norm)))
            elif spec.clip_grad:
                nn.utils.clip_grad_value_(module.parameters(), spec.clip_grad.value or 0.0)
            optimizer.step()
    return module, losses, norms


@pytest.mark.parametrize(
    "fields",
    [
        {"accumulate": 3},
        {"accumulate": 3, "model": NORMED},
        {"accumulate": 100, "drop_last": True},
        {"drop_last": True, "model": NORMED},
        {"sampling": "with_replacement"},
        {"sampling": "with_replacement", "accumulate": 2, "drop_last": True},
        {"clip_grad": {"norm": 0.3}},
        {"clip_grad": {"value": 0.01}, "accumulate": 2},
        {"label_smoothing": 0.2},
        {"optimizer": DECAY, "no_decay": ["bias"], "model": NORMED},
        {"optimizer": DECAY, "no_decay": ["norm"], "model": NORMED},
        {"optimizer": DECAY, "no_decay": ["norm", "bias"], "model": NORMED, "clip_grad": {"norm": 0.5}},
        {"optimizer": DECAY, "no_decay": ["norm"]},
    ],
    ids=str,
)
def test_the_engine_computes_what_the_textbook_does(
    run: Train, datasets: Callable[[str], Path], fields: dict[str, Any]
) -> None:
    spec = job(**fields)
    _, watcher = run(spec)
    module, losses, norms = textbook(spec, datasets("digits"))
    series = watcher.series()
    total = spec.shape().run.total_steps
    assert [t for t, _ in series["train.loss"]] == list(range(total))
    assert [loss for _, loss in series["train.loss"]] == pytest.approx(losses, rel=2e-4, abs=1e-5)
    assert [norm for _, norm in series.get("grad_norm", [])] == pytest.approx(norms, rel=2e-3, abs=1e-5)
    found = load_file(f"{watcher.checkpoints()[total].folder}/weights.safetensors")
    for name, tensor in module.state_dict().items():
        torch.testing.assert_close(found[name], tensor, rtol=2e-3, atol=2e-5, msg=name)


def test_the_series_of_the_norm_keeps_to_the_log(run: Train) -> None:
    """Of every third step alone, and no matter when somebody looks or interrupts."""
    spec = job(clip_grad={"norm": 0.5}, log_every=3)
    _, every = run(job(clip_grad={"norm": 0.5}))
    _, whole = run(spec)
    _, first = run(spec, Watcher(stop_after=10))
    _, second = run(spec, resume=first.checkpoints()[10])
    expected = [(t, norm) for t, norm in every.series()["grad_norm"] if (t + 1) % 3 == 0]
    assert whole.series()["grad_norm"] == expected
    assert first.series()["grad_norm"] + second.series()["grad_norm"] == expected
    assert "grad_norm" not in run(job(clip_grad={"value": 0.5}))[1].series()


def test_clipping_by_hand() -> None:
    """(3, 4) has norm 5: halved at most 2.5, untouched at most 10; by value 3.5 only the 4 moves."""
    for spec, expected, seen in (
        (ClipGrad(norm=2.5), [1.5, 2.0], 5.0),
        (ClipGrad(norm=10.0), [3.0, 4.0], 5.0),
        (ClipGrad(value=3.5), [3.0, 3.5], None),
    ):
        gradient = torch.tensor([3.0, 4.0])
        clip = build_clip(spec, gradient)
        assert clip
        norm = clip()
        assert gradient.tolist() == pytest.approx(expected, rel=1e-6)
        assert (None if norm is None else float(norm)) == seen
    assert build_clip(None, torch.zeros(2)) is None


def test_smoothed_labels_by_hand() -> None:
    """Three classes, smoothing 0.3: the target is (0.8, 0.1, 0.1); equal outputs cost log 3 whatever it is."""
    objective = build_objective(job(label_smoothing=0.3), None)
    outputs, target = torch.tensor([[2.0, 1.0, 0.0]]), torch.tensor([0])
    log_sum = torch.logsumexp(outputs, 1).item()
    expected = 0.8 * (log_sum - 2) + 0.1 * (log_sum - 1) + 0.1 * log_sum
    assert objective.loss(outputs, target).item() == pytest.approx(expected, rel=1e-6)
    assert objective.loss(torch.zeros(1, 3), target).item() == pytest.approx(1.0986123, rel=1e-6)
    assert objective.example_sums(outputs, target).tolist() == pytest.approx([log_sum - 2, 1.0])
    assert build_objective(job(), None).loss is Classification(()).loss


def test_drawing_with_replacement() -> None:
    """A function of seed and epoch; of many draws 1 - 1/e are different ones."""
    draws = [epoch_draws(10_000, 3, epoch) for epoch in (0, 0, 1)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert 0 <= int(draws[0].min()) <= int(draws[0].max()) < 10_000
    assert len(set(draws[0].tolist())) == pytest.approx(6321, abs=150)


@pytest.mark.parametrize("first", range(7))
def test_dropped_examples_change_from_epoch_to_epoch(first: int) -> None:
    """Ten examples, eight used in steps of five and three: whoever comes last today may come first tomorrow."""
    part = TensorSplit(torch.arange(10.0)[:, None], torch.arange(10))
    seen = [(t, targets.tolist()) for t, (_, targets) in iterate_batches(part, BatchSampler(5, 8), 3, first, 7)]
    orders = [epoch_order(10, 3, epoch).tolist()[:8] for epoch in range(4)]
    whole = [orders[t // 2][:5] if t % 2 == 0 else orders[t // 2][5:] for t in range(7)]
    assert seen == list(enumerate(whole))[first:]


@pytest.mark.parametrize(
    ("spec", "facts", "no_decay", "free"),
    [
        (MLP(hidden=(4,)), TABLE, ("bias",), 4 + 3),
        (MLP(hidden=(4,), batch_norm=True), TABLE, ("bias",), 4 + 4 + 3),
        (MLP(hidden=(4,), batch_norm=True), TABLE, ("norm",), 4 + 4),
        (MLP(hidden=(4,), batch_norm=True), TABLE, ("norm", "bias"), 4 + 4 + 4 + 3),
        (
            CNN(channels=(2,), hidden=(5,)),
            DataFacts(9, (1, 4, 4), "classification", 3),
            ("norm", "bias"),
            2 + 4 + 5 + 3,
        ),
        (MLP(hidden=(4,)), TABLE, (), 0),
    ],
)
def test_undecayed_weights_come_last(spec: Any, facts: DataFacts, no_decay: Any, free: int) -> None:
    """Counted by hand; the network computes the same, whatever the order of its buffer."""
    plain, network = (build_network(spec, facts, 0, CPU, kinds) for kinds in ((), no_decay))
    assert network.undecayed == free
    assert all(torch.equal(each, plain.tensors()[name]) for name, each in network.tensors().items())
    before = {name: each.clone() for name, each in network.tensors().items()}
    stepper = build_stepper(job(optimizer=DECAY).optimizer, network)
    network.gradient.zero_()
    stepper.step(1.0)
    still = sum(each.numel() for name, each in network.module.named_parameters() if torch.equal(each, before[name]))
    assert still == free
