"""Pictures of analyses, drawn with matplotlib in the runner after the numbers are computed.

A kind of analysis has a module of its name here with `draw_figures(numbers, arrays)`; each figure becomes NAME.svg and
NAME.png.
"""

from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from numpy.typing import NDArray

Arrays = Mapping[str, NDArray[Any]]


def preload_renderer(kind: str) -> None:
    """Import the kind's renderer in advance, so that the pictures of a cancelled analysis are drawn quickly."""
    if find_spec(f"{__name__}.{kind}"):
        import_module(f"{__name__}.{kind}")


def render_pictures(
    kind: str, numbers: Mapping[str, Any], arrays: Arrays, drawn: Callable[[str], None] | None = None
) -> dict[str, bytes]:
    """Every picture of a result by file name; empty for a kind without pictures. `drawn` is called with each name."""
    module = f"{__name__}.{kind}"
    if find_spec(module) is None:
        return {}
    import matplotlib as mpl

    from worker.pictures.figure import STYLE, render_figure

    found: dict[str, bytes] = {}
    with mpl.rc_context(STYLE):
        for name, figure in import_module(module).draw_figures(numbers, arrays):
            found |= render_figure(name, figure)
            if drawn:
                drawn(name)
    return found
