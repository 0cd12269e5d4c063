"""The learning rate of every step before anything is trained, from the very functions that train."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from core.errors import FieldProblem
from core.recipe import updates
from core.recipe.averaging import Ensemble, Occasions, rules
from core.recipe.component import Spec, refuse
from core.recipe.duration import RunLength, optimizer_steps
from core.recipe.optimizers import Optimizer
from core.recipe.schedules import Schedule
from core.recipe.schedules.constant import Constant
from core.recipe.spec import BatchSize, Count, SwaSwitch


class PreviewRequest(Spec):
    """A schedule in a run of `epochs` over `examples` in batches of `batch_size`, or of `steps`."""

    schedule: Schedule = Constant()
    optimizer: Optimizer
    swa: SwaSwitch = None
    ensemble: Ensemble | None = None
    epochs: Count | None = None
    steps: Count | None = None
    batch_size: BatchSize = 32
    accumulate: Count = 1
    drop_last: bool = False
    examples: Count = 1257
    max_points: Annotated[int, Field(ge=2, le=100_000)] = 2000

    @model_validator(mode="after")
    def has_a_length(self) -> Self:
        found: list[FieldProblem] = []
        if self.epochs is None and self.steps is None:
            found.append(FieldProblem("/epochs", "the run has no length", 'give "epochs" or "steps"'))
        else:
            run = self.run_length()
            found += [FieldProblem(f"/schedule{e.pointer}", e.message, e.hint) for e in self.schedule.problems(run)]
            found += [*rules.of_rate(self, run), *updates.of_rate(self, run)]
        if found:
            raise refuse(*found)
        return self

    def run_length(self) -> RunLength:
        batch = self.examples if self.batch_size == "full" else min(self.batch_size, self.examples)
        per_epoch = optimizer_steps(self.examples, batch, self.accumulate, drop_last=self.drop_last)
        budgets = [self.epochs * per_epoch if self.epochs else None, self.steps]
        return RunLength(per_epoch, min(budget for budget in budgets if budget))


class Mark(Spec):
    """Something that happens when `step` optimizer steps are complete."""

    step: int
    kind: Literal["swa_start", "collect", "stop"]


class Preview(Spec):
    """`lr[i]` is the rate of optimizer step `steps[i]`; thinned evenly past `max_points`, first and last step kept."""

    steps: list[int]
    lr: list[float]
    marks: list[Mark]
    total_steps: int
    steps_per_epoch: int


def preview(request: PreviewRequest) -> Preview:
    run = request.run_length()
    lr, collected = request.optimizer.lr, set[int]()
    rate = request.optimizer.rate(request.schedule.compile(lr, run))
    marks = [Mark(step=run.total_steps, kind="stop")]
    if request.ensemble:
        rate = request.ensemble.over(rate, run, lr)
        collected |= _thinned(request.ensemble.occasions(run), request)
    if request.swa:
        phase = request.swa.phase(run, lr)
        rate = phase.over(rate)
        collected |= _thinned(phase.occasions, request)
        marks.insert(0, Mark(step=phase.start, kind="swa_start"))
    marks[-1:-1] = [Mark(step=step, kind="collect") for step in sorted(collected)]
    steps = list(_evenly(run.total_steps, request.max_points))
    return Preview(
        steps=steps,
        lr=[rate(t) for t in steps],
        marks=marks,
        total_steps=run.total_steps,
        steps_per_epoch=run.steps_per_epoch,
    )


def _thinned(occasions: Occasions, request: PreviewRequest) -> set[int]:
    """At most `max_points` of the occasions."""
    steps = occasions.steps(request.run_length().total_steps)
    return {steps[i] for i in _evenly(len(steps), request.max_points)}


def _evenly(count: int, most: int) -> list[int]:
    """At most `most` of 0 … count - 1, evenly spread, both ends among them."""
    if count <= most:
        return list(range(count))
    return [i * (count - 1) // (most - 1) for i in range(most)]
