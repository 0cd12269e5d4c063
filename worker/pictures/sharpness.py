"""Measures of sharpness side by side, each with its error, and the train loss at which they were measured."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from worker.pictures import Arrays
from worker.pictures.figure import (
    as_floats,
    distinct_labels,
    finite_values,
    format_number,
    join_words,
    new_figure,
    shorten_middle,
)
from worker.pictures.spectrum import draw_ritz_values

Numbers = Mapping[str, Any]
ACROSS = 3  # panels in a row


def draw_figures(numbers: Numbers, arrays: Arrays) -> Iterator[tuple[str, Figure]]:
    """`measures` and, where eigenvalues are among them, `spectrum`."""
    yield "measures", draw_measures(numbers)
    if "eigenvalues" in arrays and len(finite_values(arrays["eigenvalues"].ravel().tolist())):
        yield "spectrum", draw_spectrum(numbers, arrays)


def caption_text(numbers: Numbers) -> str:
    """The weights, and the examples."""
    subjects = numbers["subjects"]
    rows = [f"{shorten_middle(each['label'])} (train loss {format_number(each['train_loss'])})" for each in subjects]
    counts = sorted({f"{each['examples']:,}" for each in subjects})
    partial = "PARTIAL: it was cancelled; what has no point was not computed. " if numbers.get("partial") else ""
    return (
        f"{partial}{join_words(rows)}; {join_words(counts)} {numbers['split']} examples, "
        f"batch norm {numbers['batch_norm']}, seed {numbers['seed']}."
    )


def draw_measures(numbers: Numbers) -> Figure:
    """A panel with its own scale for each measure, after the train loss."""
    found, subjects = numbers["measures"], numbers["subjects"]
    names = distinct_labels([each["label"] for each in subjects])
    scaled = [name.replace("_", " ") for name, each in found.items() if not each["invariance"].startswith("none")]
    safe = (
        f"Rescaling the layers of a ReLU network leaves alone: {join_words(scaled)}; it changes the others."
        if scaled
        else ("Rescaling the layers of a ReLU network changes all of these.")
    )
    edges = sorted({format_number(each["edge_of_stability"]) for each in subjects if each["edge_of_stability"]})
    edge = (
        f"Edge of stability, 2 (1 + momentum) / lr, of the recipes: {join_words(edges)}."
        if edges and "lambda_max" in found
        else ""
    )
    caption = " ".join(
        [
            caption_text(numbers),
            "Bars are errors, defined differently for each measure: see the numbers.",
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
    made = new_figure(caption, width=9.0, height=0.3 + down * (0.7 + 0.24 * len(subjects)))
    axes = made.subplots(down, ACROSS, sharey=True, squeeze=False).ravel()
    for (name, values, errors), ax in zip(panels, axes, strict=False):
        draw_panel(ax, name, as_floats(values), as_floats(errors))
    for ax in axes[len(panels) :]:
        ax.remove()
    for ax in axes[::ACROSS][:down]:
        ax.set_yticks(range(len(names)), names)
        ax.set_ylim(len(names) - 0.5, -0.5)
    return made


def draw_panel(ax: Axes, name: str, values: Any, errors: Any) -> None:
    """A point for each subject, with its error; 0 is on the axis unless all are far from it."""
    rows = list(range(len(values)))
    ax.errorbar(values, rows, xerr=np.nan_to_num(errors), fmt="o", color="tab:blue", capsize=3)
    ax.set_title(name)
    shown = finite_values(values.tolist())
    if len(shown) and shown.min() >= 0:
        ax.set_xlim(left=0)
    ax.tick_params(axis="x", labelsize=7.5)
    ax.locator_params(axis="x", nbins=4)


def draw_spectrum(numbers: Numbers, arrays: Arrays) -> Figure:
    """The eigenvalues that Lanczos found, a row for each subject."""
    names = distinct_labels([each["label"] for each in numbers["subjects"]])
    made = new_figure(
        f"Ritz values: estimates of the eigenvalues of the Hessian from a limited number of products with it. The ends "
        f"are accurate, the middle is not. {caption_text(numbers)}",
        height=1.2 + 0.4 * len(names),
    )
    draw_ritz_values(made.subplots(), list(zip(names, arrays["eigenvalues"].tolist(), strict=True)))
    return made
