"""The kind of point at the weights: minimum, saddle, maximum or none; see core.recipe.analyses.critical_point."""

import math
from collections.abc import Sequence
from itertools import takewhile
from typing import Any, Final, Literal, NamedTuple

import torch

from core.engine.analysis.curvature import Lanczos
from core.engine.analysis.progress import AnalysisProgress, Tensors
from core.engine.analysis.sharpness_measures import Eigenvalues, LossAtWeights
from core.engine.analysis.subject import AnalysisSubject
from core.engine.analysis.tables import finite_or_none, move_to_weights_device, nan_tensor
from core.recipe.analyses.critical_point import ALONG_GRADIENT, CriticalPoint

Verdict = Literal["minimum", "saddle", "maximum", "not_stationary"]
RESULTS: Final = ("start", "ends", "raw", "escape", "at", "profile", "slopes")
ALONG: Final = "gradient."  # the tensors of the Lanczos iteration that begins with the gradient
ROUNDINGS: Final = 8  # a difference of at most this many rounding errors counts as 0
COUNTS: Final = 1e-3  # of the loss: a smaller fall is no evidence against a minimum

SENTENCES: Final[dict[Verdict, str]] = {
    "minimum": "A minimum up to curvature tau: no direction was found that curves down by more; there may be one.",
    "saddle": "A saddle: along the direction of escape the loss falls, which its profile shows.",
    "maximum": "A maximum: the loss curves down in every direction, also in that of the largest eigenvalue.",
    "not_stationary": (
        "No stationary point: along some direction the gradient is not small beside the curvature, and the bottom or "
        "top that both predict is further away than the tolerance."
    ),
}


def compute_tensors(
    spec: CriticalPoint, subjects: Sequence[AnalysisSubject], analysis_progress: AnalysisProgress
) -> Tensors:
    """`start` float64 (2,): loss and |g|; `ends` (2, 2): largest and smallest eigenvalue with residuals; `raw` (k,).

    `escape` (P,) is the unit eigenvector of the smallest, `profile` (points,) the loss at distances `at` along it.
    `slopes` (steps, 3) are the Ritz pairs of the iteration that begins with the gradient: value, |g·v| and residual.
    """
    ground, gauge = LossAtWeights(subjects[0], spec.seed), Eigenvalues(spec.lanczos_steps)
    kept = move_to_weights_device(analysis_progress.found, ground.weights) or _initial_tensors(spec, ground, gauge)
    # A checkpoint of an earlier release lacks the iteration that begins with the gradient.
    kept = {**_gradient_lanczos_state(ground), **kept}
    total = gauge.units + spec.points
    for tile in range(analysis_progress.done, total):
        place = tile - gauge.units
        _extend_gradient_lanczos(ground, kept, tile + 1 if place < -1 else ALONG_GRADIENT)
        if place < 0:
            gauge.compute_unit(ground, kept, tile)
        else:
            kept["profile"][place] = ground.height + ground.loss_increase(float(kept["at"][place]) * kept["escape"])
        if place == -1:
            kept["escape"] = Lanczos.from_tensors(kept, spec.seed).ritz_pairs().vectors[0].clone()
        analysis_progress.keep(tile + 1, total, kept)
    return {name: kept[name] for name in RESULTS}


def _initial_tensors(spec: CriticalPoint, ground: LossAtWeights, gauge: Eigenvalues) -> Tensors:
    slope = float(torch.linalg.vector_norm(ground.curvature.gradient))
    return {
        **gauge.initial_state(ground),
        "start": torch.tensor([ground.height, slope], dtype=torch.float64),
        "escape": torch.zeros_like(ground.weights),
        "at": torch.linspace(-spec.reach, spec.reach, spec.points, dtype=torch.float64),
        "profile": nan_tensor(spec.points),
    }


def _gradient_lanczos_state(ground: LossAtWeights) -> Tensors:
    """The state of a Lanczos iteration that begins with the gradient, so that its space contains the gradient."""
    lanczos = Lanczos.start_iteration(ground.weights, ALONG_GRADIENT, ground.seed, ground.curvature.gradient)
    state = {f"{ALONG}{name}": each for name, each in lanczos.tensors().items()}
    return {**state, "slopes": nan_tensor(len(lanczos.basis), 3)}


