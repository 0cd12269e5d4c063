"""Results of analyses as their modules give them: numbers and arrays, made from formulas."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Result = tuple[dict[str, Any], dict[str, NDArray[Any]]]
Surface = Callable[[NDArray[Any], NDArray[Any]], NDArray[Any]]

NASTY = '<script>alert(1)</script> & "it\'s" $x_1$ ' + "W" * 150
EXAMPLES = {"train": 1293, "val": 144, "test": 360}


def bowl(x: NDArray[Any], y: NDArray[Any]) -> NDArray[Any]:
    """0.01 at (0.1, -0.1)."""
    return 0.01 + 3 * (x - 0.1) ** 2 + 0.5 * (y + 0.1) ** 2


def named(label: str, step: int = 400, **more: Any) -> dict[str, Any]:
    return {"label": label, "job": "job_1", "checkpoint": "ckpt_1", "kind": "last", "step": step, "seed": 0, **more}


def measured(splits: Sequence[str], loss: float = 0.01) -> dict[str, dict[str, float]]:
    return {split: {"loss": loss, "accuracy": 0.95} for split in splits}


def seen(splits: Sequence[str]) -> dict[str, Any]:
    return {
        "splits": list(splits),
        "examples": {split: EXAMPLES[split] for split in splits},
        "metrics": ["loss", "accuracy"],
        "parameters": 26122,
        "bn": None,
    }


def surveyed(places: Sequence[NDArray[Any]], computed: int | None, norm: float = 12.3) -> dict[str, Any]:
    points = math.prod(len(each) for each in places) if places else 0
    return {
        "axes": [{"range": [each[0], each[-1]], "steps": len(each), "norm": norm} for each in places],
        "cosine": 0.004 if len(places) == 2 else None,
        "points": points,
        "computed": points if computed is None else computed,
    }


def landscape(  # noqa: PLR0917 - a sample's choices
    steps: int = 9,
    dimensions: int = 2,
    splits: Sequence[str] = ("train",),
    computed: int | None = None,
    surface: Surface = bowl,
    label: str = "digits (swa, step 8200)",
    reach: float = 1.0,
    part: tuple[int, int] | None = None,
) -> Result:
    """Around one checkpoint; the test surface is that of train, moved. A part holds every so many points."""
    places = [np.linspace(-reach, reach, steps) for _ in range(dimensions)]
    x, y = np.meshgrid(places[0], places[1]) if dimensions == 2 else (places[0], np.zeros(steps))
    arrays = dict(zip("xy", places, strict=False))
    numbers = {"partial": computed is not None, "dimensions": dimensions, "directions": "random", "norm": "filter"}
    numbers |= {"ignore": "biasbn", "seed": 3, "eigenvalues": None, **seen(splits), **surveyed(places, computed)}
    numbers |= {"centre": measured(splits), "subjects": [named(label, at=[0.0] * dimensions, off=0.0)], "surface": {}}
    for order, split in enumerate(splits):
        losses = np.array(surface(x - 0.2 * order, y), dtype=float)
        shares = 1 / (1 + np.abs(losses))
        if part:
            lacking = np.arange(losses.size) % part[1] != part[0] - 1
            losses.reshape(-1)[lacking] = shares.reshape(-1)[lacking] = math.nan
            told = {"number": part[0], "of": part[1]}
            numbers |= {"part": told, "computed": int((~lacking).sum())}
        if computed is not None:
            losses.reshape(-1)[computed:] = shares.reshape(-1)[computed:] = math.nan
        arrays |= {f"{split}.loss": losses, f"{split}.accuracy": shares}
        known = losses[np.isfinite(losses)]
        low = (
            {"lowest": float(known.min()), "at": [0.1] * dimensions, "highest": float(known.max())}
            if len(known)
            else None
        )
        numbers["surface"][split] = low
    return numbers, arrays


def trajectory(  # noqa: PLR0917 - a sample's choices
    count: int = 12,
    steps: int = 9,
    splits: Sequence[str] = ("train",),
    axes: int = 2,
    label: str = "digits",
    swa: bool = True,
) -> Result:
    """A spiral into the middle."""
    turns = np.linspace(0, 1, count)
    at = np.stack([4 * (1 - turns) * np.cos(4 * turns), 3 * (1 - turns) * np.sin(4 * turns)], 1)[:, :axes]
    path = [
        named(f"{label} (last, step {41 * row})", 41 * row, at=place.tolist(), off=0.2 * (count - row) / count)
        | measured(splits, 2.3 * math.exp(-row))
        for row, place in enumerate(at)
    ]
    averages = [named(label, 500, kind="swa", at=[0.3] * axes, off=0.1) | measured(splits)] if swa else []
    places = [np.linspace(each.min() - 1, each.max() + 1, steps) for each in at.T] if steps else []
    arrays: dict[str, NDArray[Any]] = dict(zip("xy", places, strict=False))
    if steps:
        x, y = np.meshgrid(*places) if axes == 2 else (places[0], np.zeros(steps))
        for split in splits:
            arrays |= {f"{split}.loss": bowl(x, y), f"{split}.accuracy": 1 / (1 + bowl(x, y))}
    numbers = {"partial": False, "directions": "pca", "norm": "none", "seed": 0, "explained": [0.881, 0.073][:axes]}
    numbers |= {"centred": [0.7, 0.2][:axes], **seen(splits), **surveyed(places, None, 1.0)}
    return numbers | {"cosine": 0.0 if axes == 2 else None, "surface": {}, "path": path, "averages": averages}, arrays


def interpolation(
    steps: int = 21, pairs: int = 1, label: str = "digits", height: float = 1.0, unknown: bool = False
) -> Result:
    """A hill of some height between the ends, of each split."""
    alpha = np.linspace(-0.5, 1.5, steps)
    hill = height * np.exp(-(((alpha - 0.5) / 0.2) ** 2)) + 0.02
    splits = list(EXAMPLES)
    arrays = {"alpha": alpha, "own": np.zeros((pairs + 1, 3, 2))}
    for order, split in enumerate(splits):
        losses = np.tile(hill + 0.02 * order, (pairs, 1))
        if unknown:
            losses[-1, steps // 2 :] = math.nan
        arrays |= {f"{split}.loss": losses, f"{split}.accuracy": np.exp(-losses)}
    barrier = {"height": height, "alpha": 0.5, "loss": float(hill.max())}
    found = [
        {
            "from": f"{label} {row} (last, step 400)",
            "to": f"{label} {row + 1} (last, step 400)",
            "same_seed": False,
            "distance": 23.4,
            "cosine": 0.01,
            "barrier": dict.fromkeys(splits, None if unknown else barrier),
        }
        for row in range(pairs)
    ]
    subjects = [named(f"{label} {row} (last, step 400)") | measured(splits) for row in range(pairs + 1)]
    numbers = {"partial": unknown, **seen(splits), "range": [-0.5, 1.5], "subjects": subjects, "pairs": found}
    return numbers | {"steps": steps, "places": steps, "added": []}, arrays


def connect(points: int = 21, label: str = "digits", height: float = 0.6, epochs: int = 100) -> Result:
    """A hill on the line and none on the curve."""
    t = np.linspace(0, 1, points)
    splits = ["train", "test"]

    def along(losses: NDArray[Any]) -> dict[str, Any]:
        values = {"loss": losses.tolist(), "accuracy": np.exp(-losses).tolist()}
        found = {
            name: {"values": each, "least": min(each), "most": max(each), "mean": 0.1} for name, each in values.items()
        }
        return {split: found | {"barrier": float(losses.max() - losses[0])} for split in splits}

    numbers = {
        "partial": epochs < 100,
        "labels": [f"{label} 0 (last, step 400)", f"{label} 1 (last, step 400)"],
        "seed": 0,
        "points": points,
        "epochs": epochs,
        "options": {"epochs": 100, "lr": 0.03, "momentum": 0.9, "batch_size": 32},
        "batch_norm": "estimated again at each point",
        "examples": {split: EXAMPLES[split] for split in splits},
        "train_loss": [0.5 * math.exp(-epoch / 9) + 0.001 for epoch in range(epochs)] + [None] * (100 - epochs),
        "t": t.tolist(),
        "length": {"curve": 31.2, "line": 23.4},
        "curve": along(0.002 + 0.001 * np.sin(3 * t)),
        "line": along(0.002 + height * np.sin(math.pi * t) ** 2),
        "caveats": ["Units of hidden layers can be swapped.", "The curve was trained; the line was not."],
    }
    return numbers, {"t": t}


MEASURES = {
    "gradient_norm": 0.004,
    "filter_noise": 0.31,
    "multiplicative_noise": 0.02,
    "lambda_max": 23.4,
    "lambda_min": -0.4,
    "trace": 112.0,
    "worst_case": 1.4,
    "adaptive_worst_case": 2.2,
}


def sharpness(
    count: int = 2, measures: Sequence[str] = tuple(MEASURES), label: str = "digits", scale: float = 1.0
) -> Result:
    """Each subject a little higher than the one before it."""
    labels = [f"{label} {row} (last, step 400)" for row in range(count)]
    numbers = {"partial": False, "split": "train", "batch_norm": "fixed", "seed": 0, "warnings": ["Losses differ."]}
    numbers["loss"] = "the one that the job minimises"
    numbers["subjects"] = [
        {"label": each, "examples": 1293, "weights": 26122, "train_loss": 0.01 * (row + 1), "edge_of_stability": 38.0}
        for row, each in enumerate(labels)
    ]
    numbers["measures"] = {
        name: {
            "invariance": "none: it changes" if name in {"lambda_max", "trace"} else "rescaling leaves it alone",
            "rows": [
                {"label": each, "value": scale * MEASURES[name] * (1 + row), "error": None if row == 0 else 0.1 * scale}
                for row, each in enumerate(labels)
            ],
        }
        for name in measures
    }
    ritz = np.concatenate([np.geomspace(1e-3, 23.4, 25), -np.geomspace(1e-3, 0.4, 5), [math.nan]])
    return numbers, {"eigenvalues": np.tile(ritz, (count, 1)), "readings": np.zeros((count, 8, 4))}


def critical_point(verdict: str | None = "saddle", label: str = "digits", curve: float = -0.4) -> Result:
    """x⁴ less a parabola."""
    at = np.linspace(-1, 1, 41)
    losses = 0.3 + curve / 2 * at**2 + at**4
    known = verdict is not None
    numbers = {
        "partial": not known,
        "label": label,
        "split": "train",
        "examples": 1293,
        "weights": 26122,
        "seed": 0,
        "loss": 0.3,
        "verdict": verdict,
        "sentence": "A saddle: the loss curves down." if known else None,
        "sure": True if known else None,
        "gradient": {"norm": 0.002, "along": 0.001, "curvature": 2.0, "tolerance": 0.02},
        "curvature": {
            "largest": {"value": 23.4 if known else None, "residual": 1e-4 if known else None},
            "smallest": {"value": curve if known else None, "residual": 1e-3 if known else None},
            "tau": 0.234 if known else None,
        },
        "profile": {
            "at": at.tolist(),
            "loss": losses.tolist() if known else [None] * 41,
            "parabola": (0.3 + curve / 2 * at**2).tolist() if known else [None] * 41,
        },
        "caveats": ["Curvatures change when layers are rescaled."],
    }
    raw = np.concatenate([[curve], np.geomspace(1e-3, 23.4, 39)]) if known else np.full(40, math.nan)
    return numbers, {"raw": raw, "profile": losses}


def lr_range(runs: int = 3, label: str = "digits", known: bool = True) -> Result:
    """Falls, then rises steeply."""
    rates = np.logspace(-5, 1, 100)
    curves = [2.3 - 2 / (1 + np.exp(-3 * (np.log10(rates) + 2))) + (rates / (3 + row)) ** 3 for row in range(runs)]
    read = {"steepest": 0.01, "tenth": 0.03, "base": 0.002, "top": 0.3}
    found = [
        {
            "seed": row,
            "lr": rates.tolist() if known else [],
            "losses": (losses + 0.1 * np.sin(np.arange(100))).tolist() if known else [],
            "smoothed": losses.tolist() if known else [],
            "steps": 100,
            "candidates": {name: value * (1 + row) for name, value in read.items()} if known else None,
        }
        for row, losses in enumerate(curves)
    ]
    across = {name: {"lowest": value if known else None, "values": [], "ratio": 3.0} for name, value in read.items()}
    numbers = {
        "partial": not known,
        "label": label,
        "optimizer": "sgd",
        "batch_size": 32,
        "lr_of_job": 0.1,
        "options": {"low": 1e-5, "high": 10.0, "steps": 100, "runs": runs, "smoothing": 0.05, "stop_at": 4.0},
        "loss": "of each batch",
        "runs": found,
        "candidates": across,
        "caveats": ["These are where a search may begin."],
    }
    return numbers, {"lr": rates, "losses": np.stack(curves)}


def gradient_noise(count: int = 12, label: str = "digits", known: bool = True, grow: float = 0.4) -> Result:
    """It grows; at the first place the gradient does not stand out."""
    places = [
        {
            "label": f"{label} (last, step {41 * row})",
            "step": 41 * row,
            "kind": "last",
            "train_loss": 2.3 * math.exp(-row) if known else None,
            "gradient": 0.1 * math.exp(-row) if known and row else -0.01 if known else None,
            "variance": 3.0 if known else None,
            "scale": 30.0 * math.exp(grow * row) if known and row else None,
            "error": 20.0 * (row % 3) if known and row else None,
            "exact": {"gradient": 0.1, "variance": 3.0, "scale": 33.0 * math.exp(grow * row)} if known else None,
        }
        for row in range(count)
    ]
    numbers = {"partial": not known, "split": "train", "examples": 1293, "seed": 0, "batch_size": 32, "checkpoints": 40}
    numbers |= {"options": {"small": 4, "large": 64, "draws": 50, "places": 12}, "places": places, "tradeoff": []}
    return numbers | {"advice": ["Try the neighbouring batch sizes before you rely on it."]}, {}


def average(count: int = 3, label: str = "digits") -> Result:
    """The average is better."""
    rows = [{"label": f"{label} {row}", **measured(list(EXAMPLES), 0.2)} for row in range(count)]
    return {
        "partial": False,
        "examples": EXAMPLES,
        "members": rows,
        "average": measured(list(EXAMPLES)),
        "ensemble": measured(list(EXAMPLES)),
    }, {}


SAMPLES: dict[str, Callable[..., Result]] = {
    "assembly": landscape,
    "average": average,
    "connect": connect,
    "critical_point": critical_point,
    "gradient_noise": gradient_noise,
    "interpolation": interpolation,
    "landscape": landscape,
    "lr_range": lr_range,
    "sharpness": sharpness,
    "trajectory": trajectory,
}
