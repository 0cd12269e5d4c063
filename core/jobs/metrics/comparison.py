"""Several jobs side by side: their series on one x axis, the mean, and its 95 % confidence interval."""

import math
from array import array
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from statistics import fmean, stdev
from typing import Any, Final, Literal

from sqlalchemy import select

from core.db.session import Database
from core.db.tables import job
from core.errors import FieldProblem, InvalidRequest, NotFound, UnreadableSpec
from core.jobs.kinds import TRAIN
from core.jobs.metrics.chunks import MetricColumns, MetricPoints, read_columns
from core.jobs.metrics.downsampling import downsample_values
from core.recipe.spec import JobSpec

MOST_JOBS: Final = 20
_SQUARED: Final = 1e150  # above this a square is too large for a float
XAxis = Literal["step", "epoch", "seconds"]

# fmt: off
T_975: Final = (
    12.706204736432095, 4.302652729911275, 3.182446305284263, 2.776445105197799, 2.570581835636314,
    2.446911848791681, 2.364624251592785, 2.306004135204166, 2.262157162740992, 2.228138851964939,
    2.200985160082949, 2.178812829663418, 2.160368656461013, 2.144786687916927, 2.131449545559323,
    2.119905299221011, 2.109815577833181, 2.100922040240960, 2.093024054408263,
)
# fmt: on
"""The 97.5 % point of Student's t with 1, 2, … 19 degrees of freedom, those of 2 to 20 jobs."""


@dataclass(frozen=True, slots=True)
class ComparedJob:
    """What a comparison needs of a job; `began` is when it started first, in unix seconds."""

    id: str
    name: str | None
    spec: JobSpec
    steps_per_epoch: int
    began: float


@dataclass(frozen=True, slots=True)
class AlignedPoints:
    """One series of several jobs. Lists are as long as `x`; None where a job has no value.

    `mean`, `low` and `high` (the 95 % interval of the mean) are None where fewer than two jobs have a value.
    """

    series: str
    x: list[float]
    values: dict[str, list[float | None]]
    count: list[int]
    mean: list[float | None]
    low: list[float | None]
    high: list[float | None]
    interpolated: bool


def load_compared_jobs(db: Database, project: str, ids: Sequence[str]) -> list[ComparedJob]:
    """The jobs with these ids, in this order, each once.

    Raises:
        NotFound: one of them is no job of this project.
        InvalidRequest: this release cannot read one of them.
    """
    wanted = list(dict.fromkeys(ids))
    query = select(job.c.id, job.c.name, job.c.spec, job.c.started_at, job.c.created_at)
    with db.read() as connection:
        rows = connection.execute(query.where(job.c.project == project, job.c.id.in_(wanted))).all()
    found = {row.id: row for row in rows}
    if missing := [one for one in wanted if one not in found]:
        raise NotFound(f"There is no job with the id {missing[0][:40]!a}.")
    return [_as_compared_job(found[one]) for one in wanted]


def x_values(subject: ComparedJob, points: MetricPoints | MetricColumns, x: XAxis) -> "array[float]":
    """The points' coordinates on an x axis: optimizer steps, epochs, or seconds since the job started."""
    if x == "seconds":
        # Clocks of workers differ a little: seconds begin at 0 and never run backwards.
        return array("d", accumulate((max(0.0, time - subject.began) for time in points.times), max))
    unit = subject.steps_per_epoch if x == "epoch" else 1
    return array("d", (step / unit for step in points.steps))


def align_series(db: Database, jobs: Sequence[ComparedJob], series: str, *, x: XAxis, max_points: int) -> AlignedPoints:
    """One series of several jobs on a common grid of x values, at each of which some job has a point.

    Where a job has no point, its value is interpolated linearly between its neighbours; before its first and after its
    last point it has none. If the grid is downsampled, each job's extremes are kept. One job is in memory at a time.
    """
    places: set[float] = set()
    for one in jobs:
        xs, ys = _read_curve(db, one, series, x)
        places.update(xs[index] for index in downsample_values(ys, max(2, max_points // len(jobs))))
    grid = sorted(places)
    values: dict[str, list[float | None]] = {}
    interpolated = False
    for one in jobs:
        xs, ys = _read_curve(db, one, series, x)
        values[one.id], own = _interpolate_at(xs, ys, grid)
        interpolated = interpolated or not own
    rows = [_summarise_values([curve[i] for curve in values.values()]) for i in range(len(grid))]
    count, mean, low, high = (list(column) for column in zip(*rows, strict=True)) if rows else ([], [], [], [])
    return AlignedPoints(series, grid, values, count, mean, low, high, interpolated)


def _as_compared_job(row: Any) -> ComparedJob:
    try:
        spec = TRAIN.read_spec(row.spec)
    except UnreadableSpec as error:
        raise InvalidRequest(errors=(FieldProblem("/query/jobs", f"{row.id}: {error.message}"),)) from error
    began = row.created_at if row.started_at is None else row.started_at
    return ComparedJob(row.id, row.name, spec, spec.shape().run.steps_per_epoch, began)


def _read_curve(db: Database, one: ComparedJob, series: str, x: XAxis) -> "tuple[array[float], array[float]]":
    points = read_columns(db, one.id, [series]).get(series)
    return (array("d"), array("d")) if points is None else (x_values(one, points, x), points.values)


def _interpolate_at(xs: "array[float]", ys: "array[float]", grid: Sequence[float]) -> tuple[list[float | None], bool]:
    """The curve at the x values of the grid, and whether each value was measured."""
    found: list[float | None] = []
    measured = True
    for place in grid:
        right = bisect_left(xs, place)
        if right < len(xs) and xs[right] == place:
            found.append(ys[right])
        elif 0 < right < len(xs):
            share = (place - xs[right - 1]) / (xs[right] - xs[right - 1])
            found.append(ys[right - 1] * (1 - share) + ys[right] * share)
            measured = False
        else:
            found.append(None)
    return found, measured


def _summarise_values(values: Sequence[float | None]) -> tuple[int, float | None, float | None, float | None]:
    """How many jobs have a value, their mean, and its 95 % interval. A job that diverged makes the mean NaN: without it
    the mean would be biased towards the runs that converged.
    """
    known = [value for value in values if value is not None]
    if len(known) < 2:
        return len(known), None, None, None
    if not all(math.isfinite(value) for value in known):
        return len(known), math.nan, math.nan, math.nan
    largest = max(map(abs, known))
    unit = largest if largest > _SQUARED else 1.0
    mean = unit * fmean([value / unit for value in known])
    half = unit * T_975[len(known) - 2] * stdev([value / unit for value in known]) / math.sqrt(len(known))
    return len(known), mean, mean - half, mean + half
