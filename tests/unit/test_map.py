"""Maps, read back as people read them: contours are where the function has their height, ways where they went."""

import math
from itertools import pairwise

import pytest

from core.plot.chart import Map, PointPath, Style
from core.plot.contour import Grid, Point, contour_levels, trace_contours
from core.plot.draw import draw_picture
from core.plot.line_clipping import clip_line
from core.plot.svg_document import TooLowError
from core.recipe.data import Function
from core.recipe.data.formulas import FORMULAS
from tests.support.pictures import SVG, Picture, points


def evenly(low: float, high: float, count: int) -> list[float]:
    return [low + (high - low) * place / count for place in range(count + 1)]


BOWL = Grid(xs := evenly(-2, 2, 80), ys := evenly(-1, 1, 40), [[math.hypot(x, 2 * y) for x in xs] for y in ys])


def test_a_contour_is_where_the_function_has_its_height() -> None:
    """Ellipses around the origin: one closed line each; the last one leaves the grid and comes in four pieces."""
    found = {one.level: one.lines for one in trace_contours(BOWL, [0.5, 1.0, 1.9, 2.5, 9.0])}
    assert [len(lines) for lines in found.values()] == [1, 1, 1, 4]
    for level, lines in found.items():
        for line in lines:
            assert all(math.hypot(x, 2 * y) == pytest.approx(level, abs=3e-3) for x, y in line)
            assert all(math.dist(*pair) < 0.08 for pair in pairwise(line))
            assert (line[0] == line[-1]) is (level < 2)


def test_rings_of_a_round_bowl_are_evenly_apart() -> None:
    axis = evenly(-1, 1, 200)
    found = contour_levels(Grid(axis, axis, [[x * x + y * y for x in axis] for y in axis]), 10)
    radii = [math.sqrt(level) for level in found]
    # k/10 of the side 2 of a square has the area of a disc of radius 2k / (10 √π), as long as it fits in.
    assert radii[:8] == pytest.approx([2 * k / (10 * math.sqrt(math.pi)) for k in range(1, 9)], rel=0.02)


def test_flat_ground_has_no_lines() -> None:
    flat = Grid([0, 1], [0, 1], [[3.0, 3.0], [3.0, 3.0]])
    assert contour_levels(flat) == []
    assert trace_contours(flat, [3.0, 4.0]) == []


@pytest.mark.parametrize(("middle", "around"), [(0.2, {(0, 0), (1, 1)}), (-0.2, {(1, 0), (0, 1)})])
def test_lines_do_not_cross_at_a_saddle(middle: float, around: set[Point]) -> None:
    """Corners low and high in turn: each line goes around one of the two that the middle does not belong to."""
    high, low = 1 + middle, -1 + middle
    (found,) = trace_contours(Grid([0, 1], [0, 1], [[low, high], [high, low]]), [0.0])
    corners = [(0, 0), (1, 0), (0, 1), (1, 1)]
    assert {min(corners, key=lambda corner: math.dist(corner, mean(line))) for line in found.lines} == around


def mean(line: list[Point]) -> Point:
    return sum(x for x, _ in line) / len(line), sum(y for _, y in line) / len(line)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ([(1, 1), (2, 2)], [[(1, 1), (2, 2)]]),
        ([(-4, 2), (8, 2)], [[(0, 2), (4, 2)]]),
        ([(2, 2), (2, 9), (3, 9), (3, 2)], [[(2, 2), (2, 4)], [(3, 4), (3, 2)]]),
        ([(-1, 3), (1, 5)], [[(0, 4), (0, 4)]]),  # through the corner
        ([(-1, 4), (1, 6)], []),
        ([(9, 9)], []),
        ([(3, 3)], [[(3, 3)]]),
        ([(5, 0), (5, 4)], []),
        ([], []),
    ],
)
def test_lines_end_at_the_border(line: list[Point], expected: list[list[Point]]) -> None:
    assert list(clip_line(line, (0, 0, 4, 4))) == expected


def drawn(found: Map, look: Style | None = None) -> Picture:
    return Picture.of(draw_picture(found, look or Style()))


def paths(picture: Picture, word: str) -> list[list[Point]]:
    return [
        points(part) for one in picture.all("path", word) for part in one.get("d", "").replace("h0", "").split("M")[1:]
    ]


WAY = PointPath("descent", [(1.5, 1.0), (0.5, -0.5), (0.25, 0.25)])
OVAL = Map("a summary", "an oval", lambda x, y: x**2 + 4 * y**2, [(-2, 2), (-1, 1)], [WAY], title="a job")