def _extend_gradient_lanczos(ground: LossAtWeights, kept: Tensors, steps: int) -> None:
    """Extend that iteration to `steps` steps, or to its own number of steps if that is smaller."""
    state = {name.removeprefix(ALONG): each for name, each in kept.items() if name.startswith(ALONG)}
    lanczos = Lanczos.from_tensors(state, ground.seed)
    for _ in range(lanczos.done, min(steps, len(lanczos.basis))):
        lanczos.extend_basis(ground.curvature.hessian_product)
    kept |= {f"{ALONG}{name}": each for name, each in lanczos.tensors().items()}
    if lanczos.is_complete:
        pairs = lanczos.ritz_pairs()
        along = (pairs.vectors @ ground.curvature.gradient).abs().double()
        kept["slopes"] = torch.stack([pairs.values, along, pairs.residuals], 1)


class Slope(NamedTuple):
    """A Ritz pair and the slope `along` it: the parabola's bottom, or top, is at a distance of `along` / |value|."""

    value: float
    along: float
    residual: float

    def allowed_slope(self, tolerance: float, noise: float) -> float:
        """The largest slope of weights that are within `tolerance` of the bottom or top, plus `noise`."""
        return tolerance * abs(self.value) + noise


class Evidence(NamedTuple):
    """The evidence for a verdict.

    `noise` is the size of a gradient that rounding alone may cause, `flat` that of a curvature. `falls` is whether the
    loss falls along the profile.
    """

    highest: float
    lowest: float
    errors: tuple[float, float]
    slopes: tuple[Slope, ...]
    noise: float
    flat: float
    tau: float
    falls: bool

    def steepest_pair(self, tolerance: float) -> Slope:
        """The pair with the largest ratio of slope to allowed slope."""
        return max(
            self.slopes, key=lambda each: each.along / (each.allowed_slope(tolerance, self.noise) or math.ulp(0.0))
        )


def report_numbers(spec: CriticalPoint, subjects: Sequence[AnalysisSubject], tensors: Tensors) -> dict[str, Any]:
    """`verdict` and the evidence for it; `profile` along the direction of escape."""
    loss, slope = tensors["start"].tolist()
    ends, profile = tensors["ends"].tolist(), tensors["profile"]
    known = bool(tensors["ends"].isfinite().all()) and bool(tensors["slopes"].isfinite().all())
    seen = _collect_evidence(spec, subjects[0], tensors)
    verdict = classify_point(spec, seen) if known else None
    steepest = seen.steepest_pair(spec.gradient_tolerance) if known else Slope(math.nan, math.nan, math.nan)
    return {
        "label": subjects[0].label,
        "split": "train",
        "examples": len(subjects[0].parts["train"]),
        "weights": len(subjects[0].network.values),
        "seed": spec.seed,
        "loss": finite_or_none(loss),
        "verdict": verdict,
        "sentence": SENTENCES[verdict] if verdict else None,
        "sure": is_certain(spec, seen, verdict) if verdict else None,
        "gradient": {
            "norm": finite_or_none(slope),
            "along": finite_or_none(steepest.along),
            "curvature": finite_or_none(steepest.value),
            "tolerance": finite_or_none(steepest.allowed_slope(spec.gradient_tolerance, seen.noise)),
        },
        "curvature": {
            **{
                name: {"value": finite_or_none(value), "residual": finite_or_none(residual)}
                for name, (value, residual) in zip(("largest", "smallest"), ends, strict=True)
            },
            "tau": finite_or_none(seen.tau),
        },
        "profile": {
            "at": tensors["at"].tolist(),
            "loss": [finite_or_none(each) for each in profile.tolist()],
            "parabola": [finite_or_none(loss + seen.lowest / 2 * each**2) for each in tensors["at"].tolist()],
            "drop": finite_or_none(loss - float(profile.nan_to_num(torch.inf).min())),
        },
        "caveats": list(_caveat_sentences(subjects[0], seen if known else None)),
    }


