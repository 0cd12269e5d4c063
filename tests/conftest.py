"""Fixtures that every folder of tests may use; the real servers live in tests/support."""

import gc
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest

from core.recipe.data import DataSpec
from core.recipe.data.materialise import materialise_dataset, read_data

pytest_plugins = [
    "tests.support.databases",
    "tests.support.broker",
    "tests.support.s3",
    "tests.support.service",
    "tests.support.stores",
]


def pytest_configure() -> None:
    """`--hypothesis-profile thorough`: other examples each time, and more of them where a test says how many."""
    hypothesis.settings.register_profile("thorough", derandomize=False)
    gc.disable()  # until everything is collected: what that makes is kept


def pytest_collection_finish() -> None:
    """Modules and test items stay until the end: a garbage collection that looks at them costs a fifth of the time."""
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str | DataSpec], Path]:
    """Name or spec -> path of the materialised dataset."""
    folder = tmp_path_factory.mktemp("datasets")
    return lambda data: materialise_dataset(read_data(data) if isinstance(data, str) else data, folder)


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    """A test that runs a command in this process must not leave a handler on a stream that pytest closes."""
    root = logging.getLogger()
    handlers, level, hooks = list(root.handlers), root.level, (sys.excepthook, threading.excepthook)
    yield
    logging.captureWarnings(capture=False)
    root.handlers[:] = handlers
    root.setLevel(level)
    sys.excepthook, threading.excepthook = hooks


@pytest.fixture(autouse=True)
def umask_as_it_was() -> Iterator[None]:
    """A server's command that a test runs in this process sets it for all that follows."""
    before = os.umask(0o077)
    os.umask(before)
    yield
    os.umask(before)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """For tests that do small sums by the hundred: two threads would only wait for each other."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
