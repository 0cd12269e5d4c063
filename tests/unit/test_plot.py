"""Pictures, read back as people read them: by their ticks."""

import math
from itertools import combinations
from xml.etree import ElementTree as ET

import pytest

from core.plot.chart import Band, Chart, Curve, Dots, Level, Panel, Rule, ShadedSpan, Style
from core.plot.draw import draw_picture
from core.plot.scale import Scale, is_log, x_range, y_range
from core.plot.style import COLOURS, style_sheet
from core.plot.svg_document import TooLowError
from tests.support.pictures import SVG, Picture, points


def chart(*curves: Curve, **changes: object) -> Chart:
    panel = Panel("loss", curves, **changes)  # type: ignore[arg-type]
    return Chart("a summary", [panel], "optimizer step", x_whole=True)


def drawn(found: Chart, look: Style | None = None) -> Picture:
    return Picture.of(draw_picture(found, look or Style()))


def test_a_known_point_lands_on_its_pixel() -> None:
    """One panel without a title: 16 + 20 + 10 pixels above, 260 high; the axis ends 24 pixels from the right."""
    picture = drawn(chart(Curve("val.loss", [0, 500, 1000], [0.0, 1.0, 2.0])))
    left = 16 + math.ceil(3 * 12 * 0.63 - 12 * 0.23) + 8  # room for the label "0.0": two digits and a narrow point
    ((first, middle, last),) = picture.lines("val.loss")
    assert first == (left, 306.0)
    assert last == (736.0, round(306 - 260 / 1.05, 2))  # 5 % of air above
    assert middle == pytest.approx(((left + 736) / 2, 306 - 130 / 1.05), abs=0.01)
    assert (picture.root.get("width"), picture.root.get("height")) == ("760", "352")


def test_every_point_can_be_read_back() -> None:
    xs = list(range(0, 1000, 37))
    ys = [math.sin(x / 100) for x in xs]
    picture = drawn(chart(Curve("a", xs, ys)), Style(width=1234, height=777))
    (line,) = picture.lines("a")
    read = picture.reader()
    for pixel, x, y in zip(line, xs, ys, strict=True):
        assert read(pixel) == (pytest.approx(x, abs=1), pytest.approx(y, abs=0.005))


def test_a_logarithmic_axis_can_be_read_back() -> None:
    xs, ys = [0, 100, 200, 300, 400], [3.0, 0.3, 0.02, 0.004, 0.003]
    picture = drawn(chart(Curve("a", xs, ys)))
    assert [label for label, _ in picture.ticks("y")] == [0.01, 0.1, 1.0]
    read = picture.reader(log=True)
    assert [read(pixel)[1] for pixel in picture.lines("a")[0]] == pytest.approx(ys, rel=0.01)
    assert next(label for label, _ in drawn(chart(Curve("a", xs, ys), y="linear")).ticks("y")) == 0.0


@pytest.mark.parametrize(
    ("values", "logarithmic"),
    [
        ([1.0, 0.5, 0.02, 0.005], True),
        ([1.0, 0.5, 0.02, 0.01], False),  # two decades are not more than two
        ([1.0, 0.5, 0.02, 0.0], False),
        ([1.0, 0.5, 0.02, -0.005], False),
        ([(1 + math.cos(math.pi * t / 1000)) / 20 for t in range(1000)], False),  # only its end is small
        ([1 - t / 1000 for t in range(1000)], False),
        ([0.1 * 0.5 ** (t / 10) for t in range(100)], True),
        ([0.9, *[0.8] * 50, 0.001], False),
        ([], False),
    ],
)
def test_an_axis_is_logarithmic_where_the_data_ask_for_it(values: list[float], logarithmic: bool) -> None:
    assert is_log(values, "auto") is logarithmic
    assert is_log(values, "linear") is False
    assert is_log(values, "log") is any(value > 0 for value in values)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.04, 2.0], (0.0, 2.1)),  # zero is near
        ([1.0, 2.0], (0.95, 2.05)),
        ([-2.0, -0.1], (-2.1, 0.0)),
        ([-1.0, 1.0], (-1.1, 1.1)),
        ([3.0], (2.7, 3.3)),
        ([0.0, 0.0], (0.0, 1.0)),
        ([], (0.0, 1.0)),
        ([5e-324, 1e-320], (0.0, 1.0)),
        ([-1e300, 1e300], (-1.1e300, 1.1e300)),
    ],
)
def test_what_a_y_axis_shows(values: list[float], expected: tuple[float, float]) -> None:
    assert y_range(values, log=False) == pytest.approx(expected)


