"""A schedule as a chart: the learning rate, with warm-up, restarts, reductions on plateau and weight averaging."""

from bisect import bisect_right
from typing import Literal

from core.plot.chart import AxisKind, Chart, Curve, Dots, Panel, Rule, ShadedSpan
from core.recipe.duration import RunLength
from core.recipe.preview import MarkKind, Preview, PreviewRequest, compute_preview

RULES: dict[MarkKind, str] = {"swa_start": "SWA starts", "restart": "restart"}
"""Markers that are drawn as a vertical line, and the label of the line."""
DOTS: dict[MarkKind, str] = {"collect": "weights collected", "reduction": "reduced after a plateau"}
"""Markers that are drawn as dots on the curve, at the learning rate of the step before them."""


def schedule_chart(request: PreviewRequest, *, y: AxisKind, x: Literal["step", "epoch"]) -> Chart:
    """The learning rate of every optimizer step, and below it the momentum if that is cycled.

    Warm-up is shaded, restarts, SWA's start and an end by stop_lr are lines, collections and reductions are dots.
    """
    found = compute_preview(request)
    unit = found.steps_per_epoch if x == "epoch" else 1
    # The learning rate of the last step applies until that step is complete.
    steps = [step / unit for step in (*found.steps, found.marks[-1].step)]
    rate = Panel(
        title="learning rate",
        curves=[Curve(request.schedule.name, steps, [*found.lr, found.lr[-1]])],
        y=y,
        spans=_warmup_spans(request, found, unit),
        rules=_marker_rules(found, unit),
        dots=[
            _marker_dots(found, kind, unit, colour) for colour, kind in enumerate(DOTS, 1) if _marker_steps(found, kind)
        ],
    )
    panels = [rate]
    if found.momentum:
        curve = Curve("momentum", steps, [*found.momentum, found.momentum[-1]])
        panels.append(Panel(title="momentum", curves=[curve], y="linear"))
    return Chart(
        summary=f"Learning rate of {request.optimizer.name} with the schedule {request.schedule.name}, "
        f"{found.marks[-1].step} steps",
        panels=panels,
        x_label="epoch" if x == "epoch" else "optimizer step",
        x_whole=x == "step",
    )


def _warmup_spans(request: PreviewRequest, found: Preview, unit: int) -> list[ShadedSpan]:
    warm = min(request.schedule.warmup.steps(RunLength(found.steps_per_epoch, found.total_steps)), found.marks[-1].step)
    return [ShadedSpan(0, warm / unit, "warm-up")] if warm else []


def _marker_rules(found: Preview, unit: int) -> list[Rule]:
    rules = [Rule(mark.step / unit, RULES[mark.kind]) for mark in found.marks if mark.kind in RULES]
    stopped = [Rule(found.marks[-1].step / unit, "below stop_lr")] if found.stop_reason == "stop_lr" else []
    return [*rules, *stopped]


def _marker_steps(found: Preview, kind: MarkKind) -> list[int]:
    return [mark.step for mark in found.marks if mark.kind == kind]


def _marker_dots(found: Preview, kind: MarkKind, unit: int, colour: int) -> Dots:
    steps = _marker_steps(found, kind)
    rates = [found.lr[max(0, bisect_right(found.steps, step - 1) - 1)] for step in steps]
    return Dots(DOTS[kind], [step / unit for step in steps], rates, colour)
