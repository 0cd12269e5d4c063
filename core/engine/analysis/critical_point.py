"""What kind of place the weights are at; see core.recipe.analyses.critical_point."""

from collections.abc import Sequence
from typing import Any, Final, Literal

import torch

from core.engine.analysis.curvature import Lanczos
from core.engine.analysis.desk import Desk, Tensors
from core.engine.analysis.figures import number, placed, unknown
from core.engine.analysis.gauges import Eigenvalues, Ground
from core.engine.analysis.subject import Subject
from core.recipe.analyses.critical_point import CriticalPoint

Verdict = Literal["minimum", "saddle", "maximum", "not_stationary"]
RESULTS: Final = ("start", "ends", "raw", "escape", "at", "profile")

SENTENCES: Final[dict[Verdict, str]] = {
    "minimum": "A minimum up to curvature tau: no direction was found that curves down by more; one may exist.",
    "saddle": "A saddle: along the direction of escape the loss curves down, which its profile shows.",
    "maximum": "A maximum: the loss curves down in every direction, also in that of the largest eigenvalue.",
    "not_stationary": "No stationary point: the gradient is not small beside the curvature, so the weights still move.",
}


def explore(spec: CriticalPoint, subjects: Sequence[Subject], desk: Desk) -> Tensors:
    """`start` float64 (2,): loss and |g|; `ends` (2, 2): largest and smallest eigenvalue with residuals; `raw` (k,).

    `escape` (P,) is the smallest one's unit vector, `profile` (points,) the loss at distances `at` along it.
    """
    ground, gauge = Ground(subjects[0], spec.seed), Eigenvalues(spec.lanczos_steps)
    kept = placed(desk.found, ground.weights) or _begin(spec, ground, gauge)
    total = gauge.units + spec.points
    for tile in range(desk.done, total):
        place = tile - gauge.units
        if place < 0:
            gauge.advance(ground, kept, tile)
        else:
            kept["profile"][place] = ground.height + ground.rise(float(kept["at"][place]) * kept["escape"])
        if place == -1:
            kept["escape"] = Lanczos.resumed(kept, spec.seed).pairs().vectors[0].clone()
        desk.keep(tile + 1, total, kept)
    return {name: kept[name] for name in RESULTS}


def _begin(spec: CriticalPoint, ground: Ground, gauge: Eigenvalues) -> Tensors:
    slope = float(torch.linalg.vector_norm(ground.curvature.gradient))
    return {
        **gauge.begin(ground),
        "start": torch.tensor([ground.height, slope], dtype=torch.float64),
        "escape": torch.zeros_like(ground.weights),
        "at": torch.linspace(-spec.reach, spec.reach, spec.points, dtype=torch.float64),
        "profile": unknown(spec.points),
    }


def report(spec: CriticalPoint, subjects: Sequence[Subject], tensors: Tensors) -> dict[str, Any]:
    """`verdict` and all that it was made from; `profile` along the direction of escape."""
    loss, slope = tensors["start"].tolist()
    (highest, _), (lowest, error) = ends = tensors["ends"].tolist()
    scale = max(abs(highest), abs(lowest))
    known = bool(tensors["ends"].isfinite().all())
    verdict = classified(spec, slope, highest, lowest) if known else None
    tau = spec.curvature_tolerance * scale
    profile = tensors["profile"]
    return {
        "label": subjects[0].label,
        "split": "train",
        "examples": len(subjects[0].parts["train"]),
        "weights": len(subjects[0].network.values),
        "seed": spec.seed,
        "loss": number(loss),
        "verdict": verdict,
        "sentence": SENTENCES[verdict] if verdict else None,
        "sure": abs(lowest + tau) > error if known else None,
        "gradient": {"norm": number(slope), "tolerance": number(spec.gradient_tolerance * scale)},
        "curvature": {
            **{
                name: {"value": number(value), "residual": number(residual)}
                for name, (value, residual) in zip(("largest", "smallest"), ends, strict=True)
            },
            "tau": number(tau),
        },
        "profile": {
            "at": tensors["at"].tolist(),
            "loss": [number(each) for each in profile.tolist()],
            "parabola": [number(loss + lowest / 2 * each**2) for each in tensors["at"].tolist()],
            "drop": number(loss - float(profile.nan_to_num(torch.inf).min())),
        },
        "caveats": list(_caveats(subjects[0])),
    }


def classified(spec: CriticalPoint, slope: float, highest: float, lowest: float) -> Verdict:
    """By the length of the gradient and both ends of the spectrum."""
    scale = max(abs(highest), abs(lowest))
    tau = spec.curvature_tolerance * scale
    if slope > spec.gradient_tolerance * scale:
        return "not_stationary"
    if highest < -tau:
        return "maximum"
    return "saddle" if lowest < -tau else "minimum"


def _caveats(subject: Subject) -> list[str]:
    found = ["Curvatures change when the layers of a ReLU network are rescaled, which its function does not show."]
    if subject.spec.optimizer.decays:
        found.append(
            "Weight decay is no part of the loss that is looked at, so training does not end where it is flat."
        )
    return found
