"""Where there is no CUDA device, these tests are not part of the run."""

from pathlib import Path

import pytest

from tests.train.conftest import run

__all__ = ["run"]
HERE = Path(__file__).parent


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect this folder's tests unless torch sees a device."""
    ours = [item for item in items if HERE in item.path.parents]
    if not ours:
        return
    import torch

    if not torch.cuda.is_available():
        config.hook.pytest_deselected(items=ours)
        items[:] = [item for item in items if item not in ours]
