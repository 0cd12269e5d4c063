"""Stochastic Weight Averaging: the running mean of weights that a run visits late, at a rate that keeps it moving."""

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar, Self

from core.recipe.averaging.base import AveragingSpec
from core.recipe.component import Positive
from core.recipe.duration import Duration, RunLength


@dataclass(frozen=True, slots=True)
class SwaPhase:
    """SWA in a given run, in optimizer steps.

    From step `start` SWA owns the learning rate: a straight line over `anneal` steps from what the schedule would give
    at `start` to `lr`, then `lr`. Models are collected when `start`, `start + every`, … steps are complete.
    """

    start: int
    anneal: int
    lr: float
    every: int

    def collects(self, completed: int) -> bool:
        """Whether the weights after `completed` optimizer steps go into the average."""
        return completed >= max(1, self.start) and (completed - self.start) % self.every == 0

    def models(self, completed: int) -> int:
        """How many models the average holds after `completed` steps."""
        if completed < self.start:
            return 0
        return (completed - self.start) // self.every + (self.start > 0)

    def over(self, base: Callable[[int], float]) -> Callable[[int], float]:
        """The learning rate of a run whose schedule is `base`: `base` before `start`, SWA's own from there."""
        at_start = base(self.start)

        def rate(t: int) -> float:
            done = t - self.start
            if done < 0:
                return base(t)
            return self.lr if done >= self.anneal else at_start + (self.lr - at_start) * done / self.anneal

        return rate


class SWA(AveragingSpec):
    """w_swa <- (n w_swa + w) / (n + 1), collected from `start` on; batch-norm statistics are estimated again for w_swa.

    A `start` given as a share of the run moves up to the end of its epoch when `every` counts epochs, so that models
    are collected at the ends of epochs. The model that stands at `start` is the first (the reference code counts so:
    140 models from epoch 161 to 300). What the essay calls SWA, averaging predictions, is a snapshot ensemble.
    """

    name: ClassVar[str] = "swa"
    summary: ClassVar[str] = "Stochastic Weight Averaging: one model whose weights are the mean of many."
    paper: ClassVar[str | None] = "Izmailov et al. 2018, arXiv:1803.05407"

    start: Duration = Duration(Fraction(3, 4), "run")
    lr: Positive | None = None
    anneal: Duration = Duration(Fraction(1, 20), "run")
    every: Duration = Duration(Fraction(1), "ep")

    def resolved(self, optimizer_lr: float) -> Self:
        """With `lr` filled in: half the optimizer's."""
        return self if self.lr is not None else self.model_copy(update={"lr": optimizer_lr / 2})

    def phase(self, run: RunLength, optimizer_lr: float) -> SwaPhase:
        """The phase in optimizer steps of a given run."""
        every = self.every.steps(run)
        start = self.start.steps(run)
        if self.start.unit == "run" and self.every.unit == "ep":
            epochs = -(-start // run.steps_per_epoch)
            start = min(epochs * run.steps_per_epoch, run.total_steps)
        lr = self.lr if self.lr is not None else optimizer_lr / 2
        return SwaPhase(start=start, anneal=self.anneal.steps(run), lr=lr, every=every)
