"""The path of a run over the loss surface around it, and the loss at each checkpoint."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from worker.pictures import Arrays
from worker.pictures.captions import (
    axis_label,
    describe_directions,
    describe_examples,
    describe_losses,
    describe_missing,
)
from worker.pictures.contour_surface import ContourSurface, draw_bands, draw_marker, loss_levels
from worker.pictures.figure import (
    SPLITS,
    as_floats,
    draw_legend,
    format_number,
    new_figure,
    plain_label,
    set_y_axis,
    shorten_middle,
)

Numbers = Mapping[str, Any]
NAMED = 9  # the most checkpoints that are labelled with their step


def draw_figures(numbers: Numbers, arrays: Arrays) -> Iterator[tuple[str, Figure]]:
    """`path`, for each further split `path-SPLIT`, and `steps`."""
    for place, split in enumerate(numbers["splits"]):
        yield ("path" if place == 0 else f"path-{split}"), draw_path(numbers, arrays, split)
    yield "steps", draw_steps(numbers)


def caption_text(numbers: Numbers, *more: str) -> str:
    """The sentences of every caption, and `more`."""
    path, end = numbers["path"], numbers["path"][-1]
    own = describe_losses({split: end[split] for split in numbers["splits"]})
    of = f"{len(path)} checkpoints, the last of them {shorten_middle(end['label'])}: {own}."
    return " ".join([of, describe_examples(numbers), *(each for each in more if each)])


def describe_shares(numbers: Numbers) -> str:
    """How much of the path the plane shows, and what it does not show."""
    shares = []
    if numbers["explained"]:
        shares.append(
            f"The axes show {100 * sum(numbers['explained']):.1f} % of the squared distances from the last one"
        )
        if numbers.get("centred"):
            shares.append(f"and {100 * sum(numbers['centred']):.1f} % of those from the mean of all")
    furthest = max(numbers["path"], key=lambda each: each["off"])
    where = " ".join(shares) + "." if shares else "Random axes show next to nothing of a path."
    off = f"Points are projected: that of step {furthest['step']:,} is {format_number(furthest['off'])} from the plane"
    return f"{where} {off}, so its loss is not that of the surface there; see the other picture."


def draw_path(numbers: Numbers, arrays: Arrays, split: str) -> Figure:
    """The path over the surface, or without one; with one axis the vertical axis is the loss."""
    surface, places = arrays.get(f"{split}.loss"), [each["at"] for each in numbers["path"]]
    described = [describe_directions(numbers), describe_shares(numbers)]
    if len(places[0]) == 1:
        made = new_figure(caption_text(numbers, *described))
        draw_profile(made.subplots(), numbers, arrays, split)
        return made
    if surface is None:
        made = new_figure(caption_text(numbers, *described), height=4.8)
        ax = made.subplots()
    else:
        levels = loss_levels(arrays[f"{each}.loss"] for each in numbers["splits"])
        relief = ContourSurface.from_values(arrays["x"], arrays["y"], surface, int(numbers["computed"]), levels)
        made = new_figure(
            caption_text(numbers, *described, relief.describe_levels(), *describe_missing(numbers, relief.infinite)),
            height=4.8,
        )
        ax = made.subplots()
        draw_bands(made, ax, relief, f"{split} loss")
    trace_path(ax, numbers)
    ax.set_xlabel(axis_label(numbers, 0))
    ax.set_ylabel(axis_label(numbers, 1))
    return made


def trace_path(ax: Axes, numbers: Numbers) -> None:
    """The path with the steps of some of its points, and the averaged weights."""
    path = numbers["path"]
    x, y = np.array([each["at"] for each in path]).T
    ax.plot(x, y, "-", color="black", linewidth=2.2)
    ax.plot(x, y, "-o", color="white", linewidth=1.0, markersize=3.5, markeredgecolor="black", markeredgewidth=0.6)
    draw_marker(ax, (x[0], y[0]), "first", "s", "tab:red")
    draw_marker(ax, (x[-1], y[-1]), "last", "*")
    for each in numbers["averages"]:
        draw_marker(ax, each["at"], plain_label(str(each["kind"])), "D", "tab:orange")
    ax.margins(0.12)
    for place in label_indices(np.stack([x, y], 1), ax):
        ax.annotate(
            f"{path[place]['step']:,}",
            (x[place], y[place]),
            xytext=(5, 5),
            textcoords="offset points",
            fontsize=7,
            bbox={"boxstyle": "round,pad=0.15", "facecolor": "white", "alpha": 0.75, "linewidth": 0},
        )
    draw_legend(ax, 4)


def label_indices(points: np.ndarray[Any, Any], ax: Axes) -> list[int]:
    """The points to label: first, last, and those that are far enough from all labelled before."""
    width = np.ptp(ax.get_xlim()), np.ptp(ax.get_ylim())
    scaled = points / np.where(np.array(width) > 0, width, 1.0)
    chosen = [len(points) - 1]
    for place in range(len(points) - 1):
        far = all(
            abs(scaled[place] - scaled[other])[0] > 0.12 or abs(scaled[place] - scaled[other])[1] > 0.07
            for other in chosen
        )
        if far and len(chosen) < NAMED:
            chosen.append(place)
    return chosen


def draw_profile(ax: Axes, numbers: Numbers, arrays: Arrays, split: str) -> None:
    """The loss along one axis, and the checkpoints at their own loss."""
    shown: list[float] = []
    if f"{split}.loss" in arrays:
        values = as_floats(arrays[f"{split}.loss"].tolist())
        ax.plot(arrays["x"], values, color=SPLITS[split], label=f"{split} loss")
        shown += values.tolist()
    own = as_floats(each[split]["loss"] for each in numbers["path"])
    ax.plot([each["at"][0] for each in numbers["path"]], own, "o-", color="black", markersize=4, label="checkpoints")
    set_y_axis(ax, "loss", [*shown, *own.tolist()])
    ax.set_xlabel(axis_label(numbers, 0))
    draw_legend(ax)


def draw_steps(numbers: Numbers) -> Figure:
    """Each checkpoint's own loss, and its distance from the plane, by optimizer step."""
    path, averages = numbers["path"], numbers["averages"]
    at = [each["step"] for each in path]
    caption = "The loss of each checkpoint with its own weights and statistics, and their distance from the plane."
    made = new_figure(caption_text(numbers, caption), height=4.4)
    upper, lower = made.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    for split in numbers["splits"]:
        upper.plot(
            at, as_floats(each[split]["loss"] for each in path), "o-", color=SPLITS[split], markersize=4, label=split
        )
        for each in averages:
            upper.plot(each["step"], each[split]["loss"], "D", color=SPLITS[split], label=f"{split}, {each['kind']}")
    set_y_axis(upper, "loss", [each[split]["loss"] for each in (*path, *averages) for split in numbers["splits"]])
    draw_legend(upper, 4)
    lower.plot(at, as_floats(each["off"] for each in path), "o-", color="0.3", markersize=4)
    lower.set_ylabel("distance from plane")
    lower.set_ylim(bottom=0)
    lower.set_xlabel("optimizer step")
    return made
