"""A Bézier curve of low loss between two minima (Garipov et al. 2018); see core.recipe.analyses.connect."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, Final

import torch
from torch import Tensor

from core.engine.analysis.progress import AnalysisProgress, Tensors
from core.engine.analysis.subject import AnalysisSubject, metric_names, nonempty_splits, preserving, replaced_weights
from core.engine.analysis.tables import finite_or_none, move_to_weights_device, nan_tensor
from core.engine.determinism import private_randomness, seed_device, seeded_generator, stream_seed
from core.engine.evaluation.evaluate import compute_metrics, predict_split
from core.engine.gradients.closed_form import Gradient
from core.engine.gradients.gradient import build_gradient
from core.engine.networks.network import Network
from core.recipe.analyses.connect import Connect

LINES: Final = ("curve", "line")
SWAPS: Final = (
    "Units of hidden layers can be swapped without changing what a network computes; most barriers on straight lines "
    "go away once they are matched, so one does not mean that two solutions differ."
)
TRAINED: Final = "The curve was trained to be low on the train part; the line was not."


def compute_tensors(spec: Connect, subjects: Sequence[AnalysisSubject], analysis_progress: AnalysisProgress) -> Tensors:
    """`theta` and `momentum` (P,), `loss` float64 (epochs,) of training; `curve` and `line` (points, splits, metrics).

    `t` (points,) are the places on both. A tile is a training epoch or, after those, one point on both.
    """
    first, ends = subjects[0], [each.network.values.clone() for each in subjects]
    kept = move_to_weights_device(analysis_progress.found, ends[0]) or _initial_tensors(spec, first, ends)
    total = spec.epochs + spec.points
    for tile in range(analysis_progress.done, total):
        if tile < spec.epochs:
            with train_mode(first.network):
                kept["loss"][tile] = _train_epoch(spec, first, ends, kept, tile)
        else:
            place = tile - spec.epochs
            t = float(kept["t"][place])
            straight = torch.lerp(ends[0], ends[1], t)
            for name, weights in zip(LINES, (bezier(ends, kept["theta"], t), straight), strict=True):
                kept[name][place] = _metrics_at(first, weights)
        analysis_progress.keep(tile + 1, total, kept)
    return kept


def _initial_tensors(spec: Connect, first: AnalysisSubject, ends: Sequence[Tensor]) -> Tensors:
    shape = spec.points, len(nonempty_splits(first)), len(metric_names(first))
    return {
        "theta": torch.lerp(ends[0], ends[1], 0.5),
        "momentum": torch.zeros_like(ends[0]),
        "loss": nan_tensor(spec.epochs),
        "t": torch.linspace(0, 1, spec.points, dtype=torch.float64),
        **{name: nan_tensor(*shape) for name in LINES},
    }


def bezier(ends: Sequence[Tensor], theta: Tensor, t: float) -> Tensor:
    """φ(t) = (1 - t)² w₁ + 2 t (1 - t) θ + t² w₂ (P,)."""
    return (1 - t) ** 2 * ends[0] + 2 * t * (1 - t) * theta + t**2 * ends[1]


def lr_factor(progress: float) -> float:
    """The factor on the learning rate at a share of all epochs (Garipov et al. 2018, appendix A.1)."""
    return 1 - 0.99 * min(max((progress - 0.5) / 0.4, 0.0), 1.0)


def _train_epoch(spec: Connect, first: AnalysisSubject, ends: Sequence[Tensor], kept: Tensors, epoch: int) -> float:
    """One epoch over the train split; changes θ and its momentum (P,) in place. Returns the mean loss per example."""
    network, part = first.network, first.parts["train"]
    theta, momentum = kept["theta"], kept["momentum"]
    gradient: Gradient = build_gradient(network, first.objective.loss)
    order = torch.randperm(len(part), generator=seeded_generator(spec.seed, "connect order", epoch))
    batches = torch.split(order, spec.batch_examples(first.spec))
    places = torch.rand(
        len(batches), generator=seeded_generator(spec.seed, "connect t", epoch), dtype=torch.float64
    ).tolist()
    losses, lr = list[Tensor](), spec.lr * lr_factor(epoch / spec.epochs)
    with private_randomness(spec.seed, "connect", epoch):
        seed_device(network.values.device, stream_seed(spec.seed, "connect", epoch))
        for batch, t in zip(batches, places, strict=True):
            network.values.copy_(bezier(ends, theta, t))
            losses.append(gradient(*part.take(batch)))
            momentum.mul_(spec.momentum).add_(network.gradient, alpha=2 * t * (1 - t))
            theta.add_(momentum, alpha=-lr)
    total = 0.0
    for batch, loss in zip(batches, torch.stack(losses).tolist(), strict=True):
        total += loss * len(batch)
    return total / len(part)


@contextmanager
def train_mode(network: Network) -> Iterator[None]:
    """Train mode inside; weights, buffers and modes are restored, the gradient is set to 0."""
    modes = [(layer, layer.training) for layer in network.module.modules()]
    with preserving(network):
        network.module.train()
        try:
            yield
        finally:
            for layer, mode in modes:
                layer.training = mode
            network.gradient.zero_()


def _metrics_at(first: AnalysisSubject, weights: Tensor) -> Tensor:
    """Loss and metrics at weights (P,), float64 (splits, metrics), on the first subject's data."""
    with replaced_weights(first, weights) as network:
        rows = [
            compute_metrics(predict_split(network, first.parts[split]), first.parts[split], first.objective)
            for split in nonempty_splits(first)
        ]
    return torch.tensor([list(each.values()) for each in rows], dtype=torch.float64)


