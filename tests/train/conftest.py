"""Fixtures of the training tests."""

import math
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from core.engine import session
from core.recipe.data import DataSpec
from tests.train.looks import Look, looker
from tests.train.runs import Script, Train, trainer


@pytest.fixture
def run(tmp_path: Path, datasets: Callable[[str | DataSpec], Path]) -> Train:
    """Train in this process; see tests.train.runs.trainer."""
    return trainer(tmp_path, datasets)


@pytest.fixture
def run_own(tmp_path: Path, datasets: Callable[[str | DataSpec], Path]) -> Train:
    """As `run`, for a spec whose model no JSON can name."""
    return trainer(tmp_path, datasets, travels=False)


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Script:
    """Make the losses of evaluations come out as written, in their order, then stay at the last value."""

    def write(values: list[float]) -> None:
        losses: Iterator[float] = iter(values)
        seen = [math.nan]

        def evaluate(*_: object) -> dict[str, float]:
            seen[0] = next(losses, seen[0])
            return {"loss": seen[0], "accuracy": 0.5}

        monkeypatch.setattr(session, "evaluate_network", evaluate)

    return write


@pytest.fixture
def look(tmp_path: Path, datasets: Callable[[str | DataSpec], Path]) -> Look:
    """Analyse in this process; see tests.train.looks.looker."""
    return looker(tmp_path, datasets)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """As jobs are computed on a CPU: two threads wait for one another longer than small tensors take."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
