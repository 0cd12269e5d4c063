"""Bars of the members, of the average of their weights, and of the average of their predictions."""

from collections.abc import Iterator, Mapping
from typing import Any

from matplotlib.figure import Figure

from worker.pictures import Arrays
from worker.pictures.captions import format_counts
from worker.pictures.figure import as_floats, distinct_labels, new_figure

COLOURS = {"members": "0.6", "average": "tab:blue", "ensemble": "tab:orange"}


def draw_figures(numbers: Mapping[str, Any], arrays: Arrays) -> Iterator[tuple[str, Figure]]:
    """`bars`: the losses, with a panel for each split."""
    rows = [
        (label, each, "members")
        for label, each in zip(
            distinct_labels([one["label"] for one in numbers["members"]]), numbers["members"], strict=True
        )
    ]
    rows += [("weights averaged", numbers["average"], "average")]
    rows += [("predictions averaged", numbers["ensemble"], "ensemble")]
    splits = list(numbers["average"])
    caption = (
        f"Loss on {format_counts(numbers['examples'])}: of each member, of the network with the mean of their weights "
        "(batch norm estimated again), and of the mean of their predictions. The last is never above the mean "
        "of the members (Jensen's inequality)."
    )
    partial = " PARTIAL: it was cancelled; what has no bar was not computed." if numbers["partial"] else ""
    made = new_figure(caption + partial, height=0.9 + 0.28 * len(rows))
    axes = made.subplots(1, len(splits), sharey=True, squeeze=False)[0]
    for split, ax in zip(splits, axes, strict=True):
        losses = as_floats(row[split]["loss"] for _, row, _ in rows)
        ax.barh(range(len(rows)), losses, color=[COLOURS[kind] for *_, kind in rows])
        ax.set_yticks(range(len(rows)), [label for label, *_ in rows])
        ax.set_ylim(len(rows) - 0.5, -0.5)
        ax.set_xlabel(f"{split} loss")
    yield "bars", made
