"""An exponential moving average of the weights, which does not change the training."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, ClassVar, Self

from pydantic import BeforeValidator, Field, model_validator

from core.errors import FieldProblem
from core.recipe.averaging.base import AveragingSpec, CollectionSteps
from core.recipe.component import Positive, Spec, cross_field_error, expand_switch
from core.recipe.duration import Duration, RunLength

DECAY = 0.999


class DecayWarmup(Spec):
    """t optimizer steps after the average's start, the decay is min(decay, 1 - (1 + t / gamma)^-power), as in timm."""

    gamma: Positive = 1.0
    power: Positive = 2 / 3


@dataclass(frozen=True, slots=True)
class EmaPhase:
    """EMA in a given run: `decay` is per optimizer step, whatever `collection_steps.every` is."""

    collection_steps: CollectionSteps
    decay: float
    warmup: DecayWarmup | None = None

    def decay_at(self, completed: int) -> float:
        """The factor of the average so far at the collection after `completed` steps; 0 at the first collection."""
        done = completed - self.collection_steps.first
        if done <= 0:
            return 0.0
        warm = 1 - (1 + done / self.warmup.gamma) ** -self.warmup.power if self.warmup else 1.0
        return float(min(self.decay, warm) ** self.collection_steps.every)

    def initial_share(self, completed: int) -> float:
        """The share of the initial weights in the average after `completed` steps; 0 with a warm-up of the decay."""
        later = max(0, self.collection_steps.count_until(completed) - 1)
        return 0.0 if self.warmup else float(self.decay ** (later * self.collection_steps.every))


class EMA(AveragingSpec):
    """ema <- d ema + (1 - d) w after every step; d = `decay` (0.999), or 2^(-1 / h) with a `half_life` of h steps.

    It begins as a copy of the weights at `start`, or of those after the first collection if `start` is 0, so it needs
    no bias correction. With collections only each `every`, the decay is d^every. Running mean and variance of batch
    norm are averaged with the same d, and integer buffers are copied; with `update_bn` false, all buffers are copied
    from the trained network when the average is evaluated. `warmup` gives the first weights less influence: t steps
    later d is at most 1 - (1 + t / gamma)^-power. The trained weights do not change. `with_swa` allows SWA and EMA in
    one job.
    """

    name: ClassVar[str] = "ema"
    field: ClassVar[str] = "ema"
    summary: ClassVar[str] = "An exponential moving average of the weights."
    paper: ClassVar[str | None] = "Polyak & Juditsky 1992, Acceleration of stochastic approximation by averaging"

    decay: Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)] | None = None
    half_life: Duration | None = None
    warmup: Annotated[
        DecayWarmup | None, BeforeValidator(expand_switch, json_schema_input_type=bool | DecayWarmup | None)
    ] = None
    start: Duration = Duration.of_steps(0)
    every: Duration = Duration.of_steps(1)
    update_bn: bool = True
    with_swa: bool = False

    @model_validator(mode="after")
    def one_decay(self) -> Self:
        if self.decay is not None and self.half_life is not None:
            message = "decay and half_life both set the decay"
            raise cross_field_error(FieldProblem("/half_life", message, "give one of them"))
        return self

    def resolved(self) -> Self:
        """The same spec with `decay` filled in, unless there is a half-life."""
        return self if self.decay or self.half_life else self.model_copy(update={"decay": DECAY})

    def problems(self, run: RunLength) -> Iterator[FieldProblem]:
        """Every reason to refuse the spec for a given run; pointers are relative to the spec."""
        lengths = [("every", self.every), *([("half_life", self.half_life)] if self.half_life else [])]
        short = [(field, length) for field, length in lengths if length.steps(run) < 1]
        for field, length in short:
            yield FieldProblem(f"/{field}", f"{length} is less than one optimizer step here", "make it longer")
        if not short and self.phase_in_run(run).collection_steps.first > run.total_steps:
            first = self.phase_in_run(run).collection_steps.first
            message = f"the average would begin at step {first:,}, but the run ends after {run.total_steps:,}"
            yield FieldProblem("/start", message, "start earlier")

    def phase_in_run(self, run: RunLength) -> EmaPhase:
        """The average in optimizer steps of a given run."""
        decay = 2 ** (-1 / self.half_life.steps(run)) if self.half_life else self.decay or DECAY
        return EmaPhase(CollectionSteps.starting_at(self.start.steps(run), self.every.steps(run)), decay, self.warmup)
