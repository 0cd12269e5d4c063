"""The learning-rate range test: the loss while the learning rate rises, for each seed, with the suggested rates."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from worker.pictures import Arrays
from worker.pictures.figure import (
    as_floats,
    draw_empty,
    draw_legend,
    finite_values,
    format_number,
    new_figure,
    shorten_middle,
)

Numbers = Mapping[str, Any]
ROOM = 1.6  # times the fall of the loss, above which the curve is clipped
SIGNS = {
    "steepest": ("v", "steepest fall"),
    "tenth": ("s", "a tenth of the lowest's rate"),
    "base": ("<", "base"),
    "top": (">", "top"),
}


def draw_figures(numbers: Numbers, arrays: Arrays) -> Iterator[tuple[str, Figure]]:
    """`curves`: the loss over the learning rate."""
    runs, rates = numbers["runs"], arrays["lr"]
    made = new_figure(caption_text(numbers), height=4.6)
    ax = made.subplots()
    shown: list[float] = []
    starts: list[float] = []
    for place, run in enumerate(runs):
        colour, smooth = f"C{place % 10}", as_floats(run["smoothed"])
        raw = as_floats(run["losses"])
        ax.plot(rates[: len(raw)], raw, color=colour, linewidth=0.6, alpha=0.3)
        ax.plot(rates[: len(smooth)], smooth, color=colour, linewidth=1.6, label=f"seed {run['seed']}")
        shown += smooth.tolist()
        starts += finite_values(smooth[:1].tolist()).tolist()
        for name, (sign, _) in SIGNS.items():
            if run["candidates"]:
                at = run["candidates"][name]
                height = float(np.interp(np.log(at), np.log(rates[: len(smooth)]), smooth))
                ax.plot(at, height, sign, color=colour, markeredgecolor="black", markersize=6)
    ax.set_xscale("log")
    ax.set_xlim(float(rates[0]), float(rates[-1]))
    if len(found := finite_values(shown)):
        low, first = float(found.min()), max(float(each) for each in starts)
        spare = first - low or 0.1
        ax.set_ylim(low - 0.15 * spare, min(float(found.max()), low + ROOM * spare) + 0.05 * spare)
    else:
        draw_empty(ax)
    if numbers["lr_of_job"]:
        ax.axvline(numbers["lr_of_job"], color="0.4", linestyle=":", linewidth=0.9, label="rate of the job")
    for sign, label in SIGNS.values():
        ax.plot([], [], sign, color="0.7", markeredgecolor="black", linestyle="none", label=label)
    draw_legend(ax)
    ax.set_xlabel("learning rate (log scale)")
    ax.set_ylabel("train loss of the batch")
    yield "curves", made


def caption_text(numbers: Numbers) -> str:
    """The recipe, the settings of the test, and the lowest of each suggested rate."""
    options, read = numbers["options"], numbers["candidates"]
    lowest = ", ".join(
        f"{label} {format_number(read[name]['lowest'])} "
        f"(over the seeds by a factor of {format_number(read[name]['ratio'])})"
        for name, (_, label) in SIGNS.items()
        if read[name]["lowest"] is not None
    )
    partial = "PARTIAL: it was cancelled. " if numbers.get("partial") else ""
    return (
        f"{partial}The recipe of {shorten_middle(numbers['label'])} from its start: {numbers['optimizer']}, batches of "
        f"{numbers['batch_size']:,}, the rate from {options['low']:g} to {options['high']:g} in {options['steps']:,} "
        f"steps, no schedule. Pale: the loss of each batch, in train mode; strong: smoothed, the newest weighing "
        f"{options['smoothing']:g}; what rises far above the start is cut. Lowest of all seeds: "
        f"{lowest or 'nothing could be read'}. {' '.join(numbers['caveats'])}"
    )
