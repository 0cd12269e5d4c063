"""Contour lines on a grid of heights (marching squares), and the choice of their levels."""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

Point = tuple[float, float]
Edge = tuple[int, int, bool]  # column and row of where it begins, and whether it goes up
Ends = tuple[Edge, Edge]

LEVELS = 18


@dataclass(frozen=True, slots=True)
class Grid:
    """`heights[row][column]` at (`xs[column]`, `ys[row]`), both rising."""

    xs: Sequence[float]
    ys: Sequence[float]
    heights: Sequence[Sequence[float]]


@dataclass(frozen=True, slots=True)
class Contour:
    """All contour lines of one level; a closed line ends where it begins."""

    level: float
    lines: tuple[tuple[Point, ...], ...]


def contour_levels(grid: Grid, count: int = LEVELS) -> list[float]:
    """Levels with growing shares of the area below them, close together near the minimum, at any scale of the function.

    The k-th has (k / count)² of the area below it, so that the contours of a quadratic bowl are evenly spaced.
    """
    ordered = sorted(height for row in grid.heights for height in row)
    found = [ordered[int((k / count) ** 2 * len(ordered))] for k in range(1, count)]
    return [level for level in dict.fromkeys(found) if level > ordered[0]]


def trace_contours(grid: Grid, heights: Sequence[float]) -> list[Contour]:
    """The contour lines at each of `heights`, which are in ascending order."""
    crossings: list[list[Ends]] = [[] for _ in heights]
    for column, row in product(range(len(grid.xs) - 1), range(len(grid.ys) - 1)):
        corners = _cell_corners(grid, column, row)
        for place in range(bisect_right(heights, min(corners)), bisect_right(heights, max(corners))):
            crossings[place] += _cell_crossings(corners, column, row, heights[place])
    return [
        Contour(level, tuple(tuple(_point_on_edge(grid, edge, level) for edge in line) for line in _join_edges(found)))
        for level, found in zip(heights, crossings, strict=True)
        if found
    ]


def _cell_corners(grid: Grid, column: int, row: int) -> tuple[float, float, float, float]:
    """The heights of a cell's corners, counter-clockwise from the lower left."""
    lower, upper = grid.heights[row], grid.heights[row + 1]
    return lower[column], lower[column + 1], upper[column + 1], upper[column]


def _cell_crossings(corners: tuple[float, float, float, float], column: int, row: int, level: float) -> list[Ends]:
    """The pairs of a cell's edges that a line at this level joins: none, one pair, or two pairs at a saddle."""
    edges = ((column, row, False), (column + 1, row, True), (column, row + 1, False), (column, row, True))
    above = [corner >= level for corner in corners]
    crossed = [edge for edge, side in zip(edges, range(4), strict=True) if above[side] != above[(side + 1) % 4]]
    if len(crossed) < 4:
        return [(crossed[0], crossed[1])] if crossed else []
    below, right, top, left = crossed
    # The middle belongs to one of the two pairs of corners; the lines go around the other pair.
    joined = (sum(corners) / 4 >= level) == above[0]
    return [(below, right), (top, left)] if joined else [(left, below), (right, top)]


def _join_edges(found: Sequence[Ends]) -> Iterator[list[Edge]]:
    """Maximal chains of edges: those that begin at the border first, then the closed ones."""
    neighbours: dict[Edge, list[Edge]] = defaultdict(list)
    for one, other in found:
        neighbours[one].append(other)
        neighbours[other].append(one)
    for start in sorted(neighbours, key=lambda edge: len(neighbours[edge])):
        line = [start]
        while neighbours[line[-1]]:
            after = neighbours[line[-1]].pop()
            neighbours[after].remove(line[-1])
            line.append(after)
        if len(line) > 1:
            yield line


def _point_on_edge(grid: Grid, edge: Edge, level: float) -> Point:
    """The point of the edge at that level, by linear interpolation."""
    column, row, up = edge
    begin, end = grid.heights[row][column], grid.heights[row + up][column + (not up)]
    share = (level - begin) / (end - begin)
    x, y = grid.xs[column], grid.ys[row]
    return (x, y + share * (grid.ys[row + 1] - y)) if up else (x + share * (grid.xs[column + 1] - x), y)
