"""The gradient noise scale over a run (McCandlish et al. 2018); see core.recipe.analyses.gradient_noise."""

import math
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor

from core.engine.analysis.chunk_sizes import sizes_on
from core.engine.analysis.loss_surface import LossSurface, sum_in_double
from core.engine.analysis.progress import AnalysisProgress, Tensors
from core.engine.analysis.subject import AnalysisSubject
from core.engine.analysis.tables import finite_or_none, nan_tensor
from core.engine.datasets.split import iterate_chunks
from core.engine.determinism import seeded_generator
from core.recipe.analyses.gradient_noise import GradientNoise
from core.recipe.initial_weights import PREFERRED

DOUBT: Final = (
    "This is a rough guide. The noise scale ignores curvature, momentum and how the rate is chosen, and where it was "
    "checked against the batch size beyond which training really suffers it was no dependable stand-in for it (Merrill "
    "et al. 2025). Try the neighbouring batch sizes before you rely on it."
)


def compute_tensors(
    spec: GradientNoise, subjects: Sequence[AnalysisSubject], analysis_progress: AnalysisProgress
) -> Tensors:
    """`squares` float64 (places, draws, 2): mean |g|² of small batches, and |g|² of the large batch of all of them.

    `exact` (places, 2): G² and S over every example, NaN for many examples; `loss` (places,). A tile is a draw, and one
    more per place for the exact values.
    """
    chosen = spec.chosen_checkpoints(len(subjects))
    kept = analysis_progress.found or {
        "squares": nan_tensor(len(chosen), spec.draws, 2),
        "exact": nan_tensor(len(chosen), 2),
        "loss": nan_tensor(len(chosen)),
    }
    each = spec.draws + 1
    surface: LossSurface | None = None
    for tile in range(analysis_progress.done, len(chosen) * each):
        row, draw = divmod(tile, each)
        subject = subjects[chosen[row]]
        if surface is None or draw == 0:
            surface = LossSurface(subject.network, subject.parts["train"], subject.objective.loss)
            kept["loss"][row] = surface.loss_at(subject.network.values)
        if draw < spec.draws:
            kept["squares"][row, draw] = _draw_squares(spec, subject, surface, draw)
        elif spec.computes_exactly(surface.examples):
            kept["exact"][row] = torch.tensor(exact_noise(subject, surface), dtype=torch.float64)
        analysis_progress.keep(tile + 1, len(chosen) * each, kept)
    return kept


def _draw_squares(spec: GradientNoise, subject: AnalysisSubject, surface: LossSurface, draw: int) -> Tensor:
    """Squares of one draw, float64 (2,), on the same examples at every checkpoint."""
    part, weights = subject.parts["train"], subject.network.values
    shape = spec.large // spec.small, spec.small
    chosen = torch.randint(len(part), shape, generator=seeded_generator(spec.seed, "gradient noise", draw))
    inputs, targets = (each.reshape(*shape, *each.shape[1:]) for each in part.take(chosen.flatten()))
    gradients = surface.batch_gradients(weights, inputs, targets).double()
    squares = torch.stack([gradients.square().sum(1).mean(), gradients.mean(0).square().sum()]).cpu()
    surface.report_alive("other")
    return squares


