"""Helpers for the pictures of the gallery: curves of jobs, labelled as in the text."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from core.plot.chart import AxisKind, Chart, Curve, Dots, Level, Panel
from core.plot.style import PALETTE
from gallery.claim import Runs, Trained

OF_EPOCHS = ("train.loss",)
"""Series whose point is the mean over the epoch that ends with its step."""


def by_epoch(run: Trained, series: str, label: str, colour: int, *, since: float = 0) -> Curve:
    """A series over epochs, from epoch `since` on."""
    steps, values = run.curve(series)
    xs = [(step + (series in OF_EPOCHS)) / run.steps_per_epoch for step in steps]
    return after(Curve(label, xs, values, colour), since)


def by_step(run: Trained, series: str, label: str, colour: int, *, until: float = math.inf) -> Curve:
    """A series over optimizer steps, as far as step `until`."""
    steps, values = run.curve(series)
    count = sum(step <= until for step in steps)
    return Curve(label, steps[:count], values[:count], colour)


def after(curve: Curve, since: float) -> Curve:
    first = sum(x < since for x in curve.xs)
    return replace(curve, xs=curve.xs[first:], ys=curve.ys[first:])


def variants(runs: Runs, series: str, labels: Mapping[str, str], **cut: float) -> list[Curve]:
    """The first seed's curve of each variant, over epochs; variant -> its name in the legend."""
    return [
        by_epoch(runs[variant][0], series, label, place, **cut) for place, (variant, label) in enumerate(labels.items())
    ]


def dashed(curve: Curve) -> Curve:
    """The same colour, dashed."""
    return replace(curve, colour=curve.colour + PALETTE)


def of_seeds(
    runs: Sequence[Trained], named: Mapping[str, Sequence[float]], title: str, y: AxisKind = "linear"
) -> Chart:
    """A dot for each seed and each quantity: name -> its value for every seed."""
    seeds = [float(run.seed) for run in runs]
    dots = [Dots(label, seeds, values, place) for place, (label, values) in enumerate(named.items())]
    return Chart(f"{title}: {', '.join(named)}", [Panel(title, (), y, dots=dots)], "seed", x_whole=True)


def panel(  # noqa: PLR0913 - what a panel may have
    title: str,
    curves: Sequence[Curve],
    y: AxisKind = "log",
    *,
    levels: Sequence[Level] = (),
    dots: Sequence[Dots] = (),
    most: float = math.inf,
) -> Panel:
    return Panel(title, curves, y, levels=levels, dots=dots, most=most)


def chart(panels: Sequence[Panel], x: str = "epoch") -> Chart:
    """Panels over one x axis, with a description in words."""
    told = "; ".join(f"{each.title}: {', '.join(curve.label for curve in each.curves)}" for each in panels)
    return Chart(told, panels, x)
