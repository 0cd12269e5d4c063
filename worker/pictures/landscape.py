"""The loss around weights: curves, contours, the surface in three dimensions, and the shift between splits."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from worker.pictures import Arrays
from worker.pictures.captions import (
    axis_label,
    describe_directions,
    describe_examples,
    describe_losses,
    describe_missing,
    describe_weights,
)
from worker.pictures.contour_surface import (
    CELLS,
    FINE,
    UNKNOWN,
    ContourSurface,
    draw_bands,
    draw_marker,
    draw_surface_3d,
    level_labels,
    loss_levels,
    share_levels,
)
from worker.pictures.figure import (
    SPLITS,
    draw_empty,
    draw_legend,
    finite_values,
    format_number,
    new_figure,
    plain_label,
    set_y_axis,
)

Numbers = Mapping[str, Any]
DASHED: Any = {"colors": "black", "linewidths": 0.8, "linestyles": "dashed"}
NAMED = 6  # the most weights that a picture's legend names


def draw_figures(numbers: Numbers, arrays: Arrays) -> Iterator[tuple[str, Figure]]:
    """`profile` of one dimension; of two `contours`, `surface`, one for each further metric, and `shift` of splits.

    A partial result has `contours` alone.
    """
    if numbers["dimensions"] == 1:
        yield "profile", draw_profile(numbers, arrays)
        return
    yield "contours", draw_contours(numbers, arrays, "loss")
    if numbers["partial"]:
        return  # a cancelled analysis has to end soon
    for metric in numbers["metrics"][1:]:
        yield metric, draw_contours(numbers, arrays, metric)
    yield "surface", draw_surface(numbers, arrays)
    for other in numbers["splits"][1:]:
        yield ("shift" if len(numbers["splits"]) == 2 else f"shift-{other}"), draw_shift(numbers, arrays, other)


def caption_text(numbers: Numbers, *more: str) -> str:
    """The sentences of every caption, and `more`."""
    own = describe_losses(numbers["centre"])
    subjects = [each["label"] for each in numbers["subjects"]]
    of = f"Around the weights of {describe_weights(subjects[:1])}"
    others = f", with {describe_weights(subjects[1:])}" if subjects[1:] else ""
    far = max((each["off"] for each in numbers["subjects"]), default=0.0)
    off = (
        f"Weights are up to {format_number(far)} away from it."
        if far > 1e-6 * max(each["norm"] for each in numbers["axes"])
        else ""
    )
    return " ".join(
        [f"{of}{others}. At these: {own}.", describe_examples(numbers), describe_directions(numbers), off, *more]
    )


def contour_surfaces(numbers: Numbers, arrays: Arrays, metric: str = "loss") -> dict[str, ContourSurface]:
    """The surface of each split, all with the same levels."""
    found = {split: arrays[f"{split}.{metric}"] for split in numbers["splits"]}
    levels = loss_levels(found.values()) if metric == "loss" else share_levels(found.values())
    computed = int(numbers["computed"])
    return {
        split: ContourSurface.from_values(arrays["x"], arrays["y"], values, computed, levels)
        for split, values in found.items()
    }


def draw_contours(numbers: Numbers, arrays: Arrays, metric: str) -> Figure:
    """Contours of the loss or of a metric, a panel for each split."""
    splits, found = numbers["splits"], contour_surfaces(numbers, arrays, metric)
    infinite = sum(each.infinite for each in found.values())
    said = [found[splits[0]].describe_levels()] if metric == "loss" else []
    caption = caption_text(numbers, *said, *describe_missing(numbers, infinite))
    made = new_figure(caption, width=1.4 + 4.0 * len(splits), height=4.0)
    axes = made.subplots(1, len(splits), sharey=True, squeeze=False)[0]
    for split, ax in zip(splits, axes, strict=True):
        draw_bands(made, ax, found[split], f"{split} {metric}")
        mark_weights(ax, numbers)
        ax.set_xlabel(axis_label(numbers, 0))
    axes[0].set_ylabel(axis_label(numbers, 1))
    return made


def mark_weights(ax: Axes, numbers: Numbers) -> None:
    """Mark the positions of the weights."""
    subjects = numbers["subjects"] if numbers["computed"] else []
    for place, each in enumerate(subjects):
        pairs = zip(each["at"], numbers["axes"], strict=True)
        inside = all(axis["range"][0] <= at <= axis["range"][1] for at, axis in pairs)
        label = plain_label(each["label"]) if inside else f"{plain_label(each['label'])}: outside"
        draw_marker(ax, each["at"], label, "*" if place == 0 else "o", "white" if place == 0 else "tab:red")
    if 1 < len(subjects) <= NAMED:
        draw_legend(ax, 1)


def draw_surface(numbers: Numbers, arrays: Arrays) -> Figure:
    """The losses in three dimensions, a panel for each split."""
    splits = numbers["splits"]
    found = contour_surfaces(numbers, arrays)
    infinite = sum(each.infinite for each in found.values())
    cuts_said = [f"{split}: {each.describe_cuts()}" for split, each in found.items() if each.cut]
    made = new_figure(
        caption_text(numbers, *cuts_said, *describe_missing(numbers, infinite)),
        width=1.0 + 4.6 * len(splits),
        height=4.4,
    )
    for place, split in enumerate(splits, 1):
        if not found[split].has_area:
            draw_empty(made.add_subplot(1, len(splits), place))
            continue
        ax = made.add_subplot(1, len(splits), place, projection="3d")
        draw_surface_3d(ax, found[split], f"{split} loss", round(CELLS / math.sqrt(len(splits))))
        ax.set_xlabel(axis_label(numbers, 0), fontsize=8)
        ax.set_ylabel(axis_label(numbers, 1), fontsize=8)
    return made


def draw_shift(numbers: Numbers, arrays: Arrays, other: str) -> Figure:
    """The first split in colours, the other as lines over it, and cuts through the first one's lowest point."""
    split = numbers["splits"][0]
    found = contour_surfaces(numbers, arrays)
    own, second = found[split], found[other]
    lows = {split: own.lowest_point(), other: second.lowest_point()}
    said = [
        f"Lowest {name} loss {format_number(low[2])} at ({format_number(low[0])}, {format_number(low[1])})."
        for name, low in lows.items()
        if low
    ]
    caption = caption_text(
        numbers, f"Colours: {split}; dashed lines: {other}.", *said, *describe_missing(numbers, own.infinite)
    )
    made = new_figure(caption, width=9.6, height=4.2)
    left, right = made.subplots(1, 2, width_ratios=(1.25, 1))
    draw_bands(made, left, own, f"{split} loss")
    if second.has_area and not second.is_flat:
        thin, levels = second.downsample_axes(FINE), second.warp_values(second.levels)
        values = np.ma.masked_invalid(second.warp_values(thin.clip_values()))
        lines = left.contour(thin.x, thin.y, values, levels=levels[1:-1:2], **DASHED)
        named = dict(zip(lines.levels, level_labels(second.levels)[1:-1:2], strict=True))
        left.clabel(lines, fontsize=6.5, fmt=named)
    for name, sign in ((split, "o"), (other, "X")):
        if low := lows[name]:
            draw_marker(left, low, f"lowest {name} loss", sign, SPLITS[name])
    draw_legend(left)
    left.set_xlabel(axis_label(numbers, 0))
    left.set_ylabel(axis_label(numbers, 1))
    draw_cuts(right, {split: own, other: second})
    return made


