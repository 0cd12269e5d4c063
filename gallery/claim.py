"""The entries of the gallery: a claim, the jobs and analyses that check it, and a function that evaluates them."""

import io
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from statistics import fmean
from typing import Any, Protocol

import numpy as np

from core.plot.chart import Chart

Curve = tuple[Sequence[float], Sequence[float]]  # steps, values
Table = Sequence[Sequence[str]]
"""Rows of equal length; the first is the heading."""


Request = Mapping[str, Any]
"""The body of a POST /v1/analyses."""


class Source(Protocol):
    """Access to the curves and checkpoints of a finished job, and to the files of an analysis."""

    def curve(self, job: str, series: str) -> Curve:
        """Every measured point of a series."""

    def kept(self, job: str, kind: str) -> Sequence[str]:
        """The checkpoints of a kind, oldest first."""

    def file(self, analysis: str, name: str) -> bytes:
        """One of its pictures, or result.npz."""


@dataclass(frozen=True)
class Found:
    """One finished analysis."""

    analysis: str
    numbers: Mapping[str, Any]
    source: Source = field(repr=False)

    def picture(self, name: str) -> str:
        """One of its pictures, as SVG."""
        return self.source.file(self.analysis, f"{name}.svg").decode()

    @cached_property
    def arrays(self) -> Mapping[str, Any]:
        """The raw arrays by name."""
        with np.load(io.BytesIO(self.source.file(self.analysis, "result.npz"))) as stored:
            return dict(stored)

    def measure(self, name: str) -> list[float]:
        """One measure of a sharpness analysis, for each of the weights in the order of the request."""
        return [row["value"] for row in self.numbers["measures"][name]["rows"]]


@dataclass(frozen=True)
class Trained:
    """One finished job, and the results of its analyses, by the names of the looks."""

    job: str
    seed: int
    stop_reason: str
    results: Mapping[str, Mapping[str, Mapping[str, float]]]
    source: Source = field(repr=False)
    steps_per_epoch: float = 1.0
    found: Mapping[str, Found] = field(default_factory=dict)

    def curve(self, series: str) -> Curve:
        """(steps, values) of a series, every point."""
        return self.source.curve(self.job, series)

    def kept(self, kind: str) -> Sequence[str]:
        """Its checkpoints of a kind, oldest first."""
        return self.source.kept(self.job, kind)

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
    """The outcome of a claim: words with numbers, perhaps a table, and whether the claim holds."""

    words: str
    holds: bool
    table: Table = ()


@dataclass(frozen=True, slots=True)
class PathOf:
    """The paths of these variants over the function that they descend, drawn by the service."""

    variants: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PicturesOf:
    """The picture `picture` of the analysis `look`, of the first seed's job of each variant, drawn by the service."""

    look: str
    picture: str
    variants: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Look:
    """An analysis that an entry requests once its jobs are done. `ask` yields the job that it belongs to, and the body.

    Each look can read the results of those before it. A look at several jobs belongs to the first of them.
    """

    name: str
    ask: Callable[[Runs], Iterator[tuple[Trained, Request]]]


@dataclass(frozen=True, slots=True)
class Claim:
    """`slug` names the folder of its job files, one for each variant. A robust claim that fails is a bug.

    `text` has three plain sentences or a few more; `setting` is what is trained, for readers who do not open the job
    files. Every variant is trained with each of `seeds`, paired by seed; a claim with one seed has no randomness.
    `also_tried` and `tried` are the results of other settings, here or elsewhere, before these were chosen: a claim
    whose settings were searched until it held is weaker evidence, and has to state it. `picture` shows the first seed
    unless `drawn` names another. `jobs_of` is another claim, whose jobs are evaluated again. `looks` are the analyses
    of these jobs, which every claim about them can read.
    """

    slug: str
    title: str
    text: str
    setting: str
    expected: str
    seeds: range
    robust: bool
    judge: Callable[[Runs], Seen]
    picture: Callable[[Runs], Chart] | PathOf | PicturesOf
    drawn: str = ""
    also_tried: str = "none in this gallery"
    tried: Table = ()
    jobs_of: str = ""
    looks: tuple[Look, ...] = ()

    @property
    def folder(self) -> str:
        """The folder of its job files."""
        return self.jobs_of or self.slug

    def pictures(self) -> list[str]:
        """The names of its picture's files: one, or one for each variant of several."""
        if isinstance(self.picture, PicturesOf) and len(self.picture.variants) > 1:
            return [f"{self.slug}-{variant}" for variant in self.picture.variants]
        return [self.slug]


def share(wins: Sequence[bool]) -> str:
    """The number of wins out of all, as in `3/8`."""
    return f"{sum(wins)}/{len(wins)}"


def by_chance(wins: int, of: int) -> float:
    """The probability of at least `wins` wins where each is as likely as a loss: a one-sided sign test."""
    return float(sum(math.comb(of, count) for count in range(wins, of + 1)) / 2**of)


def mean(jobs: Sequence[Trained], value: Callable[[Trained], float] = Trained.test_loss) -> float:
    """The mean over the seeds."""
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