def test_what_other_axes_show() -> None:
    assert x_range([40, 1200]) == (0, 1200)
    assert x_range([900, 1200]) == (900, 1200)
    assert x_range([0]) == (0, 1)
    assert y_range([0.01, 100.0, -1.0], log=True) == pytest.approx((0.01 / 10**0.16, 100 * 10**0.16))
    assert y_range([-1.0], log=True) == (0.1, 1.0)
    assert Scale(1, 100, 200, 0, log=True)(10) == pytest.approx(100)


def test_what_cannot_be_drawn_leaves_a_gap_and_a_mark() -> None:
    nan, inf = math.nan, math.inf
    ys = [1, 2, nan, nan, 3, inf, 2, 1, -inf, 1, 2]
    picture = drawn(chart(Curve("a", range(11), ys), Curve("b", [0], [2.0]), y="linear"))
    assert [len(line) for line in picture.lines("a")] == [2, 2, 2]
    read = picture.reader()
    assert [round(read(dot)[0]) for dot in picture.dots("a")] == [4]  # a point alone
    assert [round(read(dot)[1], 1) for dot in picture.dots("b")] == [2.0]
    titles = [one.text for one in picture.group("a").iter(f"{SVG}title")]
    assert titles[1:] == ["a is NaN from 2 to 3", "a is infinite at 5", "a is -infinite at 8"]
    assert len(picture.all("path", "gap")) == 1
    up, down = (float((one.get("d") or "").split()[1].partition("H")[0]) for one in picture.all("path", "beyond"))
    assert up < 46 + 15 < 306 - 15 < down


def test_a_logarithmic_axis_marks_what_is_not_positive() -> None:
    picture = drawn(chart(Curve("a", range(4), [1.0, 0.0, -1.0, 10.0]), y="log"))
    titles = [one.text for one in picture.group("a").iter(f"{SVG}title")]
    assert titles[1:] == ["a is too small for this axis from 1 to 2"]
    assert drawn(chart(Curve("a", [1], [-1.0]), y="log")).dots("a") != []  # nothing positive: linear after all


EXTREME = [[math.nan] * 3, [math.inf, -math.inf], [1e308, -1e308], [5e-324, 1.0], [0.0], [1.0, 1.0 + 1e-15], []]


@pytest.mark.parametrize("ys", EXTREME)
@pytest.mark.parametrize("kind", ["auto", "linear", "log"])
def test_no_data_break_a_picture(ys: list[float], kind: str) -> None:
    picture = drawn(chart(Curve("a", range(len(ys)), ys), y=kind), Style(width=320, height=160))
    for one in picture.root.iter():
        for name, text in one.attrib.items():
            if name not in {"class", "aria-label"}:
                assert "nan" not in text.lower()
                assert "inf" not in text.lower()
    assert ("no points yet" in picture.texts()) == (not ys)


NASTY = "<script>alert(1)</script>&\"'\u202e\x00\x1b]]>\ud800 שלום"


ELEMENTS = {"svg", "title", "style", "rect", "text", "g", "path", "circle"}


def test_text_is_text() -> None:
    panel = Panel(NASTY, [Curve(NASTY, [1], [math.nan]), Curve("b", [], [])], rules=[Rule(0.5, NASTY)])
    text = draw_picture(Chart(NASTY, [panel], NASTY, title=NASTY), Style(width=4000))
    assert text.encode()
    root = ET.fromstring(text)  # noqa: S314 - our own text
    clean = "<script>alert(1)</script>&\"'\ufffd\ufffd\ufffd]]>\ufffd שלום"
    assert root.get("aria-label") == clean
    assert [one.text for one in root.iter(f"{SVG}text")].count(clean) == 4  # title, heading, rule, x axis
    assert f"{clean[:-2]}…" in [one.text for one in root.iter(f"{SVG}text")]  # the legend has less room
    assert {one.tag.removeprefix(SVG) for one in root.iter()} <= ELEMENTS
    assert not any(name.startswith("on") or name in {"style", "href"} for one in root.iter() for name in one.attrib)


