"""The rules for the end of a run and the series that it monitors: problems refuse the job, warnings do not."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

from pydantic import BaseModel

from core.errors import FieldProblem
from core.recipe.component import SpecWarning
from core.recipe.duration import LONGEST, Duration, RunLength
from core.recipe.learning_rate import LearningRatePlan, learning_rate_plan
from core.recipe.schedules.base import MOST_CYCLES
from core.recipe.shape import RunShape
from core.recipe.spec import JobSpec
from core.suggest import did_you_mean

CLOCK = "seconds alone do not give the number of steps of the run"
BOUND_IT = 'give "steps" or "epochs" too, or a length in steps or epochs'


def monitors(spec: JobSpec, shape: RunShape, series: tuple[str, ...]) -> Iterator[FieldProblem]:
    """Monitored series that do not exist; `series` are those of the job's own weights."""
    scheduled = (*series, *(f"ema.{name}" for name in series if spec.ema))
    all_series = (
        *scheduled,
        *(f"swa.{name}" for name in series if spec.swa),
    )  # after the start of SWA, no schedule has an effect
    asked = {
        "/early_stopping/monitor": (spec.early_stopping.monitor if spec.early_stopping else None, all_series),
        "/schedule/monitor": (spec.schedule.monitored_series(), scheduled),
        "/target/metric": (spec.target.metric if spec.target else None, all_series),
    }
    watched = {pointer: (name, known) for pointer, (name, known) in asked.items() if name is not None}
    kept = spec.checkpoints
    if spec.data.judged_on == "val" and shape.split.validation < 1:
        for pointer in [*watched, *(["/checkpoints/keep_best"] if kept.keep_best else [])]:
            yield FieldProblem(
                pointer, "there is no validation split to evaluate the weights on", "set data.validation above 0"
            )
    else:
        yield from (_unknown(at, name, known) for at, (name, known) in watched.items() if name not in known)
    wanted = kept.keep_best or kept.monitor != type(kept).model_fields["monitor"].default
    if wanted and kept.monitor not in series:
        yield _unknown("/checkpoints/monitor", kept.monitor, series)


def _unknown(pointer: str, name: str, known: tuple[str, ...]) -> FieldProblem:
    hint = did_you_mean(name, known) or f"monitor {' or '.join(known)}"
    return FieldProblem(pointer, f"this job has no evaluation series {name!r}; there are {', '.join(known)}", hint)


def endless(spec: JobSpec, run: RunLength) -> Iterator[FieldProblem]:
    """Lengths that depend on the end of a run which only a time limit ends."""
    if run.bounded:
        return
    for pointer in spec.schedule.open_lengths():
        yield FieldProblem(f"/schedule{pointer}", f"it fills the run by default, but {CLOCK}", BOUND_IT)
    if spec.ensemble and spec.ensemble.divides_run:
        message = f"the cycles of {spec.ensemble.name} are equal parts of the run, but {CLOCK}"
        yield FieldProblem("/ensemble/method", message, 'give "steps" or "epochs" too')
    defaults = {"swa": spec.swa.resolved(spec.optimizer.lr)} if spec.swa else {}
    for pointer, length in _durations(spec.model_copy(update=defaults), ""):
        if length.unit == "run":
            yield FieldProblem(pointer, f"{length} is a share of the run, but {CLOCK}", BOUND_IT)


def _durations(value: object, pointer: str) -> Iterator[tuple[str, Duration]]:
    """The pointer and the value of every duration in a spec."""
    if isinstance(value, Duration):
        yield pointer, value
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from _durations(getattr(value, name), f"{pointer}/{name}")
    elif isinstance(value, tuple):
        for index, each in enumerate(value):
            yield from _durations(each, f"{pointer}/{index}")


def problems(spec: JobSpec, run: RunLength) -> Iterator[FieldProblem]:
    """Ends that this run cannot reach; its schedule has passed its checks."""
    if spec.early_stopping and (start := spec.early_stopping.start_from.steps(run)) > run.total_steps:
        message = f"early stopping would start at step {start:,}, but the run ends after {run.total_steps:,}"
        yield FieldProblem("/early_stopping/start_from", message, "start earlier")
    own = spec.optimizer.own_momentum()
    if own is None and spec.schedule.cycled_momentum(0.0, run):
        message = f"{spec.optimizer.name} has no momentum here that the schedule could cycle"
        yield FieldProblem("/schedule", message, "set optimizer.momentum, or leave cycle_momentum out")
    if spec.stop_lr is not None and (every := spec.evaluate.every.steps(run)) >= 1:
        yield from unreachable(learning_rate_plan(spec, run), every)


def unreachable(plan: LearningRatePlan, every: int) -> Iterator[FieldProblem]:
    """A stop_lr that this run cannot fall below; `every` is the number of steps between two evaluations."""
    bound, schedule = plan.stop_lr, plan.schedule
    if bound is None:
        return
    stretches = list(islice(schedule.unimodal_ranges(plan.run), MOST_CYCLES))
    begins = plan.rate_function()(stretches[0][0]) if stretches else bound
    rate = plan.rate_function(schedule.most_reductions(plan.effective_evaluations(every)))
    if begins < bound:
        message = f"the rate begins at {begins:.3g}, below {bound:.3g}: the run would end before it starts"
        yield FieldProblem("/stop_lr", message, "make it smaller than the rate at the start, or leave it out")
    elif plan.stop_step(rate) is None:
        ends = (min(end, plan.scheduled_steps) for start, end in stretches if start < plan.scheduled_steps)
        low = min((rate(end - 1) for end in ends), default=begins)
        message = f"{schedule.name} does not fall below {bound:.3g} within this run; the lowest rate is {low:.3g}"
        yield FieldProblem("/stop_lr", message, f"choose it above {low:.3g}, make a min_lr smaller, or leave it out")


def warnings(spec: JobSpec, run: RunLength) -> Iterator[SpecWarning]:
    """Ends that are probably not intended."""
    schedule, stopping = spec.schedule, spec.early_stopping
    if stopping and stopping.patience <= schedule.between_reductions():
        message = (
            f"patience {stopping.patience} ends the run before {schedule.name} has reduced the rate and evaluated the "
            f"effect, which takes more than {schedule.between_reductions()} evaluations: make it larger"
        )
        yield SpecWarning("stops_before_reduction", "/early_stopping/patience", message)
    if run.bounded and next(schedule.cycle_ends(replace(run, total_steps=LONGEST)), None):
        plan = learning_rate_plan(spec, run)
        ends = list(plan.cycle_ends())
        if not ends:
            message = f"no cycle of {schedule.name} is complete when the run ends: there will be no incumbent"
            yield SpecWarning("no_cycle_completes", "/schedule", message)
        elif ends[-1] < plan.scheduled_steps:
            message = f"the last cycle is cut short: the incumbent is that of step {ends[-1]:,}, not of the end"
            yield SpecWarning("last_cycle_cut_short", "/schedule", message)
