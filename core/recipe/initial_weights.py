"""Where the weights of a job come from, if not from its seed."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from core.errors import FieldProblem
from core.recipe.component import Spec, cross_field_error
from core.recipe.facts import DataFacts
from core.recipe.models.base import ModelSpec

Weights = Literal["swa", "ema", "best", "last"]
PREFERRED: tuple[Weights, ...] = ("swa", "ema", "best", "last")
UNSHAPED = frozenset({"init", "start", "dropout", "activation"})
"""Fields of a model that no weight's shape depends on: where weights begin, and what has none."""


class Start(Spec):
    """Weights and batch-norm statistics of a checkpoint; optimizer, schedule and data order start afresh.

    Of a job the newest of the `weights` named, else of the averaged ones, the best, the last, the first kind that it
    has. The checkpoint is chosen when the job is submitted.
    """

    job: Annotated[str, Field(pattern=r"^job_[0-9a-z]{26}$")] | None = None
    checkpoint: Annotated[str, Field(pattern=r"^ckpt_[0-9a-z]{26}$")] | None = None
    weights: Weights | None = None

    @model_validator(mode="after")
    def one_of_them(self) -> Self:
        if (self.job is None) == (self.checkpoint is None):
            raise cross_field_error(
                FieldProblem("", "a job or a checkpoint, and one of them", 'as in {"job": "job_…"}')
            )
        if self.checkpoint and self.weights:
            raise cross_field_error(
                FieldProblem("/weights", "the checkpoint is chosen already", 'leave it out, or give "job"')
            )
        return self

    def checkpoint_kinds(self) -> tuple[str, ...]:
        """The kinds of checkpoint that will do, best first."""
        return (self.weights,) if self.weights else PREFERRED


def same_shape(ours: tuple[ModelSpec, DataFacts], theirs: tuple[ModelSpec, DataFacts]) -> bool:
    """Whether the weights of one fit the other."""

    def shape(model: ModelSpec, facts: DataFacts) -> tuple[object, ...]:
        return model.model_dump(exclude=set(UNSHAPED)), model.parameter_count(facts), facts.input_shape, facts.outputs

    return shape(*ours) == shape(*theirs)