def _collect_evidence(spec: CriticalPoint, subject: AnalysisSubject, tensors: Tensors) -> Evidence:
    (highest, above), (lowest, below) = tensors["ends"].tolist()
    scale = max(abs(highest), abs(lowest))
    weights, tau = subject.network.values, spec.curvature_tolerance * scale
    rounding = torch.finfo(weights.dtype).eps
    least = ROUNDINGS * rounding * float(tensors["start"][1])  # the rounding error of a product with g
    slopes = tuple(
        Slope(value, 0.0 if along <= least else along, error) for value, along, error in tensors["slopes"].tolist()
    )
    noise = rounding * scale * float(torch.linalg.vector_norm(weights))
    flat = ROUNDINGS * rounding * scale
    falls = _loss_falls(spec, tensors, lowest, flat, rounding)
    return Evidence(highest, lowest, (above, below), slopes, noise, flat, tau, falls)


def _loss_falls(spec: CriticalPoint, tensors: Tensors, lowest: float, flat: float, rounding: float) -> bool:
    """Whether the loss falls on either side of the weights before it rises, by more than a minimum allows.

    The fall has to exceed a share COUNTS of the loss, plus the slope and twice the negative curvature that the
    tolerances allow at a minimum.
    """
    height = float(tensors["start"][0])
    still, counts = ROUNDINGS * rounding * abs(height), COUNTS * abs(height)
    rises = sorted(zip(tensors["at"].tolist(), (tensors["profile"] - height).tolist(), strict=True))
    sides = [each for each in reversed(rises) if each[0] < 0], [each for each in rises if each[0] > 0]
    return any(
        rise < -(counts + spec.gradient_tolerance * abs(lowest * at) + max(flat, -lowest) * at**2)
        for side in sides
        for at, rise in takewhile(lambda one: one[1] <= still, side)  # NaN (not computed) ends it too
    )


def classify_point(spec: CriticalPoint, seen: Evidence) -> Verdict:
    """The verdict, from the gradient along each Ritz vector, both ends of the spectrum, and the profile of the loss."""
    if any(each.along > each.allowed_slope(spec.gradient_tolerance, seen.noise) for each in seen.slopes):
        return "not_stationary"
    if seen.highest < -seen.flat:
        return "maximum"
    return "saddle" if seen.lowest < -seen.tau or seen.falls else "minimum"


def is_certain(spec: CriticalPoint, seen: Evidence, verdict: Verdict) -> bool:
    """Whether the verdict is the same for all eigenvalues within their residuals.

    A curvature that may be 0 is no evidence: it may be that of a valley, of a fourth power, or of a plain. A minimum
    with a negative curvature within tau is not certain either.
    """
    tolerance, (above, below) = spec.gradient_tolerance, seen.errors
    if verdict == "not_stationary":
        return any(each.along > tolerance * (abs(each.value) + each.residual) + seen.noise for each in seen.slopes)
    if any(each.along > tolerance * max(0.0, abs(each.value) - each.residual) for each in seen.slopes):
        return False
    if verdict == "maximum":
        return seen.highest + above < -seen.flat
    if verdict == "saddle":
        return seen.lowest + below < -seen.tau and seen.highest - above > seen.flat
    return seen.lowest - below > seen.flat


def _caveat_sentences(subject: AnalysisSubject, seen: Evidence | None) -> list[str]:
    found = ["Curvatures change when the layers of a ReLU network are rescaled, which its function does not show."]
    if subject.spec.optimizer.has_weight_decay:
        found.append(
            "Weight decay is no part of the loss that is looked at, so training does not end where it is flat."
        )
    if seen and seen.highest == seen.lowest == 0 and not any(each.along for each in seen.slopes):
        found.append("The loss is constant around here: every unit may be dead, or every output saturated.")
    elif seen and -seen.tau <= seen.lowest <= seen.flat + seen.errors[1]:
        found.append("The smallest curvature may be 0 or less, so that second derivatives alone prove no minimum.")
    return found