def exact_noise(subject: AnalysisSubject, surface: LossSurface) -> tuple[float, float]:
    """G² and S = mean |g_i - G|² over every example of the train split: draws with replacement estimate them."""
    part, weights = subject.parts["train"], subject.network.values
    size = max(1, min(subject.network.most_at_once, sizes_on(weights.device).gradients // len(weights)))
    mean, squares = torch.zeros_like(weights, dtype=torch.float64), list[Tensor]()
    for inputs, targets in iterate_chunks(part, size):
        gradients = surface.batch_gradients(weights, inputs.unsqueeze(1), targets.unsqueeze(1)).double()
        mean += gradients.sum(0) / len(part)
        squares.append(gradients.square().sum() / len(part))
    square = float(mean.square().sum())
    surface.report_alive("other")
    return square, sum_in_double(squares) - square


class NoiseScale(NamedTuple):
    """G², S and B = S / G² with its standard error; B is NaN if the estimate of G² is not positive."""

    square: float
    variance: float
    scale: float
    error: float


def estimate_noise_scale(spec: GradientNoise, squares: Tensor) -> NoiseScale:
    """The noise scale from squared lengths (draws, 2): E |g_b|² = G² + S / b (McCandlish et al. 2018, appendix A.1).

    The error is the jackknife estimate over the draws.
    """
    small, large = spec.small, spec.large
    several = squares[:, 0], squares[:, 1]
    square = (large * several[1] - small * several[0]) / (large - small)
    variance = (several[0] - several[1]) / (1 / small - 1 / large)
    count = len(squares)
    if count < 2:
        return NoiseScale(math.nan, math.nan, math.nan, math.nan)
    without = (variance.sum() - variance) / (square.sum() - square)
    error = float(((count - 1) / count * (without - without.mean()).square().sum()).sqrt())
    mean, spread = float(square.mean()), float(variance.mean())
    return NoiseScale(mean, spread, spread / mean, error) if mean > 0 else NoiseScale(mean, spread, math.nan, math.nan)


def report_numbers(spec: GradientNoise, subjects: Sequence[AnalysisSubject], tensors: Tensors) -> dict[str, Any]:
    """`places`, one for each analysed checkpoint, and `advice` in sentences with their uncertainty.

    The advice is based on trained weights, not on averages of them.
    """
    first = subjects[0]
    batch = min(first.batch * first.spec.accumulate, len(first.parts["train"]))
    places = [
        _place_numbers(spec, subjects[index], *values)
        for index, *values in zip(
            spec.chosen_checkpoints(len(subjects)), tensors["squares"], tensors["exact"], tensors["loss"], strict=True
        )
    ]
    known = [each for each in places if each["error"] is not None and each["kind"] not in PREFERRED[:-1]]
    return {
        "split": "train",
        "examples": len(first.parts["train"]),
        "seed": spec.seed,
        "batch_size": batch,
        "options": spec.model_dump(mode="json", include={"small", "large", "draws", "places"}),
        "checkpoints": len(subjects),
        "places": places,
        "tradeoff": batch_size_tradeoff(batch, known[-1]["scale"]) if known else [],
        "advice": [*_advice_sentences(batch, known), DOUBT],
    }


def _place_numbers(
    spec: GradientNoise, subject: AnalysisSubject, squares: Tensor, exact: Tensor, loss: Tensor
) -> dict[str, Any]:
    found = estimate_noise_scale(spec, squares[squares.isfinite().all(1)])
    square, variance = exact.tolist()
    true = {
        "gradient": square,
        "variance": variance,
        "scale": finite_or_none(variance / square) if square > 0 else None,
    }
    return {
        "label": subject.label,
        "step": subject.source.step,
        "kind": subject.source.kind,
        "train_loss": finite_or_none(float(loss)),
        "gradient": finite_or_none(found.square),
        "variance": finite_or_none(found.variance),
        "scale": finite_or_none(found.scale),
        "error": finite_or_none(found.error),
        "exact": true if math.isfinite(square) else None,
    }


def batch_size_tradeoff(batch: int, scale: float) -> list[dict[str, float]]:
    """Predictions for other batch sizes than the job's, by the simple model of McCandlish et al. (section 2).

    `steps`, `examples` and `lr` (the best rate of plain gradient descent) are relative to those of the job's batch.
    """
    sizes = sorted({max(1, batch // 4), max(1, batch // 2), batch, 2 * batch, 4 * batch})
    return [
        {
            "batch_size": size,
            "steps": (1 + scale / size) / (1 + scale / batch),
            "examples": (1 + size / scale) / (1 + batch / scale),
            "lr": (1 + scale / batch) / (1 + scale / size),
        }
        for size in sizes
    ]


def _advice_sentences(batch: int, known: Sequence[dict[str, Any]]) -> Iterator[str]:
    if not known:
        yield "The gradient does not stand out of its noise, so nothing can be said: take more `draws`."
        return
    first, last = known[0], known[-1]
    scale = last["scale"]
    yield f"At step {last['step']} the noise scale is about {scale:.3g}, give or take {last['error']:.3g}."
    if batch < scale / 2:
        yield (
            f"Batches of {batch} are well below it: twice as large, they should take not much more than half as many "
            "steps, at a higher rate."
        )
    elif batch > 2 * scale:
        yield f"Batches of {batch} are well above it: half as large, they should take hardly more steps, and less work."
    else:
        yield f"Batches of {batch} are about as large: neither steps nor examples are wasted much."
    if len(known) > 1:
        change = "grew" if scale > first["scale"] else "fell"
        yield f"It {change} from {first['scale']:.3g} at step {first['step']}, so the best batch changes over a run."
    yield "Whatever the batch size, find the rate again: lr_range does that for the batch size of a job."
