"""The learning rate of every step before anything is trained, from the very functions that train."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import Field

from core.recipe.averaging import CollectionSteps, Ensemble
from core.recipe.component import DEFERRED, Positive, Spec
from core.recipe.duration import RunLength
from core.recipe.learning_rate import LearningRatePlan, learning_rate_plan
from core.recipe.optimizers import Optimizer
from core.recipe.schedules import Schedule
from core.recipe.schedules.base import LearningRate, PlateauState
from core.recipe.schedules.constant import Constant
from core.recipe.shape import resolve_run_length
from core.recipe.spec import BatchSize, Count, Evaluate, SwaSwitch

MarkKind = Literal["restart", "reduction", "swa_start", "collect", "stop"]


class PreviewRequest(Spec):
    """A schedule in a run of `epochs` over `examples` in batches of `batch_size`, or of `steps`.

    `metrics` are what a schedule that listens to evaluations hears: one value for each, every `evaluate.every`.
    """

    model_config = DEFERRED
    schedule: Schedule = Constant()
    optimizer: Optimizer
    stop_lr: Positive | None = None
    swa: SwaSwitch = None
    ensemble: Ensemble | None = None
    evaluate: Evaluate = Evaluate()
    metrics: Annotated[tuple[float, ...], Field(max_length=100_000)] = ()
    epochs: Count | None = None
    steps: Count | None = None
    batch_size: BatchSize = 32
    accumulate: Count = 1
    drop_last: bool = False
    examples: Count = 1257
    max_points: Annotated[int, Field(ge=2, le=100_000)] = 2000

    def run_length(self) -> RunLength:
        batch = self.examples if self.batch_size == "full" else min(self.batch_size, self.examples)
        return resolve_run_length(self.examples, batch, self)


class CurveMarker(Spec):
    """Something that happens when `step` optimizer steps are complete."""

    step: int
    kind: MarkKind


class Preview(Spec):
    """`lr[i]` is the rate of optimizer step `steps[i]`; thinned evenly past `max_points`, first and last step kept.

    `momentum` is there if the schedule cycles it. `steps` end where the run does, which may be before `total_steps`.
    """

    steps: list[int]
    lr: list[float]
    momentum: list[float] | None
    marks: list[CurveMarker]
    total_steps: int
    steps_per_epoch: int
    stop_reason: Literal["completed", "stop_lr"]


@dataclass(slots=True)
class _SimulatedRates:
    """A run without training: the rates that hold from some step on, until the run ends."""

    starts: list[int] = field(default_factory=lambda: [0])
    rates: list[LearningRate] = field(default_factory=list)
    end: int = 0

    def rate_at(self, t: int) -> float:
        return self.rates[bisect_right(self.starts, t) - 1](t)


def simulate_rates(course: LearningRatePlan, every: int, metrics: Sequence[float]) -> _SimulatedRates:
    """What the rate of a run does whose evaluations, one each `every` steps, come out like `metrics`."""
    heard, watched = PlateauState(), course.schedule.monitored_series() or ""
    found = _SimulatedRates(rates=[course.rate_function()], end=course.run.total_steps)
    stop = course.stop_step(found.rates[0])
    for done, value in zip(range(every, course.run.total_steps, every), metrics, strict=False):
        before, heard = heard, course.after_evaluation(heard, {watched: value}, done)
        if heard.reductions > before.reductions and stop is None:
            found.starts.append(done)
            found.rates.append(course.rate_function(heard.reductions))
            stop = course.stop_step(found.rates[-1], done)
    found.end = found.end if stop is None else stop
    return found


def compute_preview(request: PreviewRequest) -> Preview:
    """What the learning rate of a run does, which the checks have found to make sense."""
    run = request.run_length()
    course = learning_rate_plan(request, run)
    shown = simulate_rates(course, request.evaluate.every.steps(run), request.metrics)
    marks = [CurveMarker(step=step, kind="restart") for step in course.cycle_ends() if step < shown.end]
    marks = [marks[i] for i in _evenly_spaced(len(marks), request.max_points)]
    marks += [CurveMarker(step=step, kind="reduction") for step in shown.starts[1:]]
    collected = set[int]()
    if request.ensemble:
        collected |= _thin_steps(request.ensemble.collection_steps(run), shown.end, request)
    if course.swa and course.swa.start < shown.end:
        collected |= _thin_steps(course.swa.collection_steps, shown.end, request)
        marks.append(CurveMarker(step=course.swa.start, kind="swa_start"))
    marks += [CurveMarker(step=step, kind="collect") for step in sorted(collected)]
    steps, momentum = _evenly_spaced(shown.end, request.max_points), course.cycled_momentum()
    return Preview(
        steps=steps,
        lr=[shown.rate_at(t) for t in steps],
        momentum=[momentum(t) for t in steps] if momentum else None,
        marks=[*marks, CurveMarker(step=shown.end, kind="stop")],
        total_steps=run.total_steps,
        steps_per_epoch=run.steps_per_epoch,
        stop_reason="stop_lr" if shown.end < run.total_steps else "completed",
    )


def _thin_steps(occasions: CollectionSteps, end: int, request: PreviewRequest) -> set[int]:
    """At most `max_points` of the occasions in a run of `end` steps."""
    steps = occasions.steps_until(end)
    return {steps[i] for i in _evenly_spaced(len(steps), request.max_points)}


def _evenly_spaced(count: int, most: int) -> list[int]:
    """At most `most` of 0 … count - 1, evenly spread, both ends among them."""
    if count <= most:
        return list(range(count))
    return [i * (count - 1) // (most - 1) for i in range(most)]
