"""The rules between an optimizer and the other fields of a job."""

from collections.abc import Iterator

from core.errors import FieldProblem
from core.recipe.component import SpecWarning
from core.recipe.duration import RunLength
from core.recipe.learning_rate import RateFields
from core.recipe.spec import JobSpec


def problems(spec: JobSpec, run: RunLength) -> Iterator[FieldProblem]:
    """Every reason to refuse the job because of its optimizer."""
    name, optimizer = spec.optimizer.name, spec.optimizer
    if optimizer.full_batch and spec.batch_size != "full":
        message = f"{name} compares gradients from step to step, so each must be that of all examples"
        yield FieldProblem("/batch_size", message, 'set "full", or use "adam"')
    if optimizer.closure:
        yield from _with_closure(spec)
    if optimizer.averages and spec.ema:
        message = f"{name} averages its weights, and is evaluated at that average"
        yield FieldProblem("/ema", message, "leave it out: the base weights are the average")
    if optimizer.hidden_matrices and spec.model.count_hidden_matrices(spec.data.facts()) < 1:
        message = f"{name} steps the matrices of hidden layers, and here is none between the first and the last layer"
        yield FieldProblem("/optimizer/name", message, 'use "adamw", or give the model another entry in "hidden"')
    yield from of_rate(spec, run)


def _with_closure(spec: JobSpec) -> Iterator[FieldProblem]:
    name = spec.optimizer.name
    if spec.clip_grad:
        message = f"{name} takes many gradients in a step and needs each as it is"
        yield FieldProblem("/clip_grad", message, "leave it out, or use another optimizer")
    if spec.sam:
        message = f"{name} searches along the loss, and SAM's gradient is not that of the loss"
        yield FieldProblem("/sam", message, "leave it out, or use another optimizer")


def of_rate(spec: RateFields, run: RunLength) -> Iterator[FieldProblem]:
    """The problems that concern the learning rate."""
    name, why = spec.optimizer.name, spec.optimizer.constant_lr_reason
    if not why:
        return
    another = 'leave it out, or use another optimizer, for instance "sgd"'
    if not spec.schedule.is_constant:
        yield FieldProblem("/schedule", f"{name} takes no schedule: {why}", another)
    elif spec.schedule.warmup.steps(run):
        own_warmup = "warmup_steps" in type(spec.optimizer).model_fields
        hint = "set optimizer.warmup_steps instead" if own_warmup else "leave it out"
        yield FieldProblem("/schedule/warmup", f"{name} takes no warm-up from a schedule: {why}", hint)
    if spec.swa:
        yield FieldProblem("/swa", f"SWA changes the learning rate, and {name} needs a constant one: {why}", another)
    if spec.ensemble and spec.ensemble.sets_rate:
        message = f"{spec.ensemble.name} changes the learning rate, and {name} needs a constant one: {why}"
        hint = 'use "ensemble": {"method": "checkpoints"}, or another optimizer'
        yield FieldProblem("/ensemble/method", message, hint)


def warnings(spec: JobSpec) -> Iterator[SpecWarning]:
    """Settings that are allowed and probably not intended."""
    if spec.optimizer.full_batch and getattr(spec.model, "dropout", 0.0) > 0:
        message = (
            f"dropout changes the loss at random in every step, and {spec.optimizer.name} compares losses between steps"
        )
        yield SpecWarning("compares_noise", "/model/dropout", message)
