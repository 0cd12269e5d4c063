"""Members, the average of their weights, and the average of their predictions, as bars."""

from collections.abc import Iterator, Mapping
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from worker.pictures import Arrays
from worker.pictures.page import STYLE, figure

COLOURS = {"members": "0.6", "average": "tab:blue", "ensemble": "tab:orange"}


def figures(numbers: Mapping[str, Any], arrays: Arrays) -> Iterator[tuple[str, Figure]]:
    """`bars`: a panel for each part of the data, the loss of each."""
    rows = [(each["label"], each, "members") for each in numbers["members"]]
    rows += [("weights averaged", numbers["average"], "average")]
    rows += [("predictions averaged", numbers["ensemble"], "ensemble")]
    splits = list(numbers["average"])
    made = figure(
        "Loss of each member, of the network with the mean of their weights (batch norm estimated again), and of the "
        "mean of their predictions. The last is never above the mean of the members (Jensen's inequality).",
        height=1.6 + 0.28 * len(rows),
    )
    with mpl.rc_context(STYLE):
        axes = made.subplots(1, len(splits), sharey=True, squeeze=False)[0]
        for split, ax in zip(splits, axes, strict=True):
            ax.barh(range(len(rows)), [row[split]["loss"] for _, row, _ in rows], color=[COLOURS[k] for *_, k in rows])
            ax.set_yticks(range(len(rows)), [label for label, *_ in rows])
            ax.invert_yaxis()
            ax.set_xlabel(f"{split} loss")
    yield "bars", made
