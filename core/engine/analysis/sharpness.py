"""Several measures of sharpness, side by side; see core.recipe.analyses.sharpness."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from math import isnan
from typing import Any, Final

import torch
from torch import Tensor

from core.engine.analysis.progress import AnalysisProgress, Tensors
from core.engine.analysis.sharpness_measures import GAUGES, LossAtWeights
from core.engine.analysis.subject import AnalysisSubject
from core.engine.analysis.tables import finite_or_none, move_to_weights_device, nan_tensor
from core.recipe.analyses.sharpness import Measure, Sharpness

MATCHED: Final = 0.2  # of the lower train loss: others further from it are not matched
STILL: Final = 4  # rounding errors of the loss: a smaller change counts as none
RISES: Final[tuple[Measure, ...]] = ("filter_noise", "multiplicative_noise", "worst_case", "adaptive_worst_case")
"""Measures whose numbers are increases of the loss at other weights."""
NOW: Final = "now."  # prefix of the state of the measure in progress, in a checkpoint


@dataclass(frozen=True, slots=True)
class MeasureCaption:
    """The caption of a measure: what it is, its error, its invariance and its caveat."""

    what: str
    error: str
    invariance: str
    caveat: str


SCALES = "none: rescaling the layers of a ReLU network changes it and not the function"
DINH = "Any value can be had for the same function by rescaling layers (Dinh et al. 2017)"
EDGE = "training by full batches drives it towards the edge of stability, 2 / lr for plain descent, so it may reflect"
BOUND = "what the second half of the steps still added; the true maximum may be higher"

ABOUT: Final[dict[str, MeasureCaption]] = {
    "gradient_norm": MeasureCaption(
        "length of the gradient over all examples looked at",
        "none: it is exact",
        SCALES,
        "It says whether this is a stationary point at all, which saddles are too; it is no measure of sharpness.",
    ),
    "filter_noise": MeasureCaption(
        "mean rise of the loss along random directions, each filter as long as that of the weights",
        "standard error over the directions",
        "rescaling the layers of a ReLU network leaves it alone",
        "It depends on the radius, and directions at random miss the few in which the loss is steep.",
    ),
    "multiplicative_noise": MeasureCaption(
        "mean rise of the loss where each weight is multiplied by 1 + radius n, n standard normal",
        "standard error over the draws",
        "rescaling the layers of a ReLU network leaves it alone",
        "It depends on the radius, and weights of nothing stay where they are.",
    ),
    "lambda_max": MeasureCaption(
        "largest eigenvalue of the Hessian, by Lanczos",
        "|H v - value v|: within it lies an eigenvalue; that none is larger is likely, not certain",
        SCALES,
        f"{DINH}, and {EDGE} the learning rate instead.",
    ),
    "lambda_min": MeasureCaption(
        "smallest eigenvalue of the Hessian, by Lanczos",
        "|H v - value v|: within it lies an eigenvalue; that none is smaller is likely, not certain",
        SCALES,
        f"{DINH}; trained networks nearly always have a few slightly negative ones.",
    ),
    "trace": MeasureCaption(
        "sum of the Hessian's eigenvalues, by Hutchinson's random signs",
        "standard error over the probes; 0 where every weight was looked at",
        SCALES,
        f"{DINH}, and eigenvalues of both signs cancel.",
    ),
    "worst_case": MeasureCaption(
        "largest rise of the loss found within rho of the weights, by projected gradient ascent",
        BOUND,
        SCALES,
        f"{DINH}; a small rho measures the gradient.",
    ),
    "adaptive_worst_case": MeasureCaption(
        "the same where distances are in units of each weight's size",
        BOUND,
        "rescaling the layers of a ReLU network leaves it alone",
        "Across recipes it does not predict generalisation and follows the learning rate (Andriushchenko et al. 2023).",
    ),
}


def compute_tensors(
    spec: Sharpness, subjects: Sequence[AnalysisSubject], analysis_progress: AnalysisProgress
) -> Tensors:
    """`readings` float64 (subjects, columns, 4): value, error, forward and backward passes; `loss` (subjects,).

    Each measure also has, under its name, the numbers behind its value (subjects, width): loss increases, products with
    probes, Ritz values.
    """
    gauges = {name: GAUGES[name](spec) for name in spec.measures}
    rows = range(len(subjects))
    tiles = [(row, name, unit) for row in rows for name, each in gauges.items() for unit in range(each.units)]
    kept = {
        **_blank_tensors(spec, subjects),
        **move_to_weights_device(analysis_progress.found, subjects[0].network.values),
    }
    state = {name.removeprefix(NOW): kept.pop(name) for name in list(kept) if name.startswith(NOW)}
    ground = LossAtWeights(subjects[0], spec.seed)
    for done, (row, name, unit) in enumerate(tiles[analysis_progress.done :], analysis_progress.done + 1):
        if ground.subject is not subjects[row]:
            ground = LossAtWeights(subjects[row], spec.seed)
        gauge = gauges[name]
        state = state if unit else gauge.initial_state(ground)
        gauge.compute_unit(ground, state, unit)
        if unit == gauge.units - 1:
            kept["loss"][row] = ground.height
            kept[name][row, : len(state["raw"])] = state["raw"]
            first = reported_columns(spec).index(gauge.columns[0])
            found = torch.tensor(gauge.final_measurements(ground, state), dtype=torch.float64)
            kept["readings"][row, first : first + len(found)] = found
            state = {}
            for warning in _unmoved_warnings(subjects[row], kept, row, [name]):
                analysis_progress.warn(warning)
        analysis_progress.keep(done, len(tiles), {**kept, **{f"{NOW}{part}": each for part, each in state.items()}})
    return kept


def _blank_tensors(spec: Sharpness, subjects: Sequence[AnalysisSubject]) -> Tensors:
    widths = {name: GAUGES[name](spec).units for name in spec.measures}
    return {
        "readings": nan_tensor(len(subjects), len(reported_columns(spec)), 4),
        "loss": nan_tensor(len(subjects)),
        **{name: nan_tensor(len(subjects), width) for name, width in widths.items()},
    }


def reported_columns(spec: Sharpness) -> list[str]:
    """The names of the reported columns, in the order of `readings`."""
    return [column for name in spec.measures for column in GAUGES[name](spec).columns]


def report_numbers(spec: Sharpness, subjects: Sequence[AnalysisSubject], tensors: Tensors) -> dict[str, Any]:
    """`measures` by name, each with a row per subject, and `warnings` about comparisons between subjects."""
    losses = [finite_or_none(each) for each in tensors["loss"].tolist()]
    measures = {
        name: {**asdict(ABOUT[name]), "rows": _measure_rows(subjects, losses, tensors["readings"][:, column])}
        for column, name in enumerate(reported_columns(spec))
    }
    options = {"measures", "radius", "directions", "lanczos_steps", "probes", "rho", "adaptive_rho", "ascent_steps"}
    return {
        "split": "train",
        "loss": "the one that the job minimises, in evaluation mode, without weight decay",
        "batch_norm": "fixed",
        "seed": spec.seed,
        "options": spec.model_dump(mode="json", include=options),
        "subjects": [
            {
                "label": subject.label,
                "examples": len(subject.parts["train"]),
                "weights": len(subject.network.values),
                "train_loss": loss,
                "edge_of_stability": subject.spec.optimizer.stability_limit,
            }
            for subject, loss in zip(subjects, losses, strict=True)
        ],
        "measures": measures,
        "warnings": [
            *_comparison_warnings([each for each in losses if each is not None], subjects),
            *(each for row, one in enumerate(subjects) for each in _unmoved_warnings(one, tensors, row, spec.measures)),
        ],
    }


def _measure_rows(
    subjects: Sequence[AnalysisSubject], losses: Sequence[float | None], readings: Tensor
) -> list[dict[str, Any]]:
    rows = []
    for subject, loss, (value, error, forward, backward) in zip(subjects, losses, readings.tolist(), strict=True):
        passes = None if isnan(forward) else {"forward": int(forward), "backward": int(backward)}
        rows.append(
            {
                "label": subject.label,
                "train_loss": loss,
                "value": finite_or_none(value),
                "error": finite_or_none(error),
                "passes": passes,
            }
        )
    return rows


def _unmoved_warnings(
    subject: AnalysisSubject, tensors: Tensors, row: int, measures: Sequence[Measure]
) -> Iterator[str]:
    """A warning for each measure that is 0 because the loss is the same at all evaluated weights."""
    height = float(tensors["loss"][row])
    rounding = STILL * torch.finfo(subject.network.values.dtype).eps * abs(height)
    for name in measures:
        if name in RISES and bool((tensors[name][row].abs() <= rounding).all()):
            yield (
                f"{name.replace('_', ' ')} of {subject.label}: the loss is {height:.4g} at all places that were looked "
                "at, so this measures nothing. Units that are dead for every example, outputs that are saturated, and "
                "weights of 0 do that."
            )


def _comparison_warnings(losses: Sequence[float], subjects: Sequence[AnalysisSubject]) -> Iterator[str]:
    low, high = min(losses, default=0.0), max(losses, default=0.0)
    if high - low > MATCHED * abs(low):
        yield f"The train losses are not matched, {low:.3g} to {high:.3g}: sharpness at unequal loss says little."
    if len({len(each.network.values) for each in subjects}) > 1:
        yield "The networks are not of one size: only what rescaling leaves alone can be compared."
    if any(each.spec.optimizer.has_weight_decay for each in subjects):
        yield "Weight decay is no part of the loss that is looked at, so its minimum is not where training ends."
