"""What an entry of the gallery is: a claim, the jobs that check it, and a judge who reads what they measured."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from statistics import fmean
from typing import Protocol

from core.plot.chart import Chart

Curve = tuple[Sequence[float], Sequence[float]]  # steps, values
Table = Sequence[Sequence[str]]
"""Rows of equal length; the first is the heading."""


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
    steps_per_epoch: float = 1.0

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

    def test_loss(self, weights: str = "base") -> float:
        return self.result(weights, "test", "loss")

    def test_accuracy(self, weights: str = "base") -> float:
        return self.result(weights, "test", "accuracy")

    def members(self, metric: str = "loss") -> float:
        """The mean of a test metric over the members of the ensemble."""
        return fmean(found["test"][metric] for name, found in self.results.items() if name.startswith("member_"))


Runs = Mapping[str, Sequence[Trained]]  # variant -> one for each seed, in the same order


@dataclass(frozen=True, slots=True)
class Seen:
    """What the jobs showed: in words with numbers, perhaps a table, and whether it is what the claim says."""

    words: str
    holds: bool
    table: Table = ()


@dataclass(frozen=True, slots=True)
class PathOf:
    """The ways of these variants' points over the function that they descend, drawn by the service."""

    variants: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Claim:
    """`slug` names the folder of its job files, one for each variant. A robust claim that fails is a bug.

    `text` has three plain sentences or a few more; `setting` says what is trained, for those who do not open the job
    files. Every variant is trained with each of `seeds`, paired by seed; a claim with one seed is one without
    randomness. `also_tried` and `tried` say what other settings showed, here or elsewhere, before these were chosen: a
    claim that was looked for until it held is worth less, and says so. `picture` shows the first seed unless `drawn`
    says what else. `jobs_of` is another claim, whose jobs are judged again.
    """

    slug: str
    title: str
    text: str
    setting: str
    expected: str
    seeds: range
    robust: bool
    judge: Callable[[Runs], Seen]
    picture: Callable[[Runs], Chart] | PathOf
    drawn: str = ""
    also_tried: str = "none in this gallery"
    tried: Table = ()
    jobs_of: str = ""

    @property
    def folder(self) -> str:
        """Where its job files are."""
        return self.jobs_of or self.slug


def share(wins: Sequence[bool]) -> str:
    """How many of how many."""
    return f"{sum(wins)}/{len(wins)}"


def by_chance(wins: int, of: int) -> float:
    """The probability of at least so many wins where each is as likely as a loss: a one-sided sign test."""
    return float(sum(math.comb(of, count) for count in range(wins, of + 1)) / 2**of)


def mean(jobs: Sequence[Trained], value: Callable[[Trained], float] = Trained.test_loss) -> float:
    """Over the seeds."""
    return fmean([value(run) for run in jobs])


def pairs(runs: Runs, *variants: str) -> Iterator[tuple[Trained, ...]]:
    """The jobs of several variants, seed by seed."""
    return zip(*(runs[variant] for variant in variants), strict=True)


def first_at_most(values: Sequence[float], bound: float) -> int | None:
    """1-based place of the first value that is at most `bound`."""
    return next((place for place, value in enumerate(values, 1) if value <= bound), None)


def span(values: Sequence[float], form: str = "d") -> str:
    """From the smallest to the largest."""
    low, high = format(min(values), form), format(max(values), form)
    return low if low == high else f"{low}-{high}"
