"""Directions in the space of weights, and where weights stand along them."""

from collections.abc import Sequence

import torch
from torch import Tensor

from core.engine.determinism import seeded_generator
from core.engine.networks.network import Network
from core.engine.networks.roles import ParameterRole, filter_rows
from core.recipe.analyses.grid_options import Ignore, Norm

PRINTS = 4
FLAT = 1e-6  # of the longest: what is shorter is rounding, and no direction


def random_direction(network: Network, seed: int, number: int) -> Tensor:
    """Standard normal (P,), drawn in double so that networks of every precision get the same."""
    drawn = torch.randn(len(network.values), generator=seeded_generator(seed, "direction", number), dtype=torch.float64)
    return drawn.to(network.values)


def normalise_direction(network: Network, direction: Tensor, norm: Norm, ignore: Ignore) -> Tensor:
    """(P,), each filter (or layer) as long as that of the weights, so that the scale of no layer matters (Li 2018).

    A filter is a slice along the first axis, and of positions the vector of each place. A vector, a bias and a norm are
    a single filter each. With `ignore` biasbn biases, and scales and shifts of norms, stay where they are.
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
    """From the first weights to the second; with a third, the part of the way there that is square to it.

    (P,) each -> (1 | 2, P), as in Garipov et al. 2018: the second stands at (1, 0), the third at (some x, 1).
    """
    first = weights[1] - weights[0]
    if len(weights) == 2:
        return first[None]
    other = weights[2] - weights[0]
    length = first.double().square().sum()
    along = (first.double() @ other.double()) / length if length > 0 else length
    return torch.stack([first, other - along.to(first) * first])


def principal_directions(moves: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """Unit directions (A, P) in which `moves` (n, P) are longest, A ≤ `most`, and their shares (n,) of all squares.

    Nothing is centred: the plane goes through the weights from which the moves begin, and a share is one of the sum of
    squared distances from there. Each direction points to where the first move goes.
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
    """The shares (n + 1,) of a PCA that takes off the mean of all weights, as that of scikit-learn does."""
    doubles = torch.cat([moves.double(), moves.new_zeros(1, moves.shape[1]).double()])
    doubles = doubles - doubles.mean(0)
    values = torch.linalg.eigvalsh(doubles @ doubles.T).flip(0).clamp(min=0)
    return shares_of(values)


def shares_of(values: Tensor) -> Tensor:
    """What each is of their sum; of zeros nothing."""
    return values / values.sum().clamp(min=torch.finfo(values.dtype).tiny)


def project_moves(moves: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
    """Least squares: coordinates (n, A) of `moves` (n, P) along `directions` (A, P), square to each other or not, and
    how far from the plane each of them stays (n,). All in double.
    """
    doubles, axes = moves.double(), directions.double()
    found = torch.linalg.lstsq(axes.T, doubles.T).solution.T
    return found, torch.linalg.vector_norm(doubles - found @ axes, dim=1)


def direction_cosine(directions: Tensor) -> Tensor:
    """Of the angle between two directions, in double."""
    first, second = torch.nn.functional.normalize(directions.double(), dim=1)
    return torch.dot(first, second)


def weights_fingerprint(vectors: Tensor) -> Tensor:
    """What tells whether vectors (n, P) are the same, to the bit or to rounding: float64 (n, 4), products with fixed
    ones that look like noise.
    """
    places = torch.arange(vectors.shape[1], dtype=torch.float64, device=vectors.device)
    # Sines of squares: no direction that anybody takes is square to all of them.
    fixed = torch.stack([torch.sin((places + 1).square() * (number + 1) * 0.7) for number in range(PRINTS)])
    return vectors.double() @ fixed.T


def axis_places(stretch: tuple[float, float], steps: int) -> Tensor:
    """So many places from low to high, float64; 0 and 1 are exact where they are hit."""
    low, high = stretch
    return torch.tensor([low + (high - low) * number / (steps - 1) for number in range(steps)], dtype=torch.float64)


def padded_range(values: Tensor, margin: float) -> tuple[float, float]:
    """From the least to the most, and a share of that more on both sides."""
    low, high = float(values.min()), float(values.max())
    spare = (high - low) * margin
    return low - spare, high + spare
