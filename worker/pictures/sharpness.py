"""Measures of sharpness side by side, each with its error, beside the train loss that they were taken at."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from worker.pictures import Arrays
from worker.pictures.figure import distinct, figure, finite, known, listed, number, short
from worker.pictures.spectrum import ritz

Numbers = Mapping[str, Any]
ACROSS = 3  # panels in a row


def figures(numbers: Numbers, arrays: Arrays) -> Iterator[tuple[str, Figure]]:
    """`measures` and, where eigenvalues are among them, `spectrum`."""
    yield "measures", measures(numbers)
    if "eigenvalues" in arrays and len(finite(arrays["eigenvalues"].ravel().tolist())):
        yield "spectrum", spectrum(numbers, arrays)


def about(numbers: Numbers) -> str:
    """Whose weights, and on what."""
    subjects = numbers["subjects"]
    rows = [f"{short(each['label'])} (train loss {number(each['train_loss'])})" for each in subjects]
    counts = sorted({f"{each['examples']:,}" for each in subjects})
    partial = "PARTIAL: it was cancelled; what has no point was not computed. " if numbers.get("partial") else ""
    return (
        f"{partial}{listed(rows)}; {listed(counts)} {numbers['split']} examples, batch norm {numbers['batch_norm']}, "
        f"seed {numbers['seed']}."
    )


def measures(numbers: Numbers) -> Figure:
    """A panel for each measure with a scale of its own, first the train loss."""
    found, subjects = numbers["measures"], numbers["subjects"]
    names = distinct([each["label"] for each in subjects])
    scaled = [name.replace("_", " ") for name, each in found.items() if not each["invariance"].startswith("none")]
    safe = (
        f"Rescaling the layers of a ReLU network leaves alone: {listed(scaled)}; it changes the others."
        if scaled
        else ("Rescaling the layers of a ReLU network changes all of these.")
    )
    edges = sorted({number(each["edge_of_stability"]) for each in subjects if each["edge_of_stability"]})
    edge = (
        f"Edge of stability, 2 (1 + momentum) / lr, of the recipes: {listed(edges)}."
        if edges and "lambda_max" in found
        else ""
    )
    caption = " ".join(
        [
            about(numbers),
            "Bars are errors, of another kind for each measure: see the numbers.",
            safe,
            edge,
            *numbers["warnings"],
        ]
    )
    panels = [("train loss", [each["train_loss"] for each in subjects], [None] * len(subjects))]
    for name, each in found.items():
        rows = each["rows"]
        panels.append((name.replace("_", " "), [row["value"] for row in rows], [row["error"] for row in rows]))
    down = -(-len(panels) // ACROSS)
    made = figure(caption, width=9.0, height=0.3 + down * (0.7 + 0.24 * len(subjects)))
    axes = made.subplots(down, ACROSS, sharey=True, squeeze=False).ravel()
    for (name, values, errors), ax in zip(panels, axes, strict=False):
        panel(ax, name, known(values), known(errors))
    for ax in axes[len(panels) :]:
        ax.remove()
    for ax in axes[::ACROSS][:down]:
        ax.set_yticks(range(len(names)), names)
        ax.set_ylim(len(names) - 0.5, -0.5)
    return made


def panel(ax: Axes, name: str, values: Any, errors: Any) -> None:
    """A point for each subject, with its error; 0 is on the axis unless all are far from it."""
    rows = list(range(len(values)))
    ax.errorbar(values, rows, xerr=np.nan_to_num(errors), fmt="o", color="tab:blue", capsize=3)
    ax.set_title(name)
    shown = finite(values.tolist())
    if len(shown) and shown.min() >= 0:
        ax.set_xlim(left=0)
    ax.tick_params(axis="x", labelsize=7.5)
    ax.locator_params(axis="x", nbins=4)


def spectrum(numbers: Numbers, arrays: Arrays) -> Figure:
    """What Lanczos found, a row for each subject."""
    names = distinct([each["label"] for each in numbers["subjects"]])
    made = figure(
        f"Ritz values: what the eigenvalues of the Hessian look like after so many products with it. The ends are "
        f"accurate, the middle is not. {about(numbers)}",
        height=1.2 + 0.4 * len(names),
    )
    ritz(made.subplots(), list(zip(names, arrays["eigenvalues"].tolist(), strict=True)))
    return made
