"""The loss on straight lines between weights, with the chord between the losses of the ends and the barrier."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from worker.pictures import Arrays
from worker.pictures.captions import describe_examples, describe_losses
from worker.pictures.figure import (
    SPLITS,
    as_floats,
    draw_empty,
    draw_legend,
    finite_values,
    format_number,
    new_figure,
    plain_label,
    set_y_axis,
    shorten_middle,
)

Numbers = Mapping[str, Any]


def draw_figures(numbers: Numbers, arrays: Arrays) -> Iterator[tuple[str, Figure]]:
    """`line`, or `line-1`, `line-2`, … if there is more than one pair."""
    pairs = numbers["pairs"]
    for row, pair in enumerate(pairs):
        yield ("line" if len(pairs) == 1 else f"line-{row + 1}"), draw_pair(numbers, arrays, row, pair)


def draw_pair(numbers: Numbers, arrays: Arrays, row: int, pair: Numbers) -> Figure:
    """Loss above, other metrics below, over the share of the second weights."""
    metrics, alpha = numbers["metrics"], arrays["alpha"]
    made = new_figure(caption_text(numbers, row, pair), height=1.8 + 2.2 * len(metrics))
    axes = made.subplots(len(metrics), 1, sharex=True, squeeze=False, height_ratios=[2] + [1] * (len(metrics) - 1))[
        :, 0
    ]
    for metric, ax in zip(metrics, axes, strict=True):
        curves = {split: as_floats(arrays[f"{split}.{metric}"][row].tolist()) for split in numbers["splits"]}
        for split, values in curves.items():
            ax.plot(alpha, values, color=SPLITS[split], label=split)
        shown = finite_values(each for values in curves.values() for each in values.tolist())
        if not len(shown):
            draw_empty(ax)
        if metric == "loss":
            set_y_axis(ax, metric, shown.tolist())
            for split, values in curves.items():
                draw_chord(ax, alpha, values, pair["barrier"].get(split), SPLITS[split])
        else:
            ax.set_ylabel(metric)
        for end in (0.0, 1.0):
            ax.axvline(end, color="0.4", linestyle=":", linewidth=0.9)
        ax.set_xlim(float(alpha[0]), float(alpha[-1]))
    draw_legend(axes[0])
    axes[-1].set_xlabel(
        f"share t of the second: 0 is {plain_label(pair['from'], 36)}, 1 is {plain_label(pair['to'], 36)}"
    )
    return made


def draw_chord(
    ax: Axes, alpha: NDArray[Any], values: NDArray[Any], barrier: Mapping[str, float] | None, colour: str
) -> None:
    """The straight line between the losses at the ends, and the barrier at its highest point."""
    inside = alpha[(alpha >= 0) & (alpha <= 1)]
    ends = values[np.argmin(np.abs(alpha))], values[np.argmin(np.abs(alpha - 1))]
    straight = ends[0] + (ends[1] - ends[0]) * inside
    ax.plot(inside, straight, "--", color=colour, linewidth=0.9)
    if barrier and barrier["height"] > 0:
        at = barrier["alpha"]
        foot = ends[0] + (ends[1] - ends[0]) * at
        ax.plot([at, at], [foot, barrier["loss"]], color=colour, linewidth=0.9)
        ax.plot([at, at], [foot, barrier["loss"]], "_", color=colour, markersize=7)


def caption_text(numbers: Numbers, row: int, pair: Numbers) -> str:
    """The weights, their distance, the barriers, and the limits of these."""
    first, second = numbers["subjects"][row : row + 2]
    ends = [
        f"{shorten_middle(each['label'])} ({describe_losses({split: each[split] for split in numbers['splits']})})"
        for each in (first, second)
    ]
    barriers = "; ".join(
        f"{split} {format_number(found['height'])} at t = {format_number(found['alpha'])}"
        if found
        else f"{split} not known"
        for split, found in pair["barrier"].items()
    )
    seeds = "one seed" if pair["same_seed"] else "different seeds"
    parts = [
        f"(1 - t) v + t w, from {ends[0]} to {ends[1]}, {seeds}.",
        f"Distance {format_number(pair['distance'])}, cosine {format_number(pair['cosine'])}.",
        describe_examples(numbers),
        f"Besides the {numbers['steps']} requested points: t = {', '.join(map(format_number, numbers['added']))}."
        if numbers.get("added")
        else "",
        "Dashed: the straight line between the losses at the ends.",
        f"Barrier, the most by which the loss is above it: {barriers}.",
        "Hidden units in another order make a barrier too: it does not say that the solutions differ.",
        "PARTIAL: it was cancelled; curves end where it stopped." if numbers.get("partial") else "",
    ]
    return " ".join(part for part in parts if part)
