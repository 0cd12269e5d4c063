"""What an entry of the gallery is: a claim, the jobs that check it, and a judge who reads what they measured."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

Curve = tuple[Sequence[float], Sequence[float]]  # steps, values


class Source(Protocol):
    """Where a finished job's curves come from."""

    def curve(self, job: str, series: str) -> Curve:
        """Every measured point of a series."""


@dataclass(frozen=True)
class Trained:
    """One finished job."""

    job: str
    seed: int
    stop_reason: str
    results: Mapping[str, Mapping[str, Mapping[str, float]]]
    source: Source = field(repr=False)

    def curve(self, series: str) -> Curve:
        """(steps, values) of a series, every point."""
        return self.source.curve(self.job, series)

    def values(self, series: str) -> Sequence[float]:
        """The values of a series, in order."""
        return self.curve(series)[1]

    @cached_property
    def epoch_losses(self) -> list[float]:
        """The mean of train.loss over each epoch: the job logs one point an epoch."""
        return list(self.values("train.loss"))

    def result(self, weights: str, split: str, metric: str) -> float:
        """A number of the results."""
        return self.results[weights][split][metric]


Runs = Mapping[str, Sequence[Trained]]  # variant -> one for each seed, in the same order


@dataclass(frozen=True, slots=True)
class Seen:
    """What the jobs showed: in words with numbers, and whether it is what the claim says."""

    words: str
    holds: bool


@dataclass(frozen=True, slots=True)
class Picture:
    """Curves of the first seed's jobs of these variants; `look` goes to the service as it is."""

    variants: tuple[str, ...]
    series: tuple[str, ...] = ()
    look: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Claim:
    """`slug` names the folder of its job files, one for each variant. A robust claim that fails is a bug.

    `text` has three plain sentences; `seeds` of each variant are trained, paired by seed. `also_tried` says what other
    settings showed before these were chosen: a claim that was looked for until it held is worth less, and says so.
    """

    slug: str
    title: str
    text: str
    expected: str
    seeds: int
    robust: bool
    judge: Callable[[Runs], Seen]
    picture: Picture
    also_tried: str = ""


def share(wins: Sequence[bool]) -> str:
    """How many of how many."""
    return f"{sum(wins)}/{len(wins)}"


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def pairs(runs: Runs, *variants: str) -> list[tuple[Trained, ...]]:
    """The jobs of several variants, seed by seed."""
    return list(zip(*(runs[variant] for variant in variants), strict=True))


def first_at_most(values: Sequence[float], bound: float) -> int | None:
    """1-based place of the first value that is at most `bound`."""
    return next((place for place, value in enumerate(values, 1) if value <= bound), None)
