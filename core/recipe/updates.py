"""What an optimizer cannot live with elsewhere in the job, and what SAM cannot."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from core.errors import FieldProblem

if TYPE_CHECKING:
    from core.recipe.spec import JobSpec


def problems(spec: JobSpec) -> Iterator[FieldProblem]:
    """Every reason to refuse the job on account of its optimizer."""
    name, optimizer = spec.optimizer.name, spec.optimizer
    if optimizer.full_batch and spec.batch_size != "full":
        message = f"{name} compares gradients from step to step, so each must be that of all examples"
        yield FieldProblem("/batch_size", message, 'set "full", or use "adam"')
    if optimizer.closure:
        yield from _with_closure(spec)
    if optimizer.steady:
        yield from _steady(spec, optimizer.steady)
    if optimizer.hidden_matrices and spec.model.hidden_matrices < 1:
        message = f"{name} steps the matrices of hidden layers, and here is none between the first and the last layer"
        yield FieldProblem("/optimizer/name", message, 'use "adamw", or give the model another entry in "hidden"')


def _with_closure(spec: JobSpec) -> Iterator[FieldProblem]:
    name = spec.optimizer.name
    if spec.clip_grad:
        message = f"{name} takes many gradients in a step and needs each as it is"
        yield FieldProblem("/clip_grad", message, "leave it out, or use another optimizer")
    if spec.sam:
        message = f"{name} searches along the loss, and SAM's gradient is not that of the loss"
        yield FieldProblem("/sam", message, "leave it out, or use another optimizer")


def _steady(spec: JobSpec, why: str) -> Iterator[FieldProblem]:
    name = spec.optimizer.name
    own_warmup = "warmup_steps" in type(spec.optimizer).model_fields
    if not spec.schedule.steady:
        message = f"{name} takes no schedule: {why}"
        yield FieldProblem("/schedule", message, 'leave it out, or use another optimizer, for instance "sgd"')
    elif spec.schedule.warmup.steps(spec.run_length()):
        hint = "set optimizer.warmup_steps instead" if own_warmup else "leave it out"
        yield FieldProblem("/schedule/warmup", f"{name} takes no warm-up from a schedule: {why}", hint)
    if spec.swa:
        message = f"SWA moves the learning rate, and {name} takes none that moves: {why}"
        yield FieldProblem("/swa", message, 'leave it out, or use another optimizer, for instance "sgd"')
    if spec.optimizer.averages and getattr(spec, "ema", None):
        message = f"{name} averages its weights by itself, and is judged at that average"
        yield FieldProblem("/ema", message, "leave it out: the base weights are the average")


def warnings(spec: JobSpec) -> Iterator[tuple[str, str, str]]:
    """(code, pointer, message) of what is allowed and probably not meant."""
    if spec.optimizer.full_batch and getattr(spec.model, "dropout", 0.0) > 0:
        message = f"dropout makes the loss another one at every step, and {spec.optimizer.name} compares them"
        yield "compares_noise", "/model/dropout", message
