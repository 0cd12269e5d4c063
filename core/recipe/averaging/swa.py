"""Stochastic Weight Averaging: the running mean of late weights of a run, at a rate that keeps them moving."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Annotated, ClassVar, Literal, Self

from pydantic import BeforeValidator, model_validator

from core.errors import FieldProblem
from core.recipe.averaging.base import AveragingSpec, CollectionSteps, late_start
from core.recipe.averaging.swag import SWAG
from core.recipe.component import NonNegative, Positive, cross_field_error, expand_switch
from core.recipe.duration import Duration, RunLength

SwagSwitch = Annotated[SWAG | None, BeforeValidator(expand_switch, json_schema_input_type=bool | SWAG | None)]
EPOCH = Duration(Fraction(1), "ep")
ANNEAL = Duration(Fraction(1, 20), "run")


@dataclass(frozen=True, slots=True)
class SwaPhase:
    """SWA in a given run, in optimizer steps. From step `start` on SWA sets the learning rate.

    A constant tail (`lr_min` is None): a straight line over `anneal` steps from what the schedule would give at `start`
    to `lr`, then `lr`. A cyclic tail: in the i-th step of each `every`, i = 1, 2, …, (1 - i / every) lr + i / every
    lr_min, so that the last step of a cycle, whose weights are collected, is made at lr_min.
    """

    start: int
    anneal: int
    lr: float
    every: int
    lr_min: float | None = None

    @property
    def collection_steps(self) -> CollectionSteps:
        """A constant tail first collects the model at `start`; a cyclic tail collects at the ends of its cycles."""
        if self.lr_min is None:
            return CollectionSteps.starting_at(self.start, self.every)
        return CollectionSteps(self.start + self.every, self.every)

    def override_schedule(self, base: Callable[[int], float]) -> Callable[[int], float]:
        """The learning rate of a run whose schedule is `base`: `base` before `start`, SWA's own from there."""
        return self._constant_tail(base) if self.lr_min is None else self._cyclic_tail(base, self.lr_min)

    def _constant_tail(self, base: Callable[[int], float]) -> Callable[[int], float]:
        at_start = base(self.start)

        def rate(t: int) -> float:
            done = t - self.start
            if done < 0:
                return base(t)
            return self.lr if done >= self.anneal else at_start + (self.lr - at_start) * done / self.anneal

        return rate

    def _cyclic_tail(self, base: Callable[[int], float], lr_min: float) -> Callable[[int], float]:
        def rate(t: int) -> float:
            done = t - self.start
            if done < 0:
                return base(t)
            share = (done % self.every + 1) / self.every
            return (1 - share) * self.lr + share * lr_min

        return rate


class SWA(AveragingSpec):
    """w_swa <- (n w_swa + w) / (n + 1), collected from `start` on. Batch-norm statistics are estimated again for w_swa,
    or, with `update_bn` false, copied from the trained network when w_swa is evaluated.

    The tail has the constant rate `lr` with a collection each `every` (an epoch), or, with `cycle`, a sawtooth rate
    from `lr` down to `lr_min` (a fifth of it) with collections at its minima: `every` is "cycle". A `start` given as a
    share of the run is rounded up to the end of its epoch where `every` or `cycle` is in epochs. The model at `start`
    is the first of a constant tail, as in the reference code: 140 models from epoch 161 to 300. Averaging predictions
    instead of weights is a snapshot ensemble.
    """

    name: ClassVar[str] = "swa"
    field: ClassVar[str] = "swa"
    summary: ClassVar[str] = "Stochastic Weight Averaging: one model whose weights are the mean of many."
    paper: ClassVar[str | None] = "Izmailov et al. 2018, arXiv:1803.05407"

    start: Duration = Duration(Fraction(3, 4), "run")
    lr: Positive | None = None
    anneal: Duration | None = None
    every: Duration | Literal["cycle"] | None = None
    cycle: Duration | None = None
    lr_min: NonNegative | None = None
    update_bn: bool = True
    swag: SwagSwitch = None

    @model_validator(mode="after")
    def one_kind_of_tail(self) -> Self:
        found = tuple(self._contradiction_problems())
        if found:
            raise cross_field_error(*found)
        return self

    def _contradiction_problems(self) -> Iterator[FieldProblem]:
        if self.cycle is None:
            if self.every == "cycle":
                yield FieldProblem("/cycle", "required: the length of the cycles", 'for instance "2ep"')
            if self.lr_min is not None:
                message = "lr_min is the lowest rate of a cyclic tail, and this one is constant"
                yield FieldProblem("/lr_min", message, 'give "cycle" too, or leave lr_min out')
            return
        if self.every not in {None, "cycle"}:
            message = "a cyclic tail is collected where its rate is lowest, at the end of each cycle"
            yield FieldProblem("/every", message, 'leave "every" out, or "cycle" for a constant tail')
        if self.anneal is not None and self.anneal.amount:
            yield FieldProblem("/anneal", "a cyclic tail begins at lr at once", 'leave "anneal" out')

    def resolved(self, optimizer_lr: float) -> Self:
        """The same spec with every default that depends on other fields filled in."""
        lr = self.lr or optimizer_lr / 2
        every = "cycle" if self.cycle else self.every or EPOCH
        anneal = Duration.of_steps(0) if self.cycle else self.anneal or ANNEAL
        return self.model_copy(update={"lr": lr, "every": every, "anneal": anneal, "lr_min": self._lowest_rate(lr)})

    def _lowest_rate(self, lr: float) -> float | None:
        """The rate at the end of a cycle that begins at `lr`, by default a fifth as in FGE; None if constant."""
        if self.cycle is None:
            return None
        return lr / 5 if self.lr_min is None else self.lr_min

    def collection_interval(self) -> tuple[str, Duration]:
        """The field that sets the interval of collections, and the interval."""
        if self.cycle:
            return "cycle", self.cycle
        return "every", self.every if isinstance(self.every, Duration) else EPOCH

    def problems(self, run: RunLength, optimizer_lr: float) -> Iterator[FieldProblem]:
        """Every reason to refuse the spec for a given run; pointers are relative to the spec."""
        field, every = self.collection_interval()
        if every.steps(run) < 1:
            yield FieldProblem(f"/{field}", f"{every} is less than one optimizer step here", "make it longer")
            return
        phase = self.phase_in_run(run, optimizer_lr)
        if phase.lr_min is not None and phase.lr_min >= phase.lr:
            message = f"a cycle falls from lr, {phase.lr:g}, to lr_min, which is not below it"
            yield FieldProblem("/lr_min", message, "make lr_min smaller")
        models = phase.collection_steps.count_until(run.total_steps)
        if models < 1:
            message = f"SWA would collect first at step {phase.collection_steps.first:,}, but the run ends after "
            yield FieldProblem("/start", f"{message}{run.total_steps:,}", 'start earlier, for instance "0.75run"')
        elif self.swag and models < 2:
            message = "a single model has no variance: SWAG needs at least two"
            yield FieldProblem("/swag", message, "collect more often, or start earlier")

    def phase_in_run(self, run: RunLength, optimizer_lr: float) -> SwaPhase:
        """The phase in optimizer steps of a given run."""
        lr, every = self.lr or optimizer_lr / 2, self.collection_interval()[1]
        return SwaPhase(
            start=late_start(self.start, every, run),
            anneal=0 if self.cycle else (self.anneal or ANNEAL).steps(run),
            lr=lr,
            every=every.steps(run),
            lr_min=self._lowest_rate(lr),
        )