def test_a_legend_covers_no_curve_and_stays_inside() -> None:
    many = [Curve(f"digits-adam-{'x' * number}", [0, 9], [0, number], number) for number in range(20)]
    for width in (320, 500, 760, 2000):
        picture = drawn(chart(*many), Style(width=width))
        entries = [one for one in picture.root.iter(f"{SVG}text") if (one.text or "").startswith("digits-adam")]
        assert len(entries) == 20
        top = min(float(one.get("d", "").split()[1].partition("V")[0]) for one in picture.all("path", "axis"))
        assert max(float(one.get("y", "")) for one in entries) < top
        places = {(one.get("x"), one.get("y")) for one in entries}
        assert len(places) == 20
        assert max(float(one.get("x", "")) for one in entries) < width - 30


def test_curves_beyond_the_palette_get_other_dashes() -> None:
    picture = drawn(chart(*(Curve(str(number), [0, 1], [0, 1], number) for number in range(21))))
    looks = set()
    for number in range(21):
        group = picture.group(str(number))
        looks.add((group.get("class"), group.findall(f"{SVG}path")[0].get("stroke-dasharray")))
    assert len(looks) == 21


def test_marks_of_a_schedule() -> None:
    panel = Panel(
        "learning rate",
        [Curve("cosine", [0, 100], [1.0, 0.0])],
        spans=[ShadedSpan(0, 10, "warm-up")],
        rules=[Rule(75, "SWA starts")],
        dots=[Dots("collected", [80, 90, 90.1], [0.2, 0.1, 0.099])],
    )
    picture = drawn(Chart("s", [panel], "step"))
    read = picture.reader()
    ((shade),) = picture.all("rect", "shade")
    width = float(shade.get("width", ""))
    assert read((float(shade.get("x", "")) + width, 0))[0] == pytest.approx(10, abs=0.1)
    ((rule),) = picture.all("path", "rule")
    assert read((float(rule.get("d", "M0 ")[1:].split()[0]), 0))[0] == pytest.approx(75, abs=0.2)
    assert {"warm-up", "SWA starts"} <= set(picture.texts())
    found = [read(dot) for dot in picture.dots("collected", "collected")]
    assert found == [pytest.approx((80, 0.2), abs=0.01), pytest.approx((90, 0.1), abs=0.01)]  # 90.1 would touch 90


def test_a_level_is_reached_by_the_axis_and_named() -> None:
    """Curves from 1 to 3, a level at 5: the axis reaches it, and the line goes across the panel."""
    picture = drawn(chart(Curve("a", [0, 10], [1.0, 3.0]), levels=[Level(5.0, "the bound")], y="linear"))
    (line,) = [one.get("d", "") for one in picture.all("path", "rule")]
    assert line.endswith("H736")
    ((_, height),) = points(line.partition("H")[0])
    assert picture.reader()((0, height))[1] == pytest.approx(5, abs=0.02)
    assert "the bound" in picture.texts()


def test_dots_need_no_curve() -> None:
    dots = [Dots("mean", [0, 1, 2], [0.5, 2.0, 1.0]), Dots("last", [0, 2], [0.7, 0.9], 2, hollow=True)]
    picture = drawn(chart(dots=dots, y="linear"))
    read = picture.reader()
    assert [read(each)[1] for each in picture.dots("last", "hollow")] == pytest.approx([0.7, 0.9], abs=0.01)
    (left, _), *_, (right, _) = picture.dots("mean", "collected")
    assert right == pytest.approx(736 - (right - left) / 25, abs=0.1)  # 4 % of air beside the last
    assert [read(each)[1] for each in picture.dots("mean", "collected")] == pytest.approx([0.5, 2.0, 1.0], abs=0.01)
    assert "no points yet" not in picture.texts()


@pytest.mark.parametrize(("values", "top"), [([0.2, 0.99], 1.0), ([0.2, 0.9], 0.945), ([0.2, 2.0], 2.1)])
def test_an_axis_ends_at_the_most_that_there_can_be(values: list[float], top: float) -> None:
    """5 % of air, but not above 1; values that lie there all the same are shown."""
    assert y_range(values, log=False, most=1.0)[1] == pytest.approx(top)
    picture = drawn(chart(Curve("a", [0, 1], values), most=1.0))
    assert picture.lines("a")[0][1][1] == pytest.approx(306 - 260 * values[1] / top, abs=0.01)


