"""The base classes of averaging methods: when weights are collected, and how they are averaged."""

from dataclasses import dataclass
from typing import ClassVar

from core.recipe.component import Spec
from core.recipe.duration import Duration, RunLength


class AveragingSpec(Spec):
    """`name` is its name in the catalog, `field` the field of the job that turns it on ("swa.swag": a field of swa)."""

    name: ClassVar[str]
    field: ClassVar[str]
    summary: ClassVar[str]
    paper: ClassVar[str | None] = None


@dataclass(frozen=True, slots=True)
class CollectionSteps:
    """Weights are collected when `first`, `first + every`, … optimizer steps are complete. Both are at least 1."""

    first: int
    every: int

    @classmethod
    def starting_at(cls, start: int, every: int) -> "CollectionSteps":
        """From `start` on, including the weights at `start`; the initial weights of step 0 are not collected."""
        return cls(start or every, every)

    def collects(self, completed: int) -> bool:
        """Whether the weights after `completed` optimizer steps are collected."""
        return completed >= self.first and (completed - self.first) % self.every == 0

    def count_until(self, completed: int) -> int:
        """The number of collections in the first `completed` steps."""
        return 0 if completed < self.first else (completed - self.first) // self.every + 1

    def steps_until(self, completed: int) -> range:
        """The collection steps among the first `completed` steps."""
        return range(self.first, completed + 1, self.every)


def late_start(start: Duration, every: Duration, run: RunLength) -> int:
    """`start` in steps; a share of the run is rounded up to the end of its epoch where `every` is in epochs."""
    steps = start.steps(run)
    if start.unit == "run" and every.unit == "ep":
        epochs = -(-steps // run.steps_per_epoch)
        return min(epochs * run.steps_per_epoch, run.total_steps)
    return steps
