"""Fixtures of the training tests."""

from collections.abc import Callable
from pathlib import Path

import pytest

from core.recipe.data import DataSpec
from tests.train.runs import Train, trainer


@pytest.fixture
def run(tmp_path: Path, datasets: Callable[[str | DataSpec], Path]) -> Train:
    """Train in this process; see tests.train.runs.trainer."""
    return trainer(tmp_path, datasets)
