"""Forks: a job that shares another job's history up to a checkpoint, the fields that may differ, and the state that
starts afresh.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

from core.errors import FieldProblem, InvalidSpec
from core.recipe.data import Dataset, DataSpec
from core.recipe.parse import ResolveData, parse_job
from core.recipe.spec import JobSpec

FREE: Final = frozenset(
    {
        *("name", "priority", "metadata", "max_retries", "resources"),
        *("schedule", "stop_lr", "swa", "ema", "ensemble", "early_stopping", "target", "rollback"),
        *("epochs", "steps", "seconds", "seed", "sampling", "clip_grad", "label_smoothing"),
        *("evaluate", "metrics", "checkpoints", "log_every"),
    }
)
"""Fields that do not change the tensors of a checkpoint, except for parts of the state that can start afresh."""
FREE_OF_OPTIMIZER: Final = frozenset({"lr", "weight_decay"})
WAY_OUT: Final = 'the history up to the checkpoint would differ; use "from" to start a new job with its weights alone'


def fork_spec(parent: JobSpec, changes: Mapping[str, Any], step: int) -> JobSpec:
    """The parent's resolved spec with some fields replaced as a whole; all other fields stay.

    Raises:
        InvalidSpec: a field cannot change, or the resulting job is not valid or ends before `step`.
    """
    document = {**json.loads(parent.model_dump_json()), **changes}
    try:
        child = parse_job(json.dumps(document).encode(), keep_data(parent.data))
    except InvalidSpec as error:
        moved = (replace(each, pointer=f"/changes{each.pointer}") for each in error.errors)
        raise InvalidSpec(error.message, errors=tuple(moved)) from None
    if problems := tuple(_fork_problems(parent, child, step)):
        raise InvalidSpec(errors=problems)
    return child


def keep_data(before: DataSpec) -> ResolveData:
    """The look-up of a job that continues another one: an uploaded dataset is the same, with the same facts.

    Nothing is looked up, so that neither a newer dataset of this name nor the rules of this release change the job.
    """

    def keep(data: DataSpec) -> DataSpec:
        if not isinstance(data, Dataset):
            return data
        # Its own `resolved` is ignored, as in every request.
        if isinstance(before, Dataset) and data.model_copy(update={"resolved": before.resolved}) == before:
            return before
        raise InvalidSpec(errors=(FieldProblem("/data", "cannot change in a fork", WAY_OUT),))

    return keep


def reset_parts(parent: JobSpec, child: JobSpec) -> tuple[str, ...]:
    """The parts of a run, by the prefix of their state, that start afresh in the child, because their fields differ."""
    before = _state_origins(parent)
    return tuple(name for name, its in _state_origins(child).items() if before[name] != its)


def _state_origins(spec: JobSpec) -> dict[str, object]:
    run, lr = spec.shape().run, spec.optimizer.lr
    ema, ensemble, stopping = spec.ema, spec.ensemble, spec.early_stopping
    swa = (spec.swa and spec.swa.phase_in_run(run, lr), spec.swa and spec.swa.swag)
    return {
        "rate": (spec.schedule, spec.rollback),
        "swa": swa,
        "swag": swa,
        "ema": ema and (ema.phase_in_run(run), ema.update_bn),
        "ensemble": ensemble and (ensemble, ensemble.collection_steps(run), ensemble.member_count(run)),
        "best": stopping and (stopping, stopping.start_from.steps(run)),
        "incumbent": (spec.schedule, run),
        "log": spec.log_every,
        "mark": spec.model_dump(
            exclude={"name", "priority", "metadata"}
        ),  # the rollback point contains all the other parts
    }


def _fork_problems(parent: JobSpec, child: JobSpec, step: int) -> Iterator[FieldProblem]:
    before, after = (json.loads(spec.model_dump_json()) for spec in (parent, child))
    for name, value in after.items():
        if name == "optimizer" and before[name]["name"] == value["name"]:
            for option in sorted((before[name].keys() | value.keys()) - FREE_OF_OPTIMIZER):
                if before[name].get(option) != value.get(option):
                    yield FieldProblem(f"/changes/optimizer/{option}", "cannot change in a fork", WAY_OUT)
        elif name not in FREE and before[name] != value:
            yield FieldProblem(f"/changes/{name}", "cannot change in a fork", WAY_OUT)
    run = child.shape().run
    if run.bounded and run.total_steps <= step:
        message = f"the job would end after {run.total_steps:,} steps, and the checkpoint is at step {step:,}"
        yield FieldProblem("/changes/epochs", message, "give more epochs or steps, or an earlier checkpoint")
