"""The learning rate of every step before anything is trained, from the very functions that train."""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from core.errors import FieldProblem
from core.recipe.averaging import SwaPhase
from core.recipe.component import Positive, Spec, refuse
from core.recipe.course import Course
from core.recipe.duration import RunLength, optimizer_steps
from core.recipe.endings import unreachable
from core.recipe.optimizers import Optimizer
from core.recipe.schedules import Schedule
from core.recipe.schedules.base import Heard, LearningRate
from core.recipe.schedules.constant import Constant
from core.recipe.spec import BatchSize, Count, Evaluate, SwaSwitch, run_length

MarkKind = Literal["restart", "reduction", "swa_start", "collect", "stop"]


class PreviewRequest(Spec):
    """A schedule in a run of `epochs` over `examples` in batches of `batch_size`, or of `steps`.

    `metrics` are what a schedule that listens to evaluations hears: one value for each, every `evaluate.every`.
    """

    schedule: Schedule = Constant()
    optimizer: Optimizer
    stop_lr: Positive | None = None
    swa: SwaSwitch = None
    evaluate: Evaluate = Evaluate()
    metrics: Annotated[tuple[float, ...], Field(max_length=100_000)] = ()
    epochs: Count | None = None
    steps: Count | None = None
    batch_size: BatchSize = 32
    accumulate: Count = 1
    drop_last: bool = False
    examples: Count = 1257
    max_points: Annotated[int, Field(ge=2, le=100_000)] = 2000

    @model_validator(mode="after")
    def makes_sense(self) -> Self:
        if found := tuple(self._problems()):
            raise refuse(*found)
        return self

    def _problems(self) -> Iterator[FieldProblem]:
        if self.epochs is None and self.steps is None:
            yield FieldProblem("/epochs", "the run has no length", 'give "epochs" or "steps"')
            return
        run = self.run_length()
        if self.metrics and self.schedule.watches() is None:
            message = f"{self.schedule.name} does not listen to evaluations"
            yield FieldProblem("/metrics", message, "leave them out, or use a schedule that does, such as plateau")
        misfits = [FieldProblem(f"/schedule{e.pointer}", e.message, e.hint) for e in self.schedule.problems(run)]
        for pointer, length in (("/evaluate/every", self.evaluate.every), ("/swa/every", self.swa and self.swa.every)):
            if length and length.steps(run) < 1:
                misfits.append(FieldProblem(pointer, f"{length} is less than one optimizer step here"))
        yield from misfits or unreachable(self.course(), self.evaluate.every.steps(run))

    def run_length(self) -> RunLength:
        batch = self.examples if self.batch_size == "full" else min(self.batch_size, self.examples)
        per_epoch = optimizer_steps(self.examples, batch, self.accumulate, drop_last=self.drop_last)
        return run_length(per_epoch, self.epochs, self.steps)

    def phase(self) -> SwaPhase | None:
        """SWA's part of the run."""
        return self.swa.phase(self.run_length(), self.optimizer.lr) if self.swa else None

    def course(self) -> Course:
        """How the learning rate goes through the run."""
        phase = self.phase()
        over, owned_from = (phase.over, phase.start) if phase else (None, None)
        return Course(self.schedule, self.optimizer.lr, self.run_length(), self.stop_lr, over, owned_from)


class Mark(Spec):
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
    marks: list[Mark]
    total_steps: int
    steps_per_epoch: int
    stop_reason: Literal["completed", "stop_lr"]


@dataclass(slots=True)
class _Rehearsal:
    """A run without training: the rates that hold from some step on, until the run ends."""

    starts: list[int] = field(default_factory=lambda: [0])
    rates: list[LearningRate] = field(default_factory=list)
    end: int = 0

    def rate(self, t: int) -> float:
        return self.rates[bisect_right(self.starts, t) - 1](t)


def rehearse(course: Course, every: int, metrics: Sequence[float]) -> _Rehearsal:
    """What the rate of a run does whose evaluations, one each `every` steps, come out like `metrics`."""
    heard, watched = Heard(), course.schedule.watches() or ""
    found = _Rehearsal(rates=[course.rate()], end=course.run.total_steps)
    stop = course.stop(found.rates[0])
    for done, value in zip(range(every, course.run.total_steps, every), metrics, strict=False):
        before, heard = heard, course.hears(heard, {watched: value}, done)
        if heard.reductions > before.reductions and stop is None:
            found.starts.append(done)
            found.rates.append(course.rate(heard.reductions))
            stop = course.stop(found.rates[-1], done)
    found.end = found.end if stop is None else stop
    return found


def preview(request: PreviewRequest) -> Preview:
    run, course, phase = request.run_length(), request.course(), request.phase()
    shown = rehearse(course, request.evaluate.every.steps(run), request.metrics)
    marks = [Mark(step=step, kind="restart") for step in _thinned(list(course.cycles()), shown.end, request)]
    marks += [Mark(step=step, kind="reduction") for step in shown.starts[1:]]
    if phase and phase.start < shown.end:
        collected = range(phase.start or phase.every, shown.end + 1, phase.every)
        marks.append(Mark(step=phase.start, kind="swa_start"))
        marks += [Mark(step=step, kind="collect") for step in _thinned(collected, shown.end + 1, request)]
    steps = _evenly(shown.end, request.max_points)
    momentum = course.momentum(request.optimizer.own_momentum() or 0.0)
    return Preview(
        steps=steps,
        lr=[shown.rate(t) for t in steps],
        momentum=[momentum(t) for t in steps] if momentum else None,
        marks=[*marks, Mark(step=shown.end, kind="stop")],
        total_steps=run.total_steps,
        steps_per_epoch=run.steps_per_epoch,
        stop_reason="stop_lr" if shown.end < run.total_steps else "completed",
    )


def _thinned(found: Sequence[int], end: int, request: PreviewRequest) -> list[int]:
    """Of the rising steps those before `end`, at most `max_points`."""
    known = [step for step in found if step < end]
    return [known[i] for i in _evenly(len(known), request.max_points)]


def _evenly(count: int, most: int) -> list[int]:
    """At most `most` of 0 … count - 1, evenly spread, both ends among them."""
    if count <= most:
        return list(range(count))
    return [i * (count - 1) // (most - 1) for i in range(most)]
