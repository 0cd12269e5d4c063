"""Directions in the space of weights, and coordinates of weights along them."""

from collections.abc import Sequence

import torch
from torch import Tensor

from core.engine.determinism import seeded_generator
from core.engine.networks.network import Network
from core.engine.networks.roles import ParameterRole, filter_rows
from core.recipe.analyses.grid_options import Ignore, Norm

PRINTS = 4
FLAT = 1e-6  # of the longest: shorter directions are rounding errors


def random_direction(network: Network, seed: int, number: int) -> Tensor:
    """Standard normal (P,), drawn in double so that networks of every precision have the same direction."""
    drawn = torch.randn(len(network.values), generator=seeded_generator(seed, "direction", number), dtype=torch.float64)
    return drawn.to(network.values)


def normalise_direction(network: Network, direction: Tensor, norm: Norm, ignore: Ignore) -> Tensor:
    """The direction (P,) with each filter (or layer) as long as that of the weights (Li et al. 2018).

    The scale of a layer then has no effect. A filter is a slice along the first axis; in a position table it is the
    vector of one position. A vector, a bias and a norm are a single filter each. With `ignore` biasbn, biases and the
    scales and shifts of norms get no component.
    """
    found = direction.clone()
    exempt = {ParameterRole.BIAS, ParameterRole.NORM} if ignore == "biasbn" else set()
    for name, parameter in network.module.named_parameters():
        start = int(parameter.storage_offset())
        piece = found[start : start + parameter.numel()]
        if network.roles[name] in exempt:
            piece.zero_()
        elif norm != "none":
            filters = filter_rows(parameter, network.roles[name]) if norm == "filter" else 1
            rows = piece.view(filters, -1)
            lengths = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
            wanted = torch.linalg.vector_norm(parameter.detach().reshape(filters, -1), dim=1, keepdim=True)
            rows.mul_(torch.where(lengths > 0, wanted / lengths, 0.0))
    return found


def directions_between(weights: Sequence[Tensor]) -> Tensor:
    """From the first weights to the second; with a third, also the orthogonal part of the move to the third.

    (P,) each -> (1 | 2, P), as in Garipov et al. 2018: the second has coordinates (1, 0), the third (x, 1).
    """
    first = weights[1] - weights[0]
    if len(weights) == 2:
        return first[None]
    other = weights[2] - weights[0]
    length = first.double().square().sum()
    along = (first.double() @ other.double()) / length if length > 0 else length
    return torch.stack([first, other - along.to(first) * first])


def principal_directions(moves: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """Unit directions (A, P) in which `moves` (n, P) are longest, A ≤ `most`, and all shares (n,) of the squares.

    The moves are not centred: the plane contains the weights from which they begin, and a share is one of the sum of
    squared distances from there. Each direction has a positive component along the first move.
    """
    doubles = moves.double()
    values, vectors = torch.linalg.eigh(doubles @ doubles.T)
    values, vectors = values.flip(0).clamp(min=0), vectors.flip(1)
    lengths = values.sqrt()
    count = min(most, moves.shape[1], int((lengths > FLAT * lengths[0]).sum()))
    found = (vectors[:, :count].T @ doubles) / lengths[:count, None]
    towards = torch.where(found @ doubles[0] < 0, -1.0, 1.0).to(found)
    return (found * towards[:, None]).to(moves), shares_of(values)


def centred_shares(moves: Tensor) -> Tensor:
    """The shares (n + 1,) of a PCA that subtracts the mean of all weights, as in scikit-learn."""
    doubles = torch.cat([moves.double(), moves.new_zeros(1, moves.shape[1]).double()])
    doubles = doubles - doubles.mean(0)
    values = torch.linalg.eigvalsh(doubles @ doubles.T).flip(0).clamp(min=0)
    return shares_of(values)


def shares_of(values: Tensor) -> Tensor:
    """The share of each value in their sum; zeros if all are 0."""
    return values / values.sum().clamp(min=torch.finfo(values.dtype).tiny)


def project_moves(moves: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
    """Coordinates (n, A) of `moves` (n, P) along `directions` (A, P) by least squares, and distances to the plane (n,).

    The directions need not be orthogonal. All is computed in double.
    """
    doubles, axes = moves.double(), directions.double()
    found = solve_least_squares(axes.T, doubles.T).T
    return found, torch.linalg.vector_norm(doubles - found @ axes, dim=1)


def solve_least_squares(matrix: Tensor, targets: Tensor) -> Tensor:
    """The x (n, k) with the least |matrix x - targets|, of matrix (m, n) and targets (m, k); the same bits every time.

    The driver that torch takes by default on a CPU, gelsy, reads the order of its pivots from uninitialised memory. So
    this uses gels, which has no pivots. If the columns are dependent, gelsd finds the shortest x; torch does not have
    it on a GPU. LAPACK refuses numbers that are not finite: x is then NaN.
    """
    if not bool(matrix.isfinite().all() and targets.isfinite().all()):
        return matrix.new_full((matrix.shape[1], targets.shape[1]), torch.nan)
    if is_rank_deficient(matrix):
        shortest: Tensor = torch.linalg.lstsq(matrix.cpu(), targets.cpu(), driver="gelsd").solution
        return shortest.to(matrix)
    only: Tensor = torch.linalg.lstsq(matrix, targets, driver="gels").solution
    return only


def is_rank_deficient(matrix: Tensor) -> bool:
    """Whether a column of the matrix (m, n) is, up to rounding, a combination of the columns before it."""
    own = torch.linalg.qr(matrix, mode="r").R.diagonal().abs()  # (min(m, n),): what each column adds to those before
    rounding = max(matrix.shape) * torch.finfo(matrix.dtype).eps
    lengths = torch.linalg.vector_norm(matrix, dim=0)[: len(own)]
    return len(own) < matrix.shape[1] or bool((own <= rounding * lengths).any())


def direction_cosine(directions: Tensor) -> Tensor:
    """The cosine of the angle between two directions (2, P), in double."""
    first, second = torch.nn.functional.normalize(directions.double(), dim=1)
    return torch.dot(first, second)


def weights_fingerprint(vectors: Tensor) -> Tensor:
    """A fingerprint of vectors (n, P): float64 (n, 4), their products with 4 fixed noise-like vectors.

    Equal vectors have equal fingerprints to the bit; vectors that differ by rounding have close ones.
    """
    places = torch.arange(vectors.shape[1], dtype=torch.float64, device=vectors.device)
    # Sines of squares: no direction in use is orthogonal to all of them.
    fixed = torch.stack([torch.sin((places + 1).square() * (number + 1) * 0.7) for number in range(PRINTS)])
    return vectors.double() @ fixed.T


def axis_places(stretch: tuple[float, float], steps: int) -> Tensor:
    """`steps` places from low to high, float64 (steps,); 0 and 1 are exact if they are among them."""
    low, high = stretch
    return torch.tensor([low + (high - low) * number / (steps - 1) for number in range(steps)], dtype=torch.float64)


def padded_range(values: Tensor, margin: float) -> tuple[float, float]:
    """The range of the values, extended on both sides by the share `margin` of its length."""
    low, high = float(values.min()), float(values.max())
    spare = (high - low) * margin
    return low - spare, high + spare
