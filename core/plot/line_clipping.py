"""The parts of a line inside a rectangle (Liang & Barsky 1984)."""

from collections.abc import Iterator, Sequence
from itertools import pairwise

Point = tuple[float, float]
Box = tuple[float, float, float, float]  # left, top, right, bottom


def clip_line(line: Sequence[Point], box: Box) -> Iterator[list[Point]]:
    """The parts of `line` within `box`, clipped at its border; a single point inside it is a part too."""
    stretch: list[Point] = []
    if len(line) == 1 and contains_point(line[0], box):
        yield [line[0]]
    for begin, end in pairwise(line):
        cut = _clip_segment(begin, end, box)
        if cut is None:
            continue
        first, last = cut
        if stretch and stretch[-1] == first:
            stretch.append(last)
            continue
        if stretch:
            yield stretch
        stretch = [first, last]
    if stretch:
        yield stretch


def contains_point(point: Point, box: Box) -> bool:
    left, top, right, bottom = box
    return left <= point[0] <= right and top <= point[1] <= bottom


def _clip_segment(begin: Point, end: Point, box: Box) -> tuple[Point, Point] | None:
    left, top, right, bottom = box
    across, down = end[0] - begin[0], end[1] - begin[1]
    enters, leaves = 0.0, 1.0
    for step, room in (
        (-across, begin[0] - left),
        (across, right - begin[0]),
        (-down, begin[1] - top),
        (down, bottom - begin[1]),
    ):
        if step == 0:
            if room < 0:
                return None
        elif step < 0:
            enters = max(enters, room / step)
        else:
            leaves = min(leaves, room / step)
    if enters > leaves:
        return None
    first = begin if enters == 0 else (begin[0] + enters * across, begin[1] + enters * down)
    last = end if leaves == 1 else (begin[0] + leaves * across, begin[1] + leaves * down)
    return first, last