def test_a_band_is_drawn_where_it_is_known_and_ends_at_the_axis() -> None:
    band = Band([0.5, math.nan, 0.5, -900.0], [1.5, math.nan, 1.5, 900.0])
    picture = drawn(chart(Curve("a", [0, 1, 2, 3], [1.0, 1.2, 1.0, 2.0], band=band)))
    ((path),) = picture.all("path", "band")
    corners = list(map(picture.reader(), _corners(path.get("d", ""))))
    assert [round(x) for x, _ in corners] == [2, 3, 3, 2]
    assert corners[0][1] == pytest.approx(1.5, abs=0.01)
    assert 2.0 < corners[1][1] < 4.0


def _corners(path: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in (one.split() for one in path.strip("MZ").split("L"))]


def test_a_height_without_room_says_what_would_do() -> None:
    three = Chart("s", [Panel(name, [Curve("a", [0, 1], [0, 1])]) for name in "abc"], "step")
    with pytest.raises(TooLowError) as refused:
        draw_picture(three, Style(height=200))
    assert refused.value.least == 16 + 3 * 30 + 2 * 14 + 3 * 60 + 30 + 16
    assert drawn(three, Style(height=refused.value.least)).root.get("height") == str(refused.value.least)


def test_the_same_chart_is_the_same_text() -> None:
    one = chart(Curve("a", [0, 1, 2], [1.0, math.nan, 3.0]), Curve("b", [0, 2], [2.0, 1.0], 1))
    assert draw_picture(one, Style()) == draw_picture(one, Style())


def test_themes() -> None:
    light, dark = COLOURS["light"].background, COLOURS["dark"].background
    auto = style_sheet("auto")
    assert auto.index(light) < auto.index("@media (prefers-color-scheme: dark)") < auto.index(dark)
    assert (light in style_sheet("light"), dark in style_sheet("light")) == (True, False)
    assert (light in style_sheet("dark"), dark in style_sheet("dark")) == (False, True)


def linear(colour: str) -> list[float]:
    """Of sRGB."""
    parts = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    return [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]


def contrast(one: str, other: str) -> float:
    """WCAG 2."""
    bright = sorted(0.2126 * r + 0.7152 * g + 0.0722 * b + 0.05 for r, g, b in (linear(one), linear(other)))
    return bright[1] / bright[0]


# Machado, Oliveira and Fernandes 2009, severity 1: what eyes without one kind of cone see.
EYES = {
    "protan": ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
    "deutan": ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881)),
    "tritan": ((1.255528, -0.076749, -0.178779), (-0.078411, 0.930809, 0.147602), (0.004733, 0.691367, 0.303900)),
    "all": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
}


def lab(colour: str, eyes: str) -> tuple[float, float, float]:
    """CIE L*a*b* of what these eyes see, for D65."""
    rgb = [sum(a * b for a, b in zip(row, linear(colour), strict=True)) for row in EYES[eyes]]
    r, g, b = (min(1.0, max(0.0, part)) for part in rgb)
    xyz = (
        (0.4124 * r + 0.3576 * g + 0.1805 * b) / 0.9505,
        0.2126 * r + 0.7152 * g + 0.0722 * b,
        (0.0193 * r + 0.1192 * g + 0.9505 * b) / 1.089,
    )
    x, y, z = (part ** (1 / 3) if part > 0.008856 else 7.787 * part + 16 / 116 for part in xyz)
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("eyes", EYES)
def test_all_eyes_tell_the_colours_apart(theme: str, eyes: str) -> None:
    """A difference of 2.3 is just noticeable; thin lines need several times that. WCAG asks 3 : 1 of graphics."""
    colours = COLOURS[theme]
    assert min(contrast(one, colours.background) for one in colours.curves) >= 3
    assert contrast(colours.text, colours.background) >= 7
    assert contrast(colours.muted, colours.background) >= 4.5
    seen = [lab(one, eyes) for one in colours.curves]
    assert min(math.dist(one, other) for one, other in combinations(seen, 2)) >= 15
