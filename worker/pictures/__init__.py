"""Pictures of analyses, drawn with matplotlib in the runner once the numbers are there.

A kind has a module of its name here with `figures(numbers, arrays)`; each figure becomes NAME.svg and NAME.png.
"""

from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from numpy.typing import NDArray

Arrays = Mapping[str, NDArray[Any]]


def preload_renderer(kind: str) -> None:
    """Loads what draws the kind, so that it is quick when somebody cancels and does not wait for long."""
    if find_spec(f"{__name__}.{kind}"):
        import_module(f"{__name__}.{kind}")


def render_pictures(
    kind: str, numbers: Mapping[str, Any], arrays: Arrays, drawn: Callable[[str], None] | None = None
) -> dict[str, bytes]:
    """Every picture of a result, by file name; none of a kind that has no pictures. `drawn` hears the name of each."""
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
