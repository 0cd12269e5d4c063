"""Who draws the pictures of an analysis."""

import pytest

from core.engine.events import Log
from tests.support.results import critical_point
from tests.train.runs import Watcher
from worker.runner import _plot_renderer


def test_a_picture_that_fails_takes_no_result_with_it(capsys: pytest.CaptureFixture[str]) -> None:
    watcher = Watcher()
    draughtsman = _plot_renderer(watcher, "landscape")
    assert draughtsman
    assert draughtsman("landscape", {}, {}) == {}
    assert watcher.events == [Log("warning", "the pictures could not be drawn; numbers and arrays are stored")]
    assert "KeyError" in capsys.readouterr().err


def test_each_picture_is_told_of() -> None:
    """Drawing takes seconds, and who watches the runner takes silence for a stall."""
    watcher = Watcher()
    draughtsman = _plot_renderer(watcher, "critical_point")
    assert draughtsman
    found = draughtsman("critical_point", *critical_point())
    assert set(found) == {f"{name}.{kind}" for name in ("escape", "spectrum") for kind in ("svg", "png")}
    assert watcher.events == [Log("info", f"picture {name} is drawn") for name in ("escape", "spectrum")]
