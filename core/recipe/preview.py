"""The learning rate of every step before the training, from the functions that the training itself uses."""

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

    `metrics` are assumed values for a schedule that depends on evaluations: one for each evaluation, in order.
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
    """An event when `step` optimizer steps are complete."""

    step: int
    kind: MarkKind


class Preview(Spec):
    """`lr[i]` is the learning rate of optimizer step `steps[i]`, downsampled to `max_points` with both ends.

    `momentum` is null unless the schedule cycles it. `steps` end with the run, which may be before `total_steps`.
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
    """The learning rates of a run without training: `rates[i]` applies from step `starts[i]` on."""

    starts: list[int] = field(default_factory=lambda: [0])
    rates: list[LearningRate] = field(default_factory=list)
    end: int = 0

    def rate_at(self, t: int) -> float:
        return self.rates[bisect_right(self.starts, t) - 1](t)


def simulate_rates(plan: LearningRatePlan, every: int, metrics: Sequence[float]) -> _SimulatedRates:
    """The learning rates of a run whose evaluations, one each `every` steps, give `metrics`."""
    state, watched = PlateauState(), plan.schedule.monitored_series() or ""
    found = _SimulatedRates(rates=[plan.rate_function()], end=plan.run.total_steps)
    stop = plan.stop_step(found.rates[0])
    for done, value in zip(range(every, plan.run.total_steps, every), metrics, strict=False):
        before, state = state, plan.after_evaluation(state, {watched: value}, done)
        if state.reductions > before.reductions and stop is None:
            found.starts.append(done)
            found.rates.append(plan.rate_function(state.reductions))
            stop = plan.stop_step(found.rates[-1], done)
    found.end = found.end if stop is None else stop
    return found


def compute_preview(request: PreviewRequest) -> Preview:
    """The preview of a request that has passed the checks."""
    run = request.run_length()
    plan = learning_rate_plan(request, run)
    shown = simulate_rates(plan, request.evaluate.every.steps(run), request.metrics)
    marks = [CurveMarker(step=step, kind="restart") for step in plan.cycle_ends() if step < shown.end]
    marks = [marks[i] for i in _evenly_spaced(len(marks), request.max_points)]
    marks += [CurveMarker(step=step, kind="reduction") for step in shown.starts[1:]]
    collected = set[int]()
    if request.ensemble:
        collected |= _thin_steps(request.ensemble.collection_steps(run), shown.end, request)
    if plan.swa and plan.swa.start < shown.end:
        collected |= _thin_steps(plan.swa.collection_steps, shown.end, request)
        marks.append(CurveMarker(step=plan.swa.start, kind="swa_start"))
    marks += [CurveMarker(step=step, kind="collect") for step in sorted(collected)]
    steps, momentum = _evenly_spaced(shown.end, request.max_points), plan.cycled_momentum()
    return Preview(
        steps=steps,
        lr=[shown.rate_at(t) for t in steps],
        momentum=[momentum(t) for t in steps] if momentum else None,
        marks=[*marks, CurveMarker(step=shown.end, kind="stop")],
        total_steps=run.total_steps,
        steps_per_epoch=run.steps_per_epoch,
        stop_reason="stop_lr" if shown.end < run.total_steps else "completed",
    )


def _thin_steps(collection_steps: CollectionSteps, end: int, request: PreviewRequest) -> set[int]:
    """At most `max_points` of the collection steps in a run of `end` steps."""
    steps = collection_steps.steps_until(end)
    return {steps[i] for i in _evenly_spaced(len(steps), request.max_points)}


def _evenly_spaced(count: int, most: int) -> list[int]:
    """At most `most` of 0 … count - 1, evenly spaced, with both ends."""
    if count <= most:
        return list(range(count))
    return [i * (count - 1) // (most - 1) for i in range(most)]
