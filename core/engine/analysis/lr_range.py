"""The learning-rate range test (Smith 2017) of a recipe; see core.recipe.analyses.lr_range."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final

import torch

from core.engine.analysis.progress import AnalysisProgress, Tensors
from core.engine.analysis.subject import AnalysisSubject
from core.engine.analysis.tables import finite_or_none, nan_tensor
from core.engine.datasets.batches import BatchSampler, iterate_batches, order_of
from core.engine.determinism import private_randomness, seed_device
from core.engine.gradients.clip import build_clip
from core.engine.gradients.gradient import build_gradient
from core.engine.gradients.sam import sharpness_aware
from core.engine.networks.network import build_network
from core.engine.optimizers.eval_weights import EvalWeights
from core.engine.optimizers.stepper import build_stepper
from core.recipe.analyses.lr_range import LrRange
from core.recipe.shape import examples_used
from core.recipe.spec import JobSpec

SKIP: Final = 10, 5  # steps at the start and the end that the search for the steepest fall leaves out
CANDIDATES: Final = ("steepest", "tenth", "base", "top")
CAVEATS: Final = (
    "These are where a search may begin: none is right for every network, and they differ from seed to seed.",
    "The steepest fall is the least stable of them; over three seeds it has moved by a factor of a thousand.",
    "The smoothed loss lags behind, so its lowest point is at a rate that is too high already: hence the tenth.",
    "A rate that holds for a hundred steps may be too high for a whole run, and a schedule changes what is best.",
)


def compute_tensors(spec: LrRange, subjects: Sequence[AnalysisSubject], analysis_progress: AnalysisProgress) -> Tensors:
    """`lr` float64 (steps,); `losses` (runs, steps) of each batch before the step at that rate, NaN after a run's end.

    A tile is a step, but a run that is not complete starts again when the analysis resumes.
    """
    rates = torch.logspace(math.log10(spec.low), math.log10(spec.high), spec.steps, dtype=torch.float64)
    kept = analysis_progress.found or {"lr": rates, "losses": nan_tensor(spec.runs, spec.steps)}
    total = spec.runs * spec.steps
    for row in range(analysis_progress.done // spec.steps, spec.runs):
        kept["losses"][row] = math.nan
        seed = run_seeds(spec, subjects[0].spec)[row]
        with private_randomness(seed, "steps"):
            seed_device(subjects[0].network.values.device, seed)
            take, over = build_trainer(spec, subjects[0], seed), DivergenceDetector(spec)
            for step, lr in enumerate(rates.tolist()):
                kept["losses"][row, step] = loss = take(step, lr)
                if over(loss) or step == spec.steps - 1:
                    break
                analysis_progress.keep(row * spec.steps + step + 1, total, kept)
        analysis_progress.keep((row + 1) * spec.steps, total, kept)
    return kept


def run_seeds(spec: LrRange, job: JobSpec) -> list[int]:
    """The seeds of the runs: consecutive numbers from the sum of the job's seed and the analysis's."""
    return [(job.seed + spec.seed + row) % 2**63 for row in range(spec.runs)]


def build_trainer(spec: LrRange, subject: AnalysisSubject, seed: int) -> Callable[[int, float], float]:
    """(step, lr) -> the loss of the batch before the step at that rate; as the job trains, without its schedule."""
    job, part, device = subject.spec, subject.parts["train"], subject.network.values.device
    most, report_alive = subject.network.most_at_once, subject.network.report_alive
    made = partial(build_network, job.model, job.data.facts(), seed, device, job.no_decay)
    make_network = partial(made, most_at_once=most, report_alive=report_alive)
    network = make_network()
    network.module.train()
    stepper = build_stepper(job.optimizer, network, partial(EvalWeights, network, make_network, part, subject.batch))
    gradient = build_gradient(network, subject.objective.loss, micro=subject.batch if job.accumulate > 1 else None)
    at = [0]
    if job.sam:
        gradient = sharpness_aware(gradient, network, job.sam, lambda: at[0])
    clip = build_clip(job.clip_grad, network.gradient)
    used = examples_used(len(part), min(subject.batch, len(part)), drop_last=job.drop_last)
    cut = BatchSampler(spec.step_examples(job), used, order_of(job))
    coming = iterate_batches(part, None if job.batch_size == "full" else cut, seed, 0, spec.steps)

    def train_step(step: int, lr: float) -> float:
        at[0], (_, batch) = step, next(coming)
        loss = float(gradient(*batch))  # the step depends on it, so the host waits for the device
        if math.isfinite(loss):
            if clip:
                clip()
            stepper.step(lr, partial(gradient, *batch))
        return loss

    return train_step


def smooth_losses(losses: Sequence[float], weight: float) -> list[float]:
    """Exponential means m <- (1 - w) m + w x, divided by 1 - (1 - w)^n after n numbers to correct the bias."""
    mean, missing, found = 0.0, 1.0, []
    for loss in losses:
        mean, missing = (1 - weight) * mean + weight * loss, (1 - weight) * missing
        found.append(mean / (1 - missing))
    return found


class DivergenceDetector:
    """Whether a run is over: its smoothed loss exceeds `stop_at` times its lowest value, or is not finite."""

    def __init__(self, spec: LrRange) -> None:
        self._spec, self._losses = spec, list[float]()

    def __call__(self, loss: float) -> bool:
        """Record the next loss and return whether the run is over."""
        self._losses.append(loss)
        levels = smooth_losses(self._losses, self._spec.smoothing)
        return not math.isfinite(levels[-1]) or levels[-1] > self._spec.stop_at * min(levels)


def report_numbers(spec: LrRange, subjects: Sequence[AnalysisSubject], tensors: Tensors) -> dict[str, Any]:
    """`runs`, each with its curve (`losses` and `smoothed` at the rates `lr`) and its `candidates`.

    The `candidates` of the result are the lowest of each over the runs.
    """
    job, rates = subjects[0].spec, tensors["lr"].tolist()
    runs = [
        {"seed": seed, **_run_curve(rates, [each for each in losses.tolist() if not math.isnan(each)], spec)}
        for seed, losses in zip(run_seeds(spec, job), tensors["losses"], strict=True)
    ]
    read = [run["candidates"] for run in runs if run["candidates"]]
    across = {name: _range_over_runs([each[name] for each in read]) for name in CANDIDATES}
    return {
        "label": subjects[0].label,
        "optimizer": job.optimizer.name,
        "batch_size": spec.step_examples(job),
        "lr_of_job": job.optimizer.lr,
        "options": spec.model_dump(mode="json", include={"low", "high", "steps", "runs", "smoothing", "stop_at"}),
        "loss": "of each batch, in train mode, before the step at that rate",
        "runs": runs,
        "candidates": across,
        "advice": list(_advice_sentences(job, spec.step_examples(job), across, len(read))),
        "caveats": list(CAVEATS),
    }


def _advice_sentences(job: JobSpec, batch: int, across: Mapping[str, dict[str, Any]], count: int) -> Iterator[str]:
    if not count:
        yield "The loss fell in none of the runs, so nothing can be said: look at the curves, or take other rates."
        return
    low, high = across["base"]["lowest"], across["top"]["lowest"]
    yield (
        f"With {job.optimizer.name} and batches of {batch} the loss begins to fall at {low:.2g} and has ceased to at "
        f"{high:.2g}, the lowest of {count} seeds each: search between, and first at {across['tenth']['lowest']:.2g}."
    )
    lr = job.optimizer.lr
    where = "below both" if lr < low else "above both" if lr > high else "between them"
    yield f"The job's own rate of {lr:.3g} is {where}."
    furthest = max(CANDIDATES, key=lambda name: float(across[name]["ratio"]))
    yield f"The seeds differ most about the reading `{furthest}`: by a factor of {across[furthest]['ratio']:.2g}."
    yield "Another batch size wants another rate: gradient_noise says how much may be gained by one."


def _range_over_runs(values: Sequence[float]) -> dict[str, Any]:
    """The lowest value, all values, and the ratio of the highest to the lowest."""
    if not values:
        return {"lowest": None, "values": [], "ratio": None}
    return {"lowest": min(values), "values": list(values), "ratio": max(values) / min(values)}


def _run_curve(rates: Sequence[float], losses: Sequence[float], spec: LrRange) -> dict[str, Any]:
    levels = smooth_losses(losses, spec.smoothing)
    finite = [each for each in levels if math.isfinite(each)]
    return {
        "lr": list(rates[: len(losses)]),
        "losses": [finite_or_none(each) for each in losses],
        "smoothed": [finite_or_none(each) for each in levels],
        "steps": len(losses),
        "candidates": lr_candidates(rates, finite),
    }


def lr_candidates(rates: Sequence[float], levels: Sequence[float]) -> dict[str, float] | None:
    """Candidate rates from smoothed losses at ascending rates; None if the losses never fall, or are too few.

    `steepest`: the rate of the fastest fall per step, so per logarithm of the rate. Both ends are left out, and all
    steps after the lowest loss: a diverged run may fall once more. `tenth`: a tenth of the rate of the lowest loss.
    `base` and `top` are Smith's bounds of cyclical rates: the rate at which a tenth of the fall is done, counted from
    the smoothed loss after the first steps, and the rate of the lowest loss.
    """
    first, last = SKIP[0], len(levels) - SKIP[1]
    if last - first < 3:
        return None
    lowest = min(range(len(levels)), key=levels.__getitem__)
    start = levels[first - 1]
    fall = start - levels[lowest]
    slopes = {step: levels[step + 1] - levels[step - 1] for step in range(first, min(last, lowest))}
    if fall <= 0 or min(slopes.values(), default=0.0) >= 0:
        return None
    steepest = min(slopes, key=slopes.__getitem__)
    above = (step for step in range(lowest) if levels[step] > start - fall / 10)
    base = max(above, default=-1) + 1
    found = (rates[steepest], rates[lowest] / 10, rates[base], rates[lowest])
    return dict(zip(CANDIDATES, found, strict=True))
