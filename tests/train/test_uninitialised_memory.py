"""The bits of a result do not depend on uninitialised memory."""

import ctypes
import math
from collections.abc import Callable, Iterator

import pytest
import torch

from core.engine.analysis.directions import project_moves, solve_least_squares
from tests.train.looks import Look
from tests.train.runs import Train, job

pytestmark = pytest.mark.usefixtures("one_thread")

M_PERTURB = -6  # of glibc's mallopt(): every byte of fresh memory is the complement of the value; 0 leaves it alone
ZEROS, ONES = 255, 254
CALLS = 20  # some memory is what was freed a moment ago, whatever the value is

Fill = Callable[[int], None]


@pytest.fixture
def fill() -> Iterator[Fill]:
    """Choose what fresh memory holds."""
    mallopt = ctypes.CDLL(None).mallopt

    def choose(value: int) -> None:
        assert mallopt(M_PERTURB, value) == 1
        fresh = [torch.empty(1, dtype=torch.uint8) for _ in range(100)]
        assert sum(int(each) == value ^ 255 for each in fresh) > 50

    yield choose
    mallopt(M_PERTURB, 0)


@pytest.mark.parametrize("longer", [0.5, 3.0])
def test_projections_have_the_same_bits(fill: Fill, longer: float) -> None:
    """The default driver of least squares would begin with the column to which such memory points."""
    generator = torch.Generator().manual_seed(0)
    directions, moves = (torch.randn(count, 1210, generator=generator) for count in (2, 3))
    directions[1] *= longer
    found = set()
    for value in (ZEROS, ONES):
        fill(value)
        for _ in range(CALLS):
            at, off = project_moves(moves, directions)
            found.add((at.numpy().tobytes(), off.numpy().tobytes()))
    assert len(found) == 1


def test_a_landscape_has_the_same_bits(run: Train, look: Look, fill: Fill) -> None:
    """The coordinates of its one subject are zeros, and those are equal as numbers whatever their signs are."""
    spec = job(epochs=1)
    pair = spec, run(spec)[1].checkpoints()[8]
    found = set()
    for value in (ZEROS, ONES):
        fill(value)
        for _ in range(CALLS):
            arrays = look([pair], kind="landscape", steps=2).arrays
            assert arrays["at"].tolist() == [[0.0, 0.0]]
            found.add(tuple((name, each.tobytes()) for name, each in sorted(arrays.items())))
    assert len(found) == 1


@pytest.mark.parametrize(
    ("columns", "shortest"),
    [
        ([[1.0, 2.0, 2.0]], [2.0]),
        ([[1.0, 2.0, 2.0], [0.0, 1.0, -1.0]], [2.0, 1.5]),
        ([[1.0, 2.0, 2.0], [3.0, 6.0, 6.0]], [0.2, 0.6]),  # x + 3 y = 2
        ([[0.1, 0.2, 0.2], [0.3, 0.6, math.nextafter(0.6, 1.0)]], [2.0, 6.0]),  # 0.1 x + 0.3 y = 2, but for rounding
        ([[0.0, 0.0, 0.0], [1.0, 2.0, 2.0]], [0.0, 2.0]),
        ([[0.0, 0.0, 0.0]], [0.0]),
    ],
)
def test_least_squares_are_the_shortest(columns: list[list[float]], shortest: list[float]) -> None:
    """The target is 2 (1, 2, 2) + 1.5 (0, 1, -1) and a rest (4, -1, -1) that is orthogonal to both."""
    matrix = torch.tensor(columns, dtype=torch.float64).T
    target = torch.tensor([[6.0], [4.5], [1.5]], dtype=torch.float64)
    expected = torch.tensor(shortest, dtype=torch.float64)[:, None]
    torch.testing.assert_close(solve_least_squares(matrix, target), expected)


def test_more_columns_than_rows_have_a_shortest_solution_too() -> None:
    """Of all x + 2 y = 3, (0.6, 1.2) is nearest to the origin."""
    matrix, target = (torch.tensor([row], dtype=torch.float64) for row in ([1.0, 2.0], [3.0]))
    expected = torch.tensor([[0.6], [1.2]], dtype=torch.float64)
    torch.testing.assert_close(solve_least_squares(matrix, target), expected)


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_coordinates_that_are_no_numbers_are_nan(number: float) -> None:
    """Of directions and of moves; the other move has no coordinates either."""
    directions, moves = torch.eye(2, 4), torch.ones(2, 4)
    for odd in (directions, moves):
        good = odd[0, 0].clone()
        odd[0, 0] = number
        at, off = project_moves(moves, directions)
        assert (at.shape, off.shape) == ((2, 2), (2,))
        assert bool(at.isnan().all() and off.isnan().all())
        odd[0, 0] = good
