"""The source of a job's initial weights, if it is not the seed: fine-tuning from another job."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from core.errors import FieldProblem
from core.recipe.component import Spec, cross_field_error
from core.recipe.facts import DataFacts
from core.recipe.models.base import ModelSpec

Weights = Literal["swa", "ema", "best", "last"]
PREFERRED: tuple[Weights, ...] = ("swa", "ema", "best", "last")
UNSHAPED = frozenset({"init", "start", "dropout", "activation"})
"""Fields of a model that do not change the shape of any weight."""


class Start(Spec):
    """Weights and batch-norm statistics of a checkpoint; optimizer, schedule and data order start afresh.

    Of a `job` the newest checkpoint of the kind `weights` is used; without `weights`, of the first kind that the job
    has: swa, ema, best, last. The checkpoint is chosen when the job is submitted.
    """

    job: Annotated[str, Field(pattern=r"^job_[0-9a-z]{26}$")] | None = None
    checkpoint: Annotated[str, Field(pattern=r"^ckpt_[0-9a-z]{26}$")] | None = None
    weights: Weights | None = None

    @model_validator(mode="after")
    def one_of_them(self) -> Self:
        if (self.job is None) == (self.checkpoint is None):
            raise cross_field_error(FieldProblem("", "give either a job or a checkpoint", 'as in {"job": "job_…"}'))
        if self.checkpoint and self.weights:
            raise cross_field_error(
                FieldProblem("/weights", "the checkpoint is chosen already", 'leave it out, or give "job"')
            )
        return self

    def checkpoint_kinds(self) -> tuple[str, ...]:
        """The accepted kinds of checkpoint, in order of preference."""
        return (self.weights,) if self.weights else PREFERRED


def same_shape(ours: tuple[ModelSpec, DataFacts], theirs: tuple[ModelSpec, DataFacts]) -> bool:
    """Whether the weights of two models, each with the facts of its data, have the same shapes."""

    def shape(model: ModelSpec, facts: DataFacts) -> tuple[object, ...]:
        return (
            model.model_dump(exclude=set(UNSHAPED)),
            model.parameter_count(facts),
            facts.input_shape,
            facts.cardinalities,
            facts.outputs,
        )

    return shape(*ours) == shape(*theirs)
