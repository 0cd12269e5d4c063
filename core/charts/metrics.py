"""The curves of jobs as charts: one job with its series in panels by what they measure, or several jobs at once."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from core.db.session import Database
from core.errors import FieldProblem, InvalidRequest
from core.jobs.metrics.chunks import MetricPoints, read_series, series_names
from core.jobs.metrics.comparison import AlignedPoints, ComparedJob, XAxis, align_series, x_values
from core.plot.chart import AxisKind, Band, Chart, Curve, Panel

MOST_PANELS = 8
MOST_POINTS = 100_000  # of all curves together: a picture of some megabytes, drawn in a second
SHOWN_PANELS = 3  # when the request names no series
COLOURS: Mapping[str, int] = {"train": 0, "val": 1, "swa.val": 2, "ema.val": 3, "test": 4, "swa.test": 5, "": 0}
"""The source of a series -> its colour in every picture; other sources get the next free colour."""

MOST: Mapping[str, float] = {"accuracy": 1.0, "r2": 1.0}
"""A measure -> the value that it cannot exceed."""

_FIRST, _LAST = ("loss",), ("lr", "grad_norm", "throughput")
_UNITS = ((172_800.0, 86_400.0, "days"), (7200.0, 3600.0, "hours"), (300.0, 60.0, "minutes"))


@dataclass(frozen=True, slots=True)
class Window:
    """Which part of the curves to draw, how finely, and on which axes."""

    x: XAxis
    y: AxisKind
    max_points: int
    from_: int | None = None
    to: int | None = None


def job_chart(db: Database, subject: ComparedJob, names: Sequence[str] | None, window: Window) -> Chart:
    """Series of one job; those of the same measure share a panel. Without names, those of `_default_series`.

    Raises:
        InvalidRequest: the series have more measures than a picture has panels.
    """
    chosen = _default_series(series_names(db, subject.id)) if names is None else list(dict.fromkeys(names))
    measures = list(dict.fromkeys(_measure_of(name) for name in chosen)) or ["metrics"]
    _check_panel_count(len(measures))
    found = read_series(
        db, subject.id, chosen, from_=window.from_, to=window.to, max_points=_points_per_curve(window, len(chosen))
    )
    colours = _assign_colours(chosen)
    drawn = {name: _build_curve(subject, name, found.get(name), window.x, colours[name]) for name in chosen}
    unit, label = _axis_unit(window.x, list(drawn.values()))
    panels = [
        _build_panel(
            measure, [_scale_curve(drawn[name], unit) for name in chosen if _measure_of(name) == measure], window
        )
        for measure in measures
    ]
    title = subject.name or subject.id
    listed = ", ".join(chosen) or "no series yet"
    return Chart(f"{title}: {listed}", panels, label, title=title, x_whole=window.x == "step")


def jobs_chart(
    db: Database, subjects: Sequence[ComparedJob], names: Sequence[str], window: Window, *, mean: bool
) -> Chart:
    """A panel for each series, a colour for each job; with `mean` the jobs are drawn faint behind their mean.

    Raises:
        InvalidRequest: there are more series than a picture has panels.
    """
    chosen = list(dict.fromkeys(names))
    _check_panel_count(len(chosen))
    labels = unique_labels(subjects)
    drawn: dict[str, list[Curve]] = {name: [] for name in chosen}
    for place, subject in enumerate(subjects):  # one job is in memory at a time
        most = _points_per_curve(window, len(chosen) * len(subjects))
        found = read_series(db, subject.id, chosen, from_=window.from_, to=window.to, max_points=most)
        for name in chosen:
            drawn[name].append(
                _build_curve(subject, labels[subject.id], found.get(name), window.x, place + mean, faint=mean)
            )
    if mean:
        for name in chosen:
            drawn[name].append(
                _mean_curve(align_series(db, subjects, name, x=window.x, max_points=window.max_points), len(subjects))
            )
    unit, label = _axis_unit(window.x, [curve for curves in drawn.values() for curve in curves])
    panels = [_build_panel(name, [_scale_curve(curve, unit) for curve in drawn[name]], window) for name in chosen]
    summary = f"{', '.join(chosen)} of {', '.join(labels.values())}"
    return Chart(summary, panels, label, x_whole=window.x == "step", one_legend=True)


def _points_per_curve(window: Window, curves: int) -> int:
    """The most points of each of `curves` that share a picture."""
    return min(window.max_points, MOST_POINTS // max(1, curves))


def _check_panel_count(panels: int) -> None:
    if panels > MOST_PANELS:
        problem = FieldProblem("/query/series", f"these need {panels} panels; a picture has at most {MOST_PANELS}")
        raise InvalidRequest(errors=(problem,))


def _build_panel(title: str, curves: Sequence[Curve], window: Window) -> Panel:
    return Panel(title, curves, window.y, most=MOST.get(_measure_of(title), math.inf))


def _measure_of(name: str) -> str:
    """val.loss -> loss"""
    return name.rpartition(".")[2]


def _default_series(names: Sequence[str]) -> list[str]:
    """All series of the first SHOWN_PANELS measures: the loss, then metrics, then learning rate and gradient norm."""
    order = (*_FIRST, *sorted({_measure_of(name) for name in names} - {*_FIRST, *_LAST}), *_LAST)
    there = [measure for measure in order if any(_measure_of(name) == measure for name in names)]
    # The learning rate explains most curves, so it is never left out.
    kept = [*there[: SHOWN_PANELS - 1], "lr"] if "lr" in there[SHOWN_PANELS:] else there[:SHOWN_PANELS]
    ranked = sorted(names, key=lambda name: (COLOURS.get(_source_of(name), len(COLOURS)), name))
    return [name for measure in kept for name in ranked if _measure_of(name) == measure]


def _source_of(name: str) -> str:
    """swa.val.loss -> swa.val"""
    return name.rpartition(".")[0]


def _assign_colours(names: Sequence[str]) -> dict[str, int]:
    others = list(dict.fromkeys(_source_of(name) for name in names if _source_of(name) not in COLOURS))
    free = max(COLOURS.values()) + 1
    known = {**COLOURS, **{source: free + place for place, source in enumerate(others)}}
    return {name: known[_source_of(name)] for name in names}


def _build_curve(  # noqa: PLR0913 - what a curve is made of
    subject: ComparedJob, label: str, points: MetricPoints | None, x: XAxis, colour: int, *, faint: bool = False
) -> Curve:
    if points is None:
        return Curve(label, [], [], colour, faint=faint)
    return Curve(label, x_values(subject, points, x), points.values, colour, faint=faint)


def _scale_curve(curve: Curve, unit: float) -> Curve:
    return curve if unit == 1.0 else replace(curve, xs=[x / unit for x in curve.xs])


def _axis_unit(x: XAxis, curves: Sequence[Curve]) -> tuple[float, str]:
    """The unit of the x axis in seconds (or 1), and the axis label: hours are easier to read than 12,000 seconds."""
    if x != "seconds":
        return 1.0, "optimizer step" if x == "step" else "epoch"
    longest = max((curve.xs[-1] for curve in curves if curve.xs), default=0.0)
    found = ((unit, f"{word} since the start") for least, unit, word in _UNITS if longest > least)
    return next(found, (1.0, "seconds since the start"))


def unique_labels(subjects: Sequence[ComparedJob]) -> dict[str, str]:
    """Id -> name; where several jobs have the same name, the end of the id is added."""
    names = [subject.name for subject in subjects]
    return {
        one.id: one.id if one.name is None else one.name if names.count(one.name) == 1 else f"{one.name} …{one.id[-6:]}"
        for one in subjects
    }


def _mean_curve(aligned: AlignedPoints, jobs: int) -> Curve:
    """The mean with its interval, for as long as at least two jobs have values."""
    columns = zip(aligned.x, aligned.mean, aligned.low, aligned.high, strict=True)
    rows = [(x, mean, low, high) for x, mean, low, high in columns if None not in {mean, low, high}]
    xs, means, lows, highs = ([float(row[place] or 0.0) for row in rows] for place in range(4))
    return Curve(f"mean of {jobs} jobs, 95 % interval", xs, means, 0, Band(lows, highs))
