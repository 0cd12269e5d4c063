"""The options that analyses of the loss on a grid share: splits, range, direction norm, and batch norm."""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from core.errors import FieldProblem
from core.recipe.analyses.base import AnalysisSpec, SplitName
from core.recipe.component import cross_field_error
from core.recipe.spec import JobSpec

Norm = Literal["filter", "layer", "none"]
Ignore = Literal["biasbn", "nothing"]
BatchNorm = Literal["fixed", "reestimate"]
"""The running statistics as they are, or new ones on the train part at every point."""

LARGEST = 1e6
MOST_POINTS = 256  # evaluated at once
MOST_NUMBERS = 2**27  # in the stacked weights of these points
Steps = Annotated[int, Field(ge=2, le=2001)]
Place = Annotated[float, Field(ge=-LARGEST, le=LARGEST)]


def _check_ascending(value: tuple[float, float]) -> tuple[float, float]:
    if not value[0] < value[1]:
        raise cross_field_error(
            FieldProblem(
                "", f"the range from {value[0]:g} to {value[1]:g} does not ascend", "give the smaller one first"
            )
        )
    return value


def _check_unique(value: tuple[SplitName, ...]) -> tuple[SplitName, ...]:
    if len(set(value)) < len(value):
        raise cross_field_error(FieldProblem("", "a split is named twice", "name each of them once"))
    return value


Range = Annotated[tuple[Place, Place], AfterValidator(_check_ascending)]
Splits = Annotated[tuple[SplitName, ...], Field(min_length=1, max_length=3), AfterValidator(_check_unique)]


def stacked_bytes(subject: JobSpec) -> int:
    """The bytes of the stacked weights of the points that are evaluated at once."""
    weights = subject.model.parameter_count(subject.data.facts())
    return 4 * max(weights, min(MOST_POINTS * weights, MOST_NUMBERS))


def empty_splits(spec: AnalysisSpec, splits: tuple[SplitName, ...], subject: JobSpec) -> Iterator[FieldProblem]:
    """The requested splits that the data of the job does not have."""
    for number, split in enumerate(splits):
        if not spec.examples_of(subject, split):
            yield FieldProblem(f"/splits/{number}", f"the data of the job has no {split} part", 'take "train"')


def too_few_to_normalise(spec: AnalysisSpec, batch_norm: BatchNorm, subject: JobSpec) -> Iterator[FieldProblem]:
    """The problem of estimating batch norm on one example, which has no variance."""
    if batch_norm == "reestimate" and subject.model.normalises_batches and spec.examples_of(subject) < 2:
        yield FieldProblem("/examples", "batch norm cannot be estimated on one example", 'take more, or "bn": "fixed"')


def examples_per_point(
    spec: AnalysisSpec, splits: tuple[SplitName, ...], batch_norm: BatchNorm, subject: JobSpec
) -> int:
    """The number of forward passes of one example for one point."""
    counted = spec.examples_of(subject) if batch_norm == "reestimate" and subject.model.normalises_batches else 0
    return counted + sum(spec.examples_of(subject, split) for split in splits)
