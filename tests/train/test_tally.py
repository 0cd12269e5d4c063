"""What a GPU adds up for many networks at once is what a CPU adds up one after the other, in fewer operations."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from core.engine.analysis.evaluate_weights import tally_each, tally_together
from core.engine.datasets.standardizer import Standardizer
from core.engine.evaluation.objective import Classification, FunctionObjective, Objective, Regression

NETWORKS, EXAMPLES = 7, 50


def quadratic(x: Tensor, y: Tensor) -> Tensor:
    return x.square() + 3 * y.square()


def drawn(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(len(shape)))


OUTPUTS = drawn(NETWORKS, EXAMPLES, 3)
CLASSES = torch.arange(EXAMPLES) % 3
NUMBERS = drawn(EXAMPLES, 3)
SCALE = Standardizer(torch.zeros(3), torch.tensor([1.0, 2.0, 0.5]))
PLACES = drawn(NETWORKS, 2)[:, None].expand(-1, EXAMPLES, -1)
CASES: list[tuple[Objective, Tensor, Tensor]] = [
    (Classification(("accuracy",)), OUTPUTS, CLASSES),
    (Regression(("mae", "r2"), None), OUTPUTS, NUMBERS),
    (Regression(("mae", "r2"), SCALE), OUTPUTS, NUMBERS),
    (FunctionObjective(quadratic), PLACES, drawn(EXAMPLES, 2)),
]


class Counting(TorchDispatchMode):
    """How many operations there are."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(("objective", "outputs", "targets"), CASES)
def test_together_as_one_by_one(objective: Objective, outputs: Tensor, targets: Tensor) -> None:
    alone, together = tally_each(objective, outputs, targets), tally_together(objective, outputs, targets)
    assert together.dtype == alone.dtype == torch.float64
    assert together.shape == alone.shape
    torch.testing.assert_close(together, alone, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("objective", "outputs", "targets"), CASES)
def test_as_few_operations_for_many_as_for_few(objective: Objective, outputs: Tensor, targets: Tensor) -> None:
    some, all_of_them = outputs[:2].contiguous(), outputs.contiguous()
    with Counting() as few:
        tally_together(objective, some, targets)
    with Counting() as many:
        tally_together(objective, all_of_them, targets)
    assert many.count == few.count


def test_another_device_than_a_cpu_takes_them_together() -> None:
    with Counting() as meta:
        found = tally_each(Classification(("accuracy",)), OUTPUTS.to("meta"), CLASSES.to("meta"))
    assert found.shape == (NETWORKS, 2)
    with Counting() as cpu:
        tally_each(Classification(("accuracy",)), OUTPUTS, CLASSES)
    assert meta.count < cpu.count / 2