def test_a_map_can_be_read_back() -> None:
    picture = drawn(OVAL)
    read = picture.reader()
    (line,) = paths(picture, "way")
    assert [read(pixel) for pixel in line] == [pytest.approx(place, abs=0.01) for place in WAY.places]
    (start,), (end,) = (
        [one for one in picture.all("circle", word) if one.get("r") == "5"] for word in ("hollow", "collected")
    )
    for mark, place in ((start, WAY.places[0]), (end, WAY.places[-1])):
        assert read((float(mark.get("cx", "")), float(mark.get("cy", "")))) == pytest.approx(place, abs=0.01)
    rings = picture.all("path", "contour")
    assert len(rings) > 10
    for ring in rings:
        height = float((ring.findtext(f"{SVG}title") or "").removeprefix("f = "))
        for pixel in points((ring.get("d") or "").replace("M", " ").replace("L", " ")):
            x, y = read(pixel)
            assert x**2 + 4 * y**2 == pytest.approx(height, abs=0.06)
    assert {"a job", "an oval", "x", "y", "start", "end"} <= set(picture.texts())


@pytest.mark.parametrize("look", [Style(), Style(width=400), Style(width=1200, height=300), Style(height=900)])
def test_both_axes_have_one_scale(look: Style) -> None:
    """So that steepest descent is at right angles to the lines, whatever the picture's shape."""
    picture = drawn(OVAL, look)
    read = picture.reader()
    (x0, y0), (x1, y1) = read((0, 0)), read((100, 100))
    assert x1 - x0 == pytest.approx(y0 - y1, rel=1e-3)


def test_of_one_number_the_way_lies_on_the_curve() -> None:
    places = [(-1.5,), (1.2,), (-0.9,)]
    picture = drawn(Map("s", "square", lambda x: x**2, [(-2, 2)], [PointPath("a", places)]))
    read = picture.reader()
    (line,), (curve,) = paths(picture, "way"), paths(picture, "ground")
    assert [read(pixel) for pixel in line] == [pytest.approx((x, x**2), abs=0.02) for (x,) in places]
    assert all(read(pixel)[1] == pytest.approx(read(pixel)[0] ** 2, abs=0.02) for pixel in curve)
    assert "f(x)" in picture.texts()


def test_of_many_places_on_a_curve_there_is_no_line() -> None:
    places = [(math.sin(step),) for step in range(2000)]
    picture = drawn(Map("s", "square", lambda x: x**2, [(-2, 2)], [PointPath("a", places)]))
    assert picture.all("path", "way") == []
    assert len(paths(picture, "places")) > 500


def test_several_ways_share_a_map() -> None:
    ways = [PointPath("one", [(0, 0), (1, 1)]), PointPath("two", [(0, 0), (-1, 1), (1, 0.5)], 1)]
    picture = drawn(Map("s", "oval", OVAL.surface, OVAL.window, ways))
    assert {"one", "two", "start", "end"} <= set(picture.texts())
    assert [one.get("class") for one in picture.root.iter(f"{SVG}g")][:4] == ["plain", "plain", "c0", "c1"]
    assert sorted(len(line) for line in paths(picture, "way")) == [2, 3]


def test_what_flies_off_leaves_the_picture_at_its_border() -> None:
    far = PointPath("a", [(0, 0), (0, 9), (1e200, 1e300), (math.inf, 0), (math.nan, math.nan)])
    text = draw_picture(Map("s", "oval", OVAL.surface, OVAL.window, [far]), Style())
    picture = Picture.of(text)
    (line,) = paths(picture, "way")
    assert len(line) == 2
    assert picture.reader()(line[-1])[1] == pytest.approx(1, abs=0.35)
    assert [one for one in picture.all("circle", "collected") if one.get("r") == "5"] == []
    assert "nan" not in text
    assert "inf" not in text
    gone = Map("s", "square", lambda x: x**2, [(-2, 2)], [PointPath("a", [(1.0,), (1e200,)])])
    assert paths(drawn(gone), "places") != []


def test_a_way_that_has_not_begun_is_a_map_all_the_same() -> None:
    picture = drawn(Map("s", "oval", OVAL.surface, OVAL.window, [PointPath("a", [])]))
    assert paths(picture, "way") == []
    assert picture.all("path", "contour") != []


def test_a_height_without_room_says_what_would_do() -> None:
    with pytest.raises(TooLowError) as refused:
        draw_picture(OVAL, Style(height=160))
    assert drawn(OVAL, Style(height=refused.value.least)).root.get("height") == str(refused.value.least)


@pytest.mark.parametrize("name", FORMULAS)
def test_every_function_has_a_picture(name: str) -> None:
    h = (1.0, 30.0) if FORMULAS[name].takes_h else None
    function = Function(function=name, h=h)
    window = function.formula.window * (2 if h else 1)
    found = Map("s", name, function.value_at, window, [PointPath("a", [tuple(low for low, _ in window)])])
    text = draw_picture(found, Style())
    assert text == draw_picture(found, Style())
    assert len(text) < 70_000
    ground = Picture.of(text).all("path", "contour" if len(window) == 2 else "ground")
    assert len(ground) == (17 if len(window) == 2 else 1)
