"""The rules between the fields of a job: problems refuse the job, warnings do not."""

from collections.abc import Iterator

from core.errors import FieldProblem
from core.recipe.checks import averaging, optimizer, stopping
from core.recipe.component import SpecWarning
from core.recipe.data import Dataset
from core.recipe.duration import LONGEST
from core.recipe.facts import DataFacts
from core.recipe.shape import RunShape
from core.recipe.spec import LOSSES, METRICS, JobSpec

MOST_PARAMETERS = 500_000_000  # 2 GB of fp32 weights; with gradients and optimizer state about 8 GB


def problems(spec: JobSpec, shape: RunShape) -> Iterator[FieldProblem]:
    """Every reason to refuse the job; later checks run only where the earlier ones make them meaningful."""
    facts = shape.facts
    listens = stopping.monitors(spec, shape, series(spec, facts))
    basic = [*_split(spec, shape), *_task(spec, facts), *_model(spec, facts), *listens]
    yield from basic
    if spec.epochs is None and spec.steps is None and spec.seconds is None:
        yield FieldProblem("/epochs", "the job has no budget", 'give "epochs", "steps" or "seconds"')
    elif not basic:
        yield from _batch(spec, shape)
        yield from _lengths(spec, shape)
        yield from optimizer.problems(spec, shape.run)


def _split(spec: JobSpec, shape: RunShape) -> Iterator[FieldProblem]:
    if spec.data.validation + spec.data.test >= 1 or shape.split.train < 1:
        yield FieldProblem("/data/validation", "validation and test together leave nothing to train on")


def _task(spec: JobSpec, facts: DataFacts) -> Iterator[FieldProblem]:
    task = facts.task
    if spec.loss is not None and spec.loss not in LOSSES[task]:
        yield FieldProblem("/loss", f"{spec.loss} does not fit {task}", f"use {' or '.join(LOSSES[task])}")
    for index, metric in enumerate(spec.metrics or ()):
        if metric not in METRICS[task]:
            hint = f"use {' or '.join(METRICS[task])}" if METRICS[task] else "leave it out"
            yield FieldProblem(f"/metrics/{index}", f"{metric} does not fit {task}", hint)
    if spec.data.label_noise and task != "classification":
        yield FieldProblem("/data/label_noise", f"there are no labels to confuse in a {task}", "leave it out")
    if spec.label_smoothing and task != "classification":
        yield FieldProblem("/label_smoothing", f"there are no labels to smooth in a {task}", "leave it out")
    for pointer, asked in (("/ensemble", spec.ensemble), ("/swa/swag", spec.swa and spec.swa.swag)):
        if asked and task == "function":
            hint = "leave it out; swa and ema average the places themselves"
            yield FieldProblem(pointer, "a point predicts nothing that could be averaged", hint)


def series(spec: JobSpec, facts: DataFacts) -> tuple[str, ...]:
    """The evaluation series of the job's own weights: val.loss, val.accuracy …"""
    metrics = METRICS[facts.task] if spec.metrics is None else spec.metrics
    part = spec.data.judged_on
    return tuple(f"{part}.{name}" for name in ("loss", *metrics))


def _model(spec: JobSpec, facts: DataFacts) -> Iterator[FieldProblem]:
    if facts.task == "language_model":
        yield FieldProblem("/model/name", f"{spec.model.name} takes no text; no model of this release does")
        return
    if facts.cardinalities and not spec.model.embeds:
        message = f"{spec.model.name} does not embed categories, and {len(facts.cardinalities)} of the data are codes"
        yield FieldProblem("/data/categories", message, '"categories": {"encode": "one_hot"}')
    if facts.task not in spec.model.tasks:
        hint = 'a function takes the model "point", and that model takes nothing else'
        yield FieldProblem("/model/name", f"{spec.model.name} cannot be trained on {spec.data.name}", hint)
        return
    misfits = list(spec.model.problems(facts))
    for problem in misfits:
        yield FieldProblem(f"/model{problem.pointer}", problem.message, problem.hint)
    if not misfits and (count := spec.model.parameter_count(facts)) > MOST_PARAMETERS:
        yield FieldProblem(
            "/model", f"{count:,} parameters; at most {MOST_PARAMETERS:,} are allowed", "make it narrower"
        )


def _batch(spec: JobSpec, shape: RunShape) -> Iterator[FieldProblem]:
    train = shape.split.train
    if isinstance(spec.batch_size, int) and spec.batch_size > train:
        message = f"larger than the train set of {train} examples"
        yield FieldProblem("/batch_size", message, f'use "full" or at most {train}')
    elif spec.batch_size == "full" and spec.sampling == "with_replacement":
        yield FieldProblem("/sampling", "the full batch is not sampled", f"batch_size {train} draws as many at random")
    elif spec.model.normalises_batches and 1 in (shape.examples_per_epoch % shape.batch, shape.batch):
        message = f"{train} train examples leave a batch of a single one, which batch norm cannot normalise"
        yield FieldProblem("/batch_size", message, "choose another batch size, drop_last true, or batch_norm false")


def _lengths(spec: JobSpec, shape: RunShape) -> Iterator[FieldProblem]:
    if shape.batch > shape.split.train:
        return
    run = shape.run
    if run.total_steps > LONGEST:
        yield FieldProblem("/epochs", f"{run.total_steps:,} optimizer steps; at most {LONGEST:,} are allowed")
    yield from stopping.endless(spec, run)
    misfits = list(spec.schedule.problems(run))
    for problem in misfits:
        yield FieldProblem(f"/schedule{problem.pointer}", problem.message, problem.hint)
    lengths = [
        ("/evaluate/every", spec.evaluate.every),
        ("/checkpoints/every", spec.checkpoints.every),
    ]
    for pointer, length in lengths:
        if length.steps(run) < 1:
            yield FieldProblem(pointer, f"{length} is less than one optimizer step here", "make it longer")
    averages = list(averaging.problems(spec, shape))
    yield from averages
    if not misfits and not averages:
        yield from stopping.problems(spec, run)


def warnings(spec: JobSpec, shape: RunShape) -> Iterator[SpecWarning]:
    """Settings that are allowed and probably not intended: each with a code, the field, and its effect on this job."""
    run = shape.run
    warm = spec.schedule.warmup.steps(run)
    if warm >= run.total_steps:
        yield SpecWarning(
            "warmup_fills_run",
            "/schedule/warmup",
            "warm-up lasts the whole run: the learning rate never reaches its target",
        )
    if spec.data.judged_on == "val" and shape.split.validation == 0:
        yield SpecWarning("no_validation", "/data/validation", "nothing is held out, so there are no val series")
    batches = -(-shape.examples_per_epoch // shape.batch)
    if spec.accumulate > max(1, batches):
        message = f"an epoch has {batches} batches only: every step takes them all, and no more"
        yield SpecWarning("accumulates_whole_epoch", "/accumulate", message)
    if spec.no_decay and not spec.optimizer.has_weight_decay:
        yield SpecWarning("no_decay_without_decay", "/no_decay", "the optimizer's weight_decay is 0: nothing decays")
    if isinstance(spec.data, Dataset) and spec.data.resolved:
        yield from (each.as_warning() for each in spec.data.resolved.warnings)
    yield from optimizer.warnings(spec)
    yield from averaging.warnings(spec, run)
    yield from stopping.warnings(spec, run)
