"""The rules between averaging and the other fields of a job: problems refuse the job, warnings do not."""

from collections.abc import Iterator

from core.errors import FieldProblem
from core.recipe.averaging.ensemble import EnsembleSpec
from core.recipe.averaging.snapshot import Snapshot
from core.recipe.component import SpecWarning
from core.recipe.duration import RunLength
from core.recipe.learning_rate import RateFields
from core.recipe.schedules.constant import Constant
from core.recipe.shape import RunShape
from core.recipe.spec import JobSpec

MOST_KEPT = 250_000_000  # numbers: 1 GB of fp32 in memory, and in every resumable checkpoint
MUCH = 0.1  # of an average


def problems(spec: JobSpec, shape: RunShape) -> Iterator[FieldProblem]:
    """Every reason to refuse the job because of its averaging."""
    found = [*of_rate(spec, shape.run), *_ema(spec, shape.run)]
    yield from found
    if not found:
        yield from _sizes(spec, shape)


def _within(field: str, found: Iterator[FieldProblem]) -> Iterator[FieldProblem]:
    return (FieldProblem(f"/{field}{each.pointer}", each.message, each.hint) for each in found)


def of_rate(spec: RateFields, run: RunLength) -> Iterator[FieldProblem]:
    """The problems that concern the learning rate."""
    if spec.swa:
        yield from _within("swa", spec.swa.problems(run, spec.optimizer.lr))
    yield from _ensemble(spec, run)


def _ema(spec: JobSpec, run: RunLength) -> Iterator[FieldProblem]:
    if spec.ema is None:
        return
    if spec.swa and not spec.ema.with_swa:
        message = "SWA averages the same weights already, with its own learning rate"
        yield FieldProblem(
            "/ema", message, 'use one of them; to compare both in one job give "ema": {"with_swa": true}'
        )
    yield from _within("ema", spec.ema.problems(run))


def _ensemble(spec: RateFields, run: RunLength) -> Iterator[FieldProblem]:
    ensemble = spec.ensemble
    if ensemble is None:
        return
    other = 'leave it out, or use "ensemble": {"method": "checkpoints"}, which goes with every rate'
    if ensemble.sets_rate and spec.swa:
        yield FieldProblem("/swa", f"SWA and {ensemble.name} would both set the learning rate", other)
    if isinstance(ensemble, Snapshot) and spec.schedule != Constant():
        message = f"the cycles of a snapshot ensemble are its schedule, so {spec.schedule.name} would not be used"
        yield FieldProblem("/schedule", message, other)
    yield from _within("ensemble", ensemble.problems(run, spec.optimizer.lr))


def _sizes(spec: JobSpec, shape: RunShape) -> Iterator[FieldProblem]:
    """Weights that are too large to keep, in memory and in every resumable checkpoint."""
    run, kept = shape.run, []
    if spec.ensemble:
        kept.append(("/ensemble/members", spec.ensemble.member_count(run), "keep fewer members"))
    if spec.swa and spec.swa.swag:
        phase = spec.swa.phase_in_run(run, spec.optimizer.lr)
        rank = min(spec.swa.swag.max_rank, phase.collection_steps.count_until(run.total_steps))
        kept.append(("/swa/swag/max_rank", rank, "make it smaller"))
    parameters = spec.model.parameter_count(shape.facts) if kept else 0
    for pointer, count, hint in kept:
        if count * parameters > MOST_KEPT:
            message = f"{count} times {parameters:,} weights are {count * parameters * 4 / 1e9:.1f} GB, and at most "
            message += f"{MOST_KEPT * 4 / 1e9:.1f} GB can be kept: {MOST_KEPT // parameters} of them"
            yield FieldProblem(pointer, message, hint)


def warnings(spec: JobSpec, run: RunLength) -> Iterator[SpecWarning]:
    """Settings that are allowed and probably not intended, or effects that the job did not request."""
    yield from _stale_statistics(spec)
    yield from _swa_warnings(spec, run)
    yield from _ema_warnings(spec, run)
    yield from _ensemble_warnings(spec, run)


def _stale_statistics(spec: JobSpec) -> Iterator[SpecWarning]:
    for kind, average in (("swa", spec.swa), ("ema", spec.ema)):
        if average and not average.update_bn and spec.model.normalises_batches:
            message = "the average's batch norm has statistics of other weights than its own, which usually harms it"
            yield SpecWarning("statistics_not_updated", f"/{kind}/update_bn", message)


def _swa_warnings(spec: JobSpec, run: RunLength) -> Iterator[SpecWarning]:
    if spec.swa is None:
        return
    phase = spec.swa.phase_in_run(run, spec.optimizer.lr)
    if phase.collection_steps.count_until(run.total_steps) < 2:
        yield SpecWarning("swa_single_model", "/swa", "SWA collects one model only, so its average is that model")
    before = spec.schedule.compile_rate(spec.optimizer.lr, run)(max(0, phase.start - 1))
    if before < 0.01 * phase.lr:
        message = (
            f"the schedule falls to {before:.2g} before SWA starts at step {phase.start:,} and then rises to "
            f"{phase.lr:.2g}; SWA needs a rate that keeps the weights moving: start it earlier, or let the "
            "schedule end higher"
        )
        yield SpecWarning("schedule_ends_before_swa", "/schedule", message)
    yield from _stops_before(spec, run, "swa", phase.start, f"before SWA starts at step {phase.start:,}")


def _stops_before(spec: JobSpec, run: RunLength, what: str, step: int, when: str) -> Iterator[SpecWarning]:
    if spec.early_stopping and spec.early_stopping.start_from.steps(run) < step:
        message = f"the run may stop {when}; a later start_from lets it begin"
        yield SpecWarning(f"may_stop_before_{what}", "/early_stopping/start_from", message)


def _ema_warnings(spec: JobSpec, run: RunLength) -> Iterator[SpecWarning]:
    if spec.ema and (share := spec.ema.phase_in_run(run).initial_share(run.total_steps)) > MUCH:
        message = f"at the end {share:.0%} of the average are still the initial weights"
        yield SpecWarning(
            "ema_remembers_start", "/ema", f"{message}: give it a warmup, a later start or a faster decay"
        )


def _ensemble_warnings(spec: JobSpec, run: RunLength) -> Iterator[SpecWarning]:
    ensemble: EnsembleSpec | None = spec.ensemble
    if ensemble is None:
        return
    first = ensemble.collection_steps(run).first
    if isinstance(ensemble, Snapshot) and first != ensemble.cycle_steps(run):
        message = f"{run.total_steps:,} steps are no multiple of {ensemble.cycles} cycles: the first has {first:,} of "
        message += f"them, the others have {ensemble.cycle_steps(run):,}"
        yield SpecWarning("snapshot_remainder", "/ensemble/cycles", message)
    when = f"before the first member of the ensemble is collected at step {first:,}"
    yield from _stops_before(spec, run, "ensemble", first, when)
