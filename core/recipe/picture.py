"""A schedule as a picture: the learning rate, and what warm-up and averaging have to do with it."""

from bisect import bisect_right
from typing import Literal

from core.plot.chart import AxisKind, Chart, Curve, Dots, Panel, Rule, Span
from core.recipe.preview import PreviewRequest, preview

RULES = {"swa_start": "SWA starts", "restart": "restart"}
"""Marks that get a line of their own, and its name."""


def picture(request: PreviewRequest, *, y: AxisKind, x: Literal["step", "epoch"]) -> Chart:
    """The learning rate of every optimizer step; warm-up is shaded, SWA's start a line, collections are dots."""
    found = preview(request)
    unit = found.steps_per_epoch if x == "epoch" else 1
    warm = min(request.schedule.warmup.steps(request.run_length()), found.total_steps)
    collected = [mark.step for mark in found.marks if mark.kind == "collect"]
    # A model is collected after its step; the rate that made it is the one before.
    rates = [found.lr[max(0, bisect_right(found.steps, step - 1) - 1)] for step in collected]
    # The rate of the last step holds until that step is complete.
    steps, lr = [*found.steps, found.total_steps], [*found.lr, found.lr[-1]]
    panel = Panel(
        title="learning rate",
        curves=[Curve(request.schedule.name, [step / unit for step in steps], lr)],
        y=y,
        spans=[Span(0, warm / unit, "warm-up")] if warm else [],
        rules=[Rule(mark.step / unit, RULES[mark.kind]) for mark in found.marks if mark.kind in RULES],
        dots=[Dots("weights collected", [step / unit for step in collected], rates)] if collected else [],
    )
    return Chart(
        summary=f"Learning rate of {request.optimizer.name} with the schedule {request.schedule.name}, "
        f"{found.total_steps} steps",
        panels=[panel],
        x_label="epoch" if x == "epoch" else "optimizer step",
        x_whole=x == "step",
    )
