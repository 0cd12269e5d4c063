"""The curves of jobs as charts: one job with its series in panels by what they measure, or several jobs at once."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from core.db.session import Database
from core.errors import FieldProblem, InvalidRequest
from core.jobs.metrics.chunks import Points, series, series_names
from core.jobs.metrics.comparison import Aligned, Subject, XAxis, along, compare
from core.plot.chart import AxisKind, Band, Chart, Curve, Panel

MOST_PANELS = 8
MOST_POINTS = 100_000  # of all curves together: a picture of some megabytes, drawn in a second
SHOWN_PANELS = 3  # when nobody says which series
COLOURS: Mapping[str, int] = {"train": 0, "val": 1, "swa.val": 2, "ema.val": 3, "test": 4, "swa.test": 5, "": 0}
"""What is measured on keeps its colour from picture to picture; others get the next one that is free."""

MOST: Mapping[str, float] = {"accuracy": 1.0, "r2": 1.0}
"""What a measure cannot exceed."""

_FIRST, _LAST = ("loss",), ("lr", "grad_norm", "throughput")
_UNITS = ((172_800.0, 86_400.0, "days"), (7200.0, 3600.0, "hours"), (300.0, 60.0, "minutes"))


@dataclass(frozen=True, slots=True)
class Cut:
    """Which part of the curves to draw, how finely, and on which axes."""

    x: XAxis
    y: AxisKind
    max_points: int
    from_: int | None = None
    to: int | None = None


def job_chart(db: Database, subject: Subject, names: Sequence[str] | None, cut: Cut) -> Chart:
    """Series of one job; those that measure the same thing share a panel. Without names, the most telling ones.

    Raises:
        InvalidRequest: the series measure more things than a picture has panels.
    """
    chosen = _telling(series_names(db, subject.id)) if names is None else list(dict.fromkeys(names))
    measures = list(dict.fromkeys(_measure(name) for name in chosen)) or ["metrics"]
    _bound(len(measures))
    found = series(db, subject.id, chosen, from_=cut.from_, to=cut.to, max_points=_share(cut, len(chosen)))
    colours = _colours(chosen)
    drawn = {name: _curve(subject, name, found.get(name), cut.x, colours[name]) for name in chosen}
    unit, label = _unit(cut.x, list(drawn.values()))
    panels = [
        _panel(measure, [_scaled(drawn[name], unit) for name in chosen if _measure(name) == measure], cut)
        for measure in measures
    ]
    title = subject.name or subject.id
    told = ", ".join(chosen) or "no series yet"
    return Chart(f"{title}: {told}", panels, label, title=title, x_whole=cut.x == "step")


def jobs_chart(db: Database, subjects: Sequence[Subject], names: Sequence[str], cut: Cut, *, mean: bool) -> Chart:
    """A panel for each series, a colour for each job; with `mean` the jobs step back behind their mean.

    Raises:
        InvalidRequest: there are more series than a picture has panels.
    """
    chosen = list(dict.fromkeys(names))
    _bound(len(chosen))
    labels = told_apart(subjects)
    drawn: dict[str, list[Curve]] = {name: [] for name in chosen}
    for place, subject in enumerate(subjects):  # one job is in memory at a time
        most = _share(cut, len(chosen) * len(subjects))
        found = series(db, subject.id, chosen, from_=cut.from_, to=cut.to, max_points=most)
        for name in chosen:
            drawn[name].append(_curve(subject, labels[subject.id], found.get(name), cut.x, place + mean, faint=mean))
    if mean:
        for name in chosen:
            drawn[name].append(_mean(compare(db, subjects, name, x=cut.x, max_points=cut.max_points), len(subjects)))
    unit, label = _unit(cut.x, [curve for curves in drawn.values() for curve in curves])
    panels = [_panel(name, [_scaled(curve, unit) for curve in drawn[name]], cut) for name in chosen]
    summary = f"{', '.join(chosen)} of {', '.join(labels.values())}"
    return Chart(summary, panels, label, x_whole=cut.x == "step", one_legend=True)


def _share(cut: Cut, curves: int) -> int:
    """How many points one of so many curves may have."""
    return min(cut.max_points, MOST_POINTS // max(1, curves))


def _bound(panels: int) -> None:
    if panels > MOST_PANELS:
        problem = FieldProblem("/query/series", f"these need {panels} panels; a picture has at most {MOST_PANELS}")
        raise InvalidRequest(errors=(problem,))


def _panel(title: str, curves: Sequence[Curve], cut: Cut) -> Panel:
    return Panel(title, curves, cut.y, most=MOST.get(_measure(title), math.inf))


def _measure(name: str) -> str:
    """val.loss -> loss"""
    return name.rpartition(".")[2]


def _telling(names: Sequence[str]) -> list[str]:
    """All series of the first few measures: the loss, then qualities, then how it was trained."""
    order = (*_FIRST, *sorted({_measure(name) for name in names} - {*_FIRST, *_LAST}), *_LAST)
    there = [measure for measure in order if any(_measure(name) == measure for name in names)]
    # The rate explains most curves, so it is the last one to go.
    kept = [*there[: SHOWN_PANELS - 1], "lr"] if "lr" in there[SHOWN_PANELS:] else there[:SHOWN_PANELS]
    ranked = sorted(names, key=lambda name: (COLOURS.get(_source(name), len(COLOURS)), name))
    return [name for measure in kept for name in ranked if _measure(name) == measure]


def _source(name: str) -> str:
    """swa.val.loss -> swa.val"""
    return name.rpartition(".")[0]


def _colours(names: Sequence[str]) -> dict[str, int]:
    others = list(dict.fromkeys(_source(name) for name in names if _source(name) not in COLOURS))
    free = max(COLOURS.values()) + 1
    known = {**COLOURS, **{source: free + place for place, source in enumerate(others)}}
    return {name: known[_source(name)] for name in names}


def _curve(  # noqa: PLR0913 - what a curve is made of
    subject: Subject, label: str, points: Points | None, x: XAxis, colour: int, *, faint: bool = False
) -> Curve:
    if points is None:
        return Curve(label, [], [], colour, faint=faint)
    return Curve(label, along(subject, points, x), points.values, colour, faint=faint)


def _scaled(curve: Curve, unit: float) -> Curve:
    return curve if unit == 1.0 else replace(curve, xs=[x / unit for x in curve.xs])


def _unit(x: XAxis, curves: Sequence[Curve]) -> tuple[float, str]:
    """What the x axis is divided by, and what it is called: hours are easier to read than 12,000 seconds."""
    if x != "seconds":
        return 1.0, "optimizer step" if x == "step" else "epoch"
    longest = max((curve.xs[-1] for curve in curves if curve.xs), default=0.0)
    found = ((unit, f"{word} since the start") for least, unit, word in _UNITS if longest > least)
    return next(found, (1.0, "seconds since the start"))


def told_apart(subjects: Sequence[Subject]) -> dict[str, str]:
    """Id -> name; jobs of one name get the end of their ids too."""
    names = [subject.name for subject in subjects]
    return {
        one.id: one.id if one.name is None else one.name if names.count(one.name) == 1 else f"{one.name} …{one.id[-6:]}"
        for one in subjects
    }


def _mean(aligned: Aligned, jobs: int) -> Curve:
    """The mean with its interval, as far as at least two jobs go on."""
    columns = zip(aligned.x, aligned.mean, aligned.low, aligned.high, strict=True)
    rows = [(x, mean, low, high) for x, mean, low, high in columns if None not in {mean, low, high}]
    xs, means, lows, highs = ([float(row[place] or 0.0) for row in rows] for place in range(4))
    return Curve(f"mean of {jobs} jobs, 95 % interval", xs, means, 0, Band(lows, highs))
