"""Fixtures that every folder of tests may use; the real servers live in tests/support."""

from collections.abc import Callable
from pathlib import Path

import pytest

from core.recipe.data import DataSpec
from core.recipe.data.materialise import materialise, read_data

pytest_plugins = ["tests.support.databases", "tests.support.broker", "tests.support.service"]


@pytest.fixture(scope="session")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str | DataSpec], Path]:
    """Name or spec -> path of the materialised dataset."""
    folder = tmp_path_factory.mktemp("datasets")
    return lambda data: materialise(read_data(data) if isinstance(data, str) else data, folder)
