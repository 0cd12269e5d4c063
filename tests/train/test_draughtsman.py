"""Who draws the pictures of an analysis."""

import pytest

from core.engine.events import Log
from tests.train.runs import Watcher
from worker.runner import _draughtsman


def test_a_picture_that_fails_takes_no_result_with_it(capsys: pytest.CaptureFixture[str]) -> None:
    watcher = Watcher()
    draughtsman = _draughtsman(watcher)
    assert draughtsman
    assert draughtsman("landscape", {}, {}) == {}
    assert watcher.events == [Log("warning", "the pictures could not be drawn; numbers and arrays are there")]
    assert "KeyError" in capsys.readouterr().err