def report_numbers(spec: Connect, subjects: Sequence[AnalysisSubject], tensors: Tensors) -> dict[str, Any]:
    """`curve` and `line`, by split: the lowest, highest and mean value of every metric, and the barrier of the loss."""
    first, t = subjects[0], tensors["t"]
    ends, theta = [each.network.values.double() for each in subjects], tensors["theta"].double()
    places = (bezier(ends, theta, each) for each in t.tolist())
    length = sum(float(torch.linalg.vector_norm(there - here)) for here, there in pairwise(places))
    return {
        "labels": [each.label for each in subjects],
        "seed": spec.seed,
        "points": spec.points,
        "epochs": int(tensors["loss"].isfinite().sum()),
        "options": {
            "epochs": spec.epochs,
            "lr": spec.lr,
            "momentum": spec.momentum,
            "batch_size": spec.batch_examples(first.spec),
        },
        "batch_norm": "estimated again at each point",
        "examples": {split: len(first.parts[split]) for split in nonempty_splits(first)},
        "train_loss": [finite_or_none(each) for each in tensors["loss"].tolist()],
        "t": t.tolist(),
        "length": {"curve": length, "line": float(torch.linalg.vector_norm(ends[1] - ends[0]))},
        **{name: _curve_numbers(first, t, tensors[name]) for name in LINES},
        "caveats": [SWAPS, TRAINED],
    }


def _curve_numbers(first: AnalysisSubject, t: Tensor, table: Tensor) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for column, split in enumerate(nonempty_splits(first)):
        found[split] = {
            name: {
                "values": [finite_or_none(each) for each in values.tolist()],
                "least": finite_or_none(float(values.min())),
                "most": finite_or_none(float(values.max())),
                "mean": finite_or_none(float(values.mean())),
            }
            for name, values in zip(metric_names(first), table[:, column].T, strict=True)
        }
        found[split]["barrier"] = finite_or_none(barrier_height(t, table[:, column, 0]))
    return found


def barrier_height(t: Tensor, losses: Tensor) -> float:
    """The largest height of the loss above the straight line between both ends' losses; 0 if it is never above."""
    return float((losses - torch.lerp(losses[0], losses[-1], t)).max())
