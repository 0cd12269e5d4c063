"""The loss around weights: curves, contours, the surface in space, and train and test over each other."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from worker.pictures import Arrays
from worker.pictures.captions import along, directions, looked_at, losses, missing, whose
from worker.pictures.contour_surface import CELLS, FINE, UNKNOWN, Relief, fill, heights, labels, mark, shares, space
from worker.pictures.figure import SPLITS, empty, figure, finite, legend, number, plain, upright

Numbers = Mapping[str, Any]
DASHED: Any = {"colors": "black", "linewidths": 0.8, "linestyles": "dashed"}
NAMED = 6  # weights that are named in a picture


def figures(numbers: Numbers, arrays: Arrays) -> Iterator[tuple[str, Figure]]:
    """`profile` of one dimension; of two `contours`, `surface`, one for each further metric, and `shift` of two splits.

    Of a part of a surface `contours` alone.
    """
    if numbers["dimensions"] == 1:
        yield "profile", profile(numbers, arrays)
        return
    yield "contours", surfaces(numbers, arrays, "loss")
    if numbers["partial"]:
        return  # who cancels does not wait for long
    for metric in numbers["metrics"][1:]:
        yield metric, surfaces(numbers, arrays, metric)
    yield "surface", surface(numbers, arrays)
    for other in numbers["splits"][1:]:
        yield ("shift" if len(numbers["splits"]) == 2 else f"shift-{other}"), shift(numbers, arrays, other)


def about(numbers: Numbers, *more: str) -> str:
    """What every caption says, and more."""
    own = losses(numbers["centre"])
    subjects = [each["label"] for each in numbers["subjects"]]
    of = f"Around the weights of {whose(subjects[:1])}"
    others = f", with {whose(subjects[1:])}" if subjects[1:] else ""
    far = max((each["off"] for each in numbers["subjects"]), default=0.0)
    off = (
        f"Weights stand up to {number(far)} beside it."
        if far > 1e-6 * max(each["norm"] for each in numbers["axes"])
        else ""
    )
    return " ".join([f"{of}{others}. At these: {own}.", looked_at(numbers), directions(numbers), off, *more])


def reliefs(numbers: Numbers, arrays: Arrays, metric: str = "loss") -> dict[str, Relief]:
    """The surface of each split, all with the same levels."""
    found = {split: arrays[f"{split}.{metric}"] for split in numbers["splits"]}
    levels = heights(found.values()) if metric == "loss" else shares(found.values())
    computed = int(numbers["computed"])
    return {split: Relief.of(arrays["x"], arrays["y"], values, computed, levels) for split, values in found.items()}


def surfaces(numbers: Numbers, arrays: Arrays, metric: str) -> Figure:
    """Contours of the loss or of a metric, a panel for each split."""
    splits, found = numbers["splits"], reliefs(numbers, arrays, metric)
    infinite = sum(each.infinite for each in found.values())
    said = [found[splits[0]].said()] if metric == "loss" else []
    caption = about(numbers, *said, *missing(numbers, infinite))
    made = figure(caption, width=1.4 + 4.0 * len(splits), height=4.0)
    axes = made.subplots(1, len(splits), sharey=True, squeeze=False)[0]
    for split, ax in zip(splits, axes, strict=True):
        fill(made, ax, found[split], f"{split} {metric}")
        stand(ax, numbers)
        ax.set_xlabel(along(numbers, 0))
    axes[0].set_ylabel(along(numbers, 1))
    return made


def stand(ax: Axes, numbers: Numbers) -> None:
    """Where the weights are."""
    subjects = numbers["subjects"] if numbers["computed"] else []
    for place, each in enumerate(subjects):
        pairs = zip(each["at"], numbers["axes"], strict=True)
        inside = all(axis["range"][0] <= at <= axis["range"][1] for at, axis in pairs)
        label = plain(each["label"]) if inside else f"{plain(each['label'])}: outside"
        mark(ax, each["at"], label, "*" if place == 0 else "o", "white" if place == 0 else "tab:red")
    if 1 < len(subjects) <= NAMED:
        legend(ax, 1)


def surface(numbers: Numbers, arrays: Arrays) -> Figure:
    """The losses in space, a panel for each split."""
    splits = numbers["splits"]
    found = reliefs(numbers, arrays)
    infinite = sum(each.infinite for each in found.values())
    cuts_said = [f"{split}: {each.cuts()}" for split, each in found.items() if each.cut]
    made = figure(about(numbers, *cuts_said, *missing(numbers, infinite)), width=1.0 + 4.6 * len(splits), height=4.4)
    for place, split in enumerate(splits, 1):
        if not found[split].known:
            empty(made.add_subplot(1, len(splits), place))
            continue
        ax = made.add_subplot(1, len(splits), place, projection="3d")
        space(ax, found[split], f"{split} loss", round(CELLS / math.sqrt(len(splits))))
        ax.set_xlabel(along(numbers, 0), fontsize=8)
        ax.set_ylabel(along(numbers, 1), fontsize=8)
    return made


def shift(numbers: Numbers, arrays: Arrays, other: str) -> Figure:
    """The first split in colours, the other as lines over it, and cuts through the first one's lowest point."""
    split = numbers["splits"][0]
    found = reliefs(numbers, arrays)
    own, second = found[split], found[other]
    lows = {split: own.lowest(), other: second.lowest()}
    said = [
        f"Lowest {name} loss {number(low[2])} at ({number(low[0])}, {number(low[1])})."
        for name, low in lows.items()
        if low
    ]
    caption = about(numbers, f"Colours: {split}; dashed lines: {other}.", *said, *missing(numbers, own.infinite))
    made = figure(caption, width=9.6, height=4.2)
    left, right = made.subplots(1, 2, width_ratios=(1.25, 1))
    fill(made, left, own, f"{split} loss")
    if second.known and not second.flat:
        thin, levels = second.thinned(FINE), second.warped(second.levels)
        values = np.ma.masked_invalid(second.warped(thin.clipped()))
        lines = left.contour(thin.x, thin.y, values, levels=levels[1:-1:2], **DASHED)
        named = dict(zip(lines.levels, labels(second.levels)[1:-1:2], strict=True))
        left.clabel(lines, fontsize=6.5, fmt=named)
    for name, sign in ((split, "o"), (other, "X")):
        if low := lows[name]:
            mark(left, low, f"lowest {name} loss", sign, SPLITS[name])
    legend(left)
    left.set_xlabel(along(numbers, 0))
    left.set_ylabel(along(numbers, 1))
    cuts(right, {split: own, other: second})
    return made


