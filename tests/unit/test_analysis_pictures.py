"""Pictures of analyses: every kind has some, and nothing that a result may hold stops them."""

import io
import math
from importlib import import_module
from importlib.util import find_spec
from typing import Any
from xml.etree import ElementTree as ET

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from core.recipe.analyses import analysis_classes
from tests.support.results import (
    NASTY,
    SAMPLES,
    Result,
    bowl,
    connect,
    critical_point,
    gradient_noise,
    interpolation,
    landscape,
    lr_range,
    sharpness,
    trajectory,
)
from worker.pictures import render_pictures
from worker.pictures.contour_surface import ContourSurface, level_labels, loss_levels, share_levels
from worker.pictures.figure import CAPTION, DPI, STYLE, plain_label, render_figure, round_paths, wrap_text
from worker.pictures.landscape import draw_figures, find_gaps

SVG = "{http://www.w3.org/2000/svg}"
HARMLESS = {"svg", "metadata", "defs", "style", "g", "path", "use", "text", "tspan", "clipPath", "rect", "pattern"}
METADATA = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}", "{http://creativecommons.org/ns#}", "{http://purl.org/dc/"


def texts(svg: bytes) -> str:
    """All that is written in a picture."""
    return " ".join("".join(each.itertext()) for each in ET.fromstring(svg).iter(f"{SVG}text"))  # noqa: S314 - our own


def checked(found: dict[str, bytes]) -> dict[str, bytes]:
    """Each picture is there as SVG and PNG, small, without anything that acts or leads elsewhere."""
    assert found
    assert {name[:-3] for name in found if name.endswith("svg")} == {
        name[:-3] for name in found if name.endswith("png")
    }
    for name, content in found.items():
        if name.endswith(".png"):
            assert content.startswith(b"\x89PNG\r\n\x1a\n")
            continue
        assert len(content) < 500_000
        for element in ET.fromstring(content).iter():  # noqa: S314 - our own
            if not element.tag.startswith(METADATA):
                assert element.tag.removeprefix(SVG) in HARMLESS
            for key, value in element.attrib.items():
                assert not key.lower().startswith("on")
                assert not key.endswith("href") or value.startswith("#") or element.tag.startswith(METADATA)
    return found


@pytest.mark.parametrize("kind", analysis_classes())
def test_every_kind_has_pictures(kind: str) -> None:
    """A new kind: its module in worker/pictures, and a sample of its result in tests/support/results.py."""
    assert find_spec(f"worker.pictures.{kind}")
    numbers, arrays = SAMPLES[kind]()
    found = checked(render_pictures(kind, numbers, arrays))
    with mpl.rc_context(STYLE):
        name, again = next(import_module(f"worker.pictures.{kind}").draw_figures(numbers, arrays))
        assert render_figure(name, again).items() <= found.items()


def steep(x: np.ndarray[Any, Any], y: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Over many decades, infinite in a corner, no number inside."""
    found = bowl(x, y) * np.exp(8 * (x * x + y * y))
    found[0, 0], found[1, 1:3] = math.inf, math.nan
    return found


ODD: dict[str, tuple[str, Result]] = {
    "partial": ("landscape", landscape(5, computed=13, label=NASTY)),
    "nothing": ("landscape", landscape(5, computed=0)),
    "steep": ("landscape", landscape(9, surface=steep)),
    "negative": ("landscape", landscape(5, surface=lambda x, y: -1 + x * x - y * y)),
    "close": ("landscape", landscape(5, surface=lambda x, y: 0.5 + 1e-9 * (x * x + y))),
    "equal": ("landscape", landscape(3, splits=("train", "test"), surface=lambda x, y: 0 * (x + y))),
    "infinite": ("landscape", landscape(5, surface=lambda x, y: x + y + math.inf)),
    "half a profile": ("landscape", landscape(21, 1, computed=7, label=NASTY)),
    "no surface": ("trajectory", trajectory(steps=0, swa=False, label=NASTY)),
    "one axis": ("trajectory", trajectory(steps=9, axes=1)),
    "two points": ("trajectory", trajectory(count=2, steps=5)),
    "unknown barriers": ("interpolation", interpolation(9, 1, label=NASTY, unknown=True)),
    "half a curve": ("connect", connect(9, label=NASTY, height=1e9, epochs=3)),
    "many": ("sharpness", sharpness(5, ("filter_noise", "trace"), label=NASTY, scale=1e9)),
    "tiny": ("sharpness", sharpness(1, ("gradient_norm",), scale=0.0)),
    "undecided": ("critical_point", critical_point(None, label=NASTY)),
    "no fall": ("lr_range", lr_range(label=NASTY, known=False)),
    "no noise": ("gradient_noise", gradient_noise(label=NASTY, known=False)),
}


@pytest.mark.parametrize(
    "name", [pytest.param(one, marks=pytest.mark.slow) if number % 3 else one for number, one in enumerate(ODD)]
)
def test_whatever_a_result_holds(name: str) -> None:
    kind, (numbers, arrays) = ODD[name]
    found = checked(render_pictures(kind, numbers, arrays))
    if numbers["partial"]:
        assert "PARTIAL" in texts(next(content for file, content in found.items() if file.endswith(".svg")))


def test_what_the_pictures_of_a_landscape_tell() -> None:
    """Whose weights, how much of which part, how the axes were made; and where both lowest points are."""
    numbers, arrays = landscape(21, splits=("train", "test"), label="of <b>me</b> & $you$")
    with mpl.rc_context(STYLE):
        made = dict(draw_figures(numbers, arrays))
        found = render_figure("contours", made["contours"]) | render_figure("shift", made["shift"])
    told = texts(found["contours.svg"])
    expected = ["of <b>me</b> & $you$", "1,293 train and 360 test examples", "seed 3", "each filter as long", "0.004"]
    for each in [*expected, "biases and batch norm left", "train loss 0.01, accuracy 0.95", "length 12.3"]:
        assert each in told
    assert "Lowest train loss 0.01 at (0.1, -0.1). Lowest test loss 0.01 at (0.3, -0.1)." in texts(found["shift.svg"])


def test_a_path_tells_what_its_plane_leaves_out() -> None:
    numbers, arrays = trajectory(steps=5)
    told = texts(render_pictures("trajectory", numbers, arrays)["path.svg"])
    for each in ("shows 88.1 %", "shows 7.3 %", "95.4 % of the squared distances", "0.2 from the plane", "451"):
        assert each in told


def test_levels_of_losses() -> None:
    """Round and of about equal factors over decades; with the height, by its root, where losses are close."""
    found = loss_levels([np.geomspace(0.011, 9.0, 100)])
    assert found[0] == pytest.approx(0.011)
    assert found[-1] == pytest.approx(9.0)
    assert {0.1, 1.0} <= {round(each, 9) for each in found[1:-1].tolist()}
    ratios = found[2:-1] / found[1:-2]
    assert ratios.max() / ratios.min() < 2
    bowl_like = loss_levels([1 + np.linspace(-1, 1, 101) ** 2])
    assert np.diff(np.sqrt(bowl_like - 1)) == pytest.approx(1 / 12)
    assert len(set(level_labels(bowl_like))) == len(bowl_like)
    assert share_levels([np.linspace(0, 1, 5)])[:2] == pytest.approx([0, 0.1])


def test_what_is_too_high_is_cut_and_counted() -> None:
    values = np.ones((10, 10)) + np.linspace(0, 1, 100).reshape(10, 10)
    values[0, :3] = 1e9
    values[5, 5] = math.inf
    axis = np.linspace(-1, 1, 10)
    found = ContourSurface.from_values(axis, axis, values, 100, loss_levels([values]))
    assert (found.cut, found.infinite) == (3, 1)
    assert found.levels[-1] < 2000
    assert "3 points are above" in found.describe_levels()
    assert found.lowest_point() == (axis[3], axis[0], pytest.approx(1 + 3 / 99))


@pytest.mark.parametrize("text", ["W" * 100, "word " * 40, "i" * 400, "a " + "M" * 130 + " b"])
def test_captions_stay_on_the_page(text: str) -> None:
    """Measured anew, by the ink of a figure that is wide enough."""
    width = 5.0
    lines = wrap_text(text, FigureCanvasAgg(Figure(dpi=DPI)), width)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    for line in lines:
        made = Figure(figsize=(20, 1), dpi=DPI)
        FigureCanvasAgg(made)
        made.text(0, 0.5, line, fontsize=CAPTION)
        buffer = io.BytesIO()
        made.savefig(buffer, format="raw")
        ink = np.frombuffer(buffer.getvalue(), np.uint8).reshape(DPI, -1, 4)[:, :, 0] < 250
        assert ink.any(0).nonzero()[0].max() <= width * DPI + 1


@pytest.mark.parametrize("dimensions", [1, 2])
def test_of_a_part_what_others_compute_is_marked_as_unknown(dimensions: int) -> None:
    """It is not taken for losses that are no number."""
    numbers, arrays = landscape(9, dimensions, part=(2, 4))
    written = texts(render_pictures("landscape", numbers, arrays)["profile.svg" if dimensions == 1 else "contours.svg"])
    assert f"PART 2 OF 4: {numbers['computed']} of {numbers['points']} points were computed" in written
    assert "no finite number" not in written


def test_gaps_of_a_curve_reach_to_what_is_known_beside_them() -> None:
    nan = math.nan
    assert list(find_gaps(np.array([nan, nan, 1.0, nan, 2.0, 3.0, nan]))) == [(0, 2), (2, 4), (5, 6)]
    assert list(find_gaps(np.array([1.0, 2.0]))) == []
    assert list(find_gaps(np.full(3, nan))) == [(0, 2)]


def test_names_as_labels() -> None:
    assert plain_label("a$b") == r"a\$b"
    assert plain_label("x" * 20 + "end", 10) == "xxxx…xxend"


def test_only_paths_are_rounded() -> None:
    assert round_paths(b'<path d="M 1.23456 2.5"/><text x="1.23456">9.87654</text>') == (
        b'<path d="M 1.23 2.5"/><text x="1.23456">9.87654</text>'
    )