def draw_cuts(ax: Axes, found: Mapping[str, ContourSurface]) -> None:
    """Both losses along both axes, through the lowest point of the first."""
    low = next(iter(found.values())).lowest_point()
    if low is None:
        draw_empty(ax)
        return
    shown = []
    for name, each in found.items():
        row, column = int(np.abs(each.y - low[1]).argmin()), int(np.abs(each.x - low[0]).argmin())
        for places, values, style, axis in (
            (each.x, each.values[row], "-", "direction 1"),
            (each.y, each.values[:, column], ":", "direction 2"),
        ):
            ax.plot(places, values, style, color=SPLITS[name], label=f"{name}, along {axis}")
            shown.extend(values.tolist())
    set_y_axis(ax, "loss", shown)
    ax.set_xlabel("cuts through the lowest point in colour")
    draw_legend(ax, 2)


def draw_profile(numbers: Numbers, arrays: Arrays) -> Figure:
    """Loss and metrics along one direction, every split."""
    metrics, splits, x = numbers["metrics"], numbers["splits"], arrays["x"]
    infinite = sum(numbers["computed"] - int(np.isfinite(arrays[f"{s}.loss"]).sum()) for s in splits)
    lows = [
        f"Lowest {split} loss {format_number(low['lowest'])} at {format_number(low['at'][0])}."
        for split, low in numbers["surface"].items()
        if low
    ]
    made = new_figure(
        caption_text(numbers, *lows, *describe_missing(numbers, infinite)), height=1.6 + 2.2 * len(metrics)
    )
    axes = made.subplots(len(metrics), 1, sharex=True, squeeze=False)[:, 0]
    for metric, ax in zip(metrics, axes, strict=True):
        curves = {split: np.where(np.isfinite(found := arrays[f"{split}.{metric}"]), found, np.nan) for split in splits}
        for split, values in curves.items():
            ax.plot(x, values, color=SPLITS[split], label=split)
            if metric == "loss" and np.isfinite(values).any():
                place = int(np.nanargmin(values))
                ax.plot(x[place], values[place], "o", color=SPLITS[split], markeredgecolor="black")
        shown = finite_values(each for values in curves.values() for each in values.tolist())
        if metric == "loss":
            set_y_axis(ax, metric, shown.tolist())
        else:
            ax.set_ylabel(metric)
        if not len(shown):
            draw_empty(ax)
        mark_weights_on_axis(ax, numbers["subjects"])
        if numbers["computed"] < len(x):
            for start, end in find_gaps(curves[splits[0]]):
                ax.axvspan(float(x[start]), float(x[end]), **UNKNOWN)
        ax.set_xlim(float(x[0]), float(x[-1]))
    draw_legend(axes[0])
    axes[-1].set_xlabel(axis_label(numbers, 0))
    return made


def find_gaps(values: NDArray[np.float64]) -> Iterator[tuple[int, int]]:
    """The unknown parts of a curve, each from the last known point before it to the first one after it."""
    known = np.concatenate(([True], np.isfinite(values), [True]))
    edges = np.flatnonzero(known[1:] != known[:-1]).tolist()
    for start, end in zip(edges[::2], edges[1::2], strict=True):
        yield max(0, start - 1), min(end, len(values) - 1)


def mark_weights_on_axis(ax: Axes, subjects: Sequence[Mapping[str, Any]]) -> None:
    """A dotted line at the position of each of the weights."""
    for each in subjects:
        ax.axvline(each["at"][0], color="0.4", linestyle=":", linewidth=0.9)