def cuts(ax: Axes, found: Mapping[str, Relief]) -> None:
    """Both losses along both axes, through the lowest point of the first."""
    low = next(iter(found.values())).lowest()
    if low is None:
        empty(ax)
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
    upright(ax, "loss", shown)
    ax.set_xlabel("cuts through the lowest point in colour")
    legend(ax, 2)


def profile(numbers: Numbers, arrays: Arrays) -> Figure:
    """Loss and metrics along one direction, every split."""
    metrics, splits, x = numbers["metrics"], numbers["splits"], arrays["x"]
    infinite = sum(numbers["computed"] - int(np.isfinite(arrays[f"{s}.loss"]).sum()) for s in splits)
    lows = [
        f"Lowest {split} loss {number(low['lowest'])} at {number(low['at'][0])}."
        for split, low in numbers["surface"].items()
        if low
    ]
    made = figure(about(numbers, *lows, *missing(numbers, infinite)), height=1.6 + 2.2 * len(metrics))
    axes = made.subplots(len(metrics), 1, sharex=True, squeeze=False)[:, 0]
    for metric, ax in zip(metrics, axes, strict=True):
        curves = {split: np.where(np.isfinite(found := arrays[f"{split}.{metric}"]), found, np.nan) for split in splits}
        for split, values in curves.items():
            ax.plot(x, values, color=SPLITS[split], label=split)
            if metric == "loss" and np.isfinite(values).any():
                place = int(np.nanargmin(values))
                ax.plot(x[place], values[place], "o", color=SPLITS[split], markeredgecolor="black")
        shown = finite(each for values in curves.values() for each in values.tolist())
        if metric == "loss":
            upright(ax, metric, shown.tolist())
        else:
            ax.set_ylabel(metric)
        if not len(shown):
            empty(ax)
        stop(ax, numbers["subjects"])
        if numbers["computed"] < len(x):
            for start, end in gaps(curves[splits[0]]):
                ax.axvspan(float(x[start]), float(x[end]), **UNKNOWN)
        ax.set_xlim(float(x[0]), float(x[-1]))
    legend(axes[0])
    axes[-1].set_xlabel(along(numbers, 0))
    return made


def gaps(values: NDArray[np.float64]) -> Iterator[tuple[int, int]]:
    """Stretches of a curve that are not known, each from the last place before it to the first behind it."""
    known = np.concatenate(([True], np.isfinite(values), [True]))
    edges = np.flatnonzero(known[1:] != known[:-1]).tolist()
    for start, end in zip(edges[::2], edges[1::2], strict=True):
        yield max(0, start - 1), min(end, len(values) - 1)


def stop(ax: Axes, subjects: Sequence[Mapping[str, Any]]) -> None:
    """A dotted line where each of the weights is."""
    for each in subjects:
        ax.axvline(each["at"][0], color="0.4", linestyle=":", linewidth=0.9)
