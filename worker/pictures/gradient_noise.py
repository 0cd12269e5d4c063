"""The gradient noise scale over a run, compared with the batch size, and the two estimates behind it."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from worker.pictures import Arrays
from worker.pictures.captions import format_counts
from worker.pictures.figure import (
    as_floats,
    draw_empty,
    draw_legend,
    finite_values,
    format_number,
    new_figure,
    set_y_axis,
    shorten_middle,
)

Numbers = Mapping[str, Any]
AVERAGED = {"swa", "ema"}


def draw_figures(numbers: Numbers, arrays: Arrays) -> Iterator[tuple[str, Figure]]:
    """`noise`: the noise scale above, its two parts below."""
    made = new_figure(caption_text(numbers), height=4.8)
    upper, lower = made.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    draw_scales(upper, numbers)
    draw_parts(lower, numbers)
    lower.set_xlabel("optimizer step")
    yield "noise", made


def draw_scales(ax: Axes, numbers: Numbers) -> None:
    """B with its standard error, exact values where they were computed, and the batch size of the job."""
    every = numbers["places"]
    for rows, form, label in (
        (run_points(numbers), "o-", "estimated"),
        (averaged_points(numbers), "D", "averaged weights"),
    ):
        values, errors = as_floats(each["scale"] for each in rows), as_floats(each["error"] for each in rows)
        below = np.where(values > errors, errors, 0.9 * values)
        at, bars = [each["step"] for each in rows], np.array([below, errors])
        if rows:
            ax.errorbar(at, values, yerr=bars, fmt=form, markersize=4, capsize=3, label=label)
    exact = [(each["exact"] or {}).get("scale") for each in every]
    if len(finite_values(exact)):
        ax.plot([each["step"] for each in every], as_floats(exact), "x", color="black", label="over all examples")
    ax.axhline(numbers["batch_size"], color="tab:red", linestyle="--", linewidth=1, label="batch size of the job")
    if len(finite_values([*(each["scale"] for each in every), *exact])):
        ax.set_yscale("log")
    else:
        measured = any(each is not None for each in scale_parts(numbers))
        draw_empty(ax, "the gradient does not stand out of its noise" if measured else "nothing computed yet")
    ax.set_ylabel("noise scale B, in examples")
    draw_legend(ax, 4)


def run_points(numbers: Numbers) -> list[Numbers]:
    """The checkpoints of the run itself."""
    return [each for each in numbers["places"] if each["kind"] not in AVERAGED]


def averaged_points(numbers: Numbers) -> list[Numbers]:
    """The checkpoints of averaged weights."""
    return [each for each in numbers["places"] if each["kind"] in AVERAGED]


def scale_parts(numbers: Numbers) -> list[float | None]:
    """The values of G² and S at every checkpoint."""
    return [each[name] for each in numbers["places"] for name in ("gradient", "variance")]


def draw_parts(ax: Axes, numbers: Numbers) -> None:
    """The squared gradient G², and the variance S of one example's gradient."""
    places = run_points(numbers)
    at = [each["step"] for each in places]
    for name, label, style in (("variance", "S, variance", "^-"), ("gradient", "G², squared gradient", "v-")):
        values = as_floats(each[name] for each in places)
        ax.plot(at, [value if value > 0 else float("nan") for value in values], style, markersize=4, label=label)
    set_y_axis(ax, "parts", [each for each in scale_parts(numbers) if each is not None and each > 0])
    draw_legend(ax)


def caption_text(numbers: Numbers) -> str:
    """The run, how B was estimated, and the advice with its limits."""
    options, places = numbers["options"], numbers["places"]
    losses = finite_values(each["train_loss"] for each in places)
    span = (
        f"{format_number(float(losses[0]))} at the first, {format_number(float(losses[-1]))} at the last"
        if len(losses)
        else "unknown"
    )
    hidden = sum(1 for each in places if each["gradient"] is not None and each["scale"] is None)
    lost = f" At {hidden} of them G² does not stand out, so there is no B." if hidden else ""
    partial = "PARTIAL: it was cancelled; what has no point was not computed. " if numbers.get("partial") else ""
    return (
        f"{partial}B = S / G² at {len(places)} of {numbers['checkpoints']} checkpoints, up to "
        f"{shorten_middle(places[-1]['label'])}, on {format_counts({numbers['split']: numbers['examples']})} in "
        f"evaluation mode; train loss {span}. From {options['draws']:,} draws of batches of "
        f"{options['large']:,}, split into batches of {options['small']:,} (seed {numbers['seed']}); "
        f"bars are standard errors.{lost} {' '.join(numbers['advice'])}"
    )
