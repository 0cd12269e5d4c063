"""The paths of jobs that train the model "point", over the function that they minimise."""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence

from core.charts.metrics import unique_labels
from core.db.session import Database
from core.errors import FieldProblem, InvalidRequest
from core.jobs.metrics.chunks import read_columns
from core.jobs.metrics.comparison import ComparedJob
from core.plot.chart import Map, PointPath
from core.recipe.data import Function
from core.recipe.models.point import Point

MOST_PLACES = 4000  # of all paths together; longer paths are thinned evenly
MARGIN = 0.04  # of what is shown, on either side
FARTHEST = 4.0  # times the window: how far a diverging path is followed
Place = tuple[float, ...]
Window = list[tuple[float, float]]
Steps = tuple[int | None, int | None]  # the first and the last one, both included


def path_map(db: Database, subjects: Sequence[ComparedJob], *, from_: int | None = None, to: int | None = None) -> Map:
    """The places of every job from step `from_` to step `to`, both included; a colour for each job.

    Raises:
        InvalidRequest: a job trains another model, the function has more than two dimensions, or the functions differ.
    """
    function = _common_function(subjects)
    names = unique_labels(subjects)
    visited = [_read_places(db, one, (from_, to), MOST_PLACES // len(subjects)) for one in subjects]
    starts = [one.spec.model.start for one in subjects if isinstance(one.spec.model, Point)]
    given = f", h = {', '.join(f'{each:g}' for each in function.h)}" if function.h else ""
    what = f"{function.function}: f = {function.formula.text}{given}"
    return Map(
        summary=f"{', '.join(names.values())}: the way over {what}",
        heading=what,
        surface=function.value_at,
        window=_visible_window(function, starts, visited),
        ways=[PointPath(names[one.id], visited[place], place) for place, one in enumerate(subjects)],
        title=names[subjects[0].id] if len(subjects) == 1 else None,
    )


def _common_function(subjects: Sequence[ComparedJob]) -> Function:
    found: list[Function] = []
    for one in subjects:
        data = one.spec.data
        if not isinstance(data, Function):
            hint = 'leave "kind" out to draw its curves; a path needs the model "point"'
            raise _refuse_request(
                "/query/kind", f"{one.name or one.id} trains {one.spec.model.name}, not a point", hint
            )
        found.append(data)
    first = found[0]
    if first.dimension > 2:
        message = f"a picture has room for two dimensions, and this function has {first.dimension}"
        raise _refuse_request("/query/kind", message, "draw the series point.0, point.1, … instead")
    if any((each.function, each.h) != (first.function, first.h) for each in found):
        raise _refuse_request("/query/jobs", "these jobs descend different functions", "draw each on its own")
    return first


def _refuse_request(pointer: str, message: str, hint: str) -> InvalidRequest:
    return InvalidRequest(errors=(FieldProblem(pointer, message, hint),))


def _read_places(db: Database, one: ComparedJob, limits: Steps, most: int) -> list[Place]:
    """At most `most` places, evenly spaced, with both ends."""
    names = [f"point.{name}" for name in one.spec.model.coordinate_names]
    found = read_columns(db, one.id, names, from_=limits[0], to=limits[1])
    if len(found) < len(names):
        return []
    axes = [found[name].values for name in names]  # the coordinates of a step are always written together
    steps = found[names[0]].steps
    first = 0 if limits[0] is None else bisect_left(steps, limits[0])
    count = (len(steps) if limits[1] is None else bisect_right(steps, limits[1])) - first
    kept = range(count) if count <= most else [number * (count - 1) // (most - 1) for number in range(most)]
    return [tuple(axis[first + index] for axis in axes) for index in kept]


def _visible_window(function: Function, starts: Sequence[Place], ways: Sequence[list[Place]]) -> Window:
    """The range of each axis: the function's own window, the starts, and the paths except where they diverge."""
    formula = function.formula
    own = formula.window * (function.dimension if formula.takes_h else 1)
    seen = [[*stretch, *(start[axis] for start in starts)] for axis, stretch in enumerate(own)]
    return [
        _wide_enough(min(each), max(each), [place[axis] for way in ways for place in way])
        for axis, each in enumerate(seen)
    ]


def _wide_enough(low: float, high: float, visited: Sequence[float]) -> tuple[float, float]:
    reach = FARTHEST * (high - low)
    near = [low, high, *(each for each in visited if low - reach <= each <= high + reach)]
    air = MARGIN * (max(near) - min(near))
    return min(near) - air, max(near) + air
