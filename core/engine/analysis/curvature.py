"""Second derivatives of the mean loss of a split: Hessian-vector products, and eigenvalues by Lanczos' iteration."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Self

import torch
from torch import Tensor

from core.engine.analysis.loss_surface import LossSurface, sum_in_double
from core.engine.analysis.subject import AnalysisSubject
from core.engine.datasets.split import Split
from core.engine.determinism import seeded_generator
from core.engine.failure import passing_examples
from core.engine.liveness import report_each

LEADING_STEPS: Final = 80
SETTLED: Final = 1e-4  # of the largest eigenvalue: a pair with a smaller residual is accurate enough for a direction

Product = Callable[[Tensor], Tensor]  # v (P,) -> H v (P,)
Passes = tuple[int, int]  # forward and backward, over the whole split


class Curvature:
    """The mean loss of a split around given weights. The autograd graph is kept between products if it fits."""

    def __init__(self, surface: LossSurface, weights: Tensor) -> None:
        """The weights (P,) are copied, so they may change afterwards."""
        self._terrain = surface
        self._weights = weights.clone().requires_grad_()
        self._kept: list[Tensor] | None = [] if surface.fits else None
        losses = list[Tensor]()
        self.gradient = torch.zeros_like(weights)  # (P,)
        for loss, slope in surface.chunk_gradients(self._weights, twice=True):
            losses.append(loss)
            self.gradient += slope.detach()
            if self._kept is not None:
                self._kept.append(slope)
        self.loss = sum_in_double(losses)

    def hessian_product(self, vector: Tensor) -> Tensor:
        """The product of the Hessian with a vector (P,): H v (P,)."""
        total, kept = torch.zeros_like(self.gradient), self._kept
        again = (slope for _, slope in self._terrain.chunk_gradients(self._weights, twice=True))
        for slope in report_each(self._terrain.report_alive, "hessian", again if kept is None else kept):
            if slope.requires_grad:  # the gradient of a linear loss is a constant
                with passing_examples():
                    total += torch.autograd.grad(
                        slope, self._weights, vector, retain_graph=kept is not None, materialize_grads=True
                    )[0]
        return total

    @property
    def product_passes(self) -> Passes:
        """The passes of one product: two backward passes through the gradient, which is computed first if not kept."""
        return (0, 2) if self._kept is not None else (1, 3)


@dataclass(frozen=True, slots=True)
class RitzPairs:
    """Ritz pairs, ascending: `values` float64 (k,), `vectors` (k, P) of length 1, `residuals` |H v - value v| (k,).

    There is an eigenvalue within the residual of each value. That none is beyond the outermost is likely, not certain.
    """

    values: Tensor
    vectors: Tensor
    residuals: Tensor


@dataclass(slots=True)
class Lanczos:
    """Lanczos' iteration with full reorthogonalisation, done twice (Parlett 1980, chapter 13).

    `basis` (k, P) has orthonormal rows, `diagonal` and `beside` float64 (k,) make the tridiagonal matrix. When the
    Krylov space of the first vector is exhausted, the iteration continues with a random vector, so that eigenvalues of
    any multiplicity are found.
    """

    basis: Tensor
    diagonal: Tensor
    beside: Tensor
    seed: int
    done: int = 0

    @classmethod
    def start_iteration(cls, like: Tensor, steps: int, seed: int, first: Tensor | None = None) -> Self:
        """An iteration of at most `steps` steps, from `first` (P,), or from a random vector like `like` (P,)."""
        steps = min(steps, len(like))
        numbers = torch.zeros(steps, dtype=torch.float64)
        made = cls(like.new_zeros((steps, len(like))), numbers, numbers.clone(), seed)
        length = 0.0 if first is None else float(torch.linalg.vector_norm(first))
        made.basis[0] = made._random_direction(0) if first is None or not length else first / length
        return made

    @classmethod
    def from_tensors(cls, found: dict[str, Tensor], seed: int) -> Self:
        """The inverse of tensors()."""
        return cls(found["basis"], found["diagonal"], found["beside"], seed, int(found["steps"]))

    def tensors(self) -> dict[str, Tensor]:
        return {
            "basis": self.basis,
            "diagonal": self.diagonal,
            "beside": self.beside,
            "steps": torch.tensor(self.done),
        }

    @property
    def is_complete(self) -> bool:
        """Whether all its steps are done."""
        return self.done == len(self.basis)

    def extend_basis(self, product: Product) -> None:
        """One step of the iteration, with one product."""
        at, rest = self.done, product(self.basis[self.done])
        self.diagonal[at] = torch.dot(rest, self.basis[at]).double()
        rest = self._orthogonal_part(rest, at + 1)
        size = float(torch.linalg.vector_norm(rest))
        scale = float(torch.cat([self.diagonal[: at + 1], self.beside[:at]]).abs().max())
        exhausted = size <= 10 * torch.finfo(rest.dtype).eps * scale
        self.beside[at] = 0.0 if exhausted else size
        self.done = at + 1
        if not self.is_complete:
            self.basis[at + 1] = self._random_direction(at + 1) if exhausted else rest / size

    def _orthogonal_part(self, vector: Tensor, count: int) -> Tensor:
        before = self.basis[:count]
        for _ in range(2):
            vector = vector - before.T @ (before @ vector)
        return vector

    def _random_direction(self, count: int) -> Tensor:
        """A random direction orthogonal to the first `count` rows."""
        draw = torch.randn(
            self.basis.shape[1], generator=seeded_generator(self.seed, "lanczos", count), dtype=torch.float64
        )
        vector = self._orthogonal_part(draw.to(self.basis), count)
        return torch.nn.functional.normalize(vector, dim=0)

    def ritz_pairs(self) -> RitzPairs:
        """The Ritz pairs after at least one step; residuals hold for exact arithmetic."""
        beside = self.beside[: self.done]
        matrix = torch.diag(self.diagonal[: self.done])
        matrix += torch.diag(beside[:-1], 1) + torch.diag(beside[:-1], -1)
        values, rotation = torch.linalg.eigh(matrix)  # (k,), (k, k) with a vector in each column
        vectors = rotation.T.to(self.basis) @ self.basis[: self.done]
        vectors = vectors / torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
        return RitzPairs(values, vectors, (beside[-1] * rotation[-1]).abs())


def leading_eigenpairs(subject: AnalysisSubject, part: Split, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """The largest eigenvalues of the Hessian, descending, float64 (count,), and their unit vectors (count, P).

    The Hessian is that of the job's mean loss on `part` at the subject's weights, in evaluation mode. A network of
    fewer than `count` weights has one pair per weight.
    """
    curvature = Curvature(LossSurface(subject.network, part, subject.objective.loss), subject.network.values)
    lanczos = Lanczos.start_iteration(curvature.gradient, LEADING_STEPS, seed)
    while not lanczos.is_complete:
        lanczos.extend_basis(curvature.hessian_product)
        if lanczos.done % 10 == 0 and lanczos.done > count:
            found = lanczos.ritz_pairs()
            if bool((found.residuals[-count:] <= SETTLED * found.values.abs().max()).all()):
                break
    found = lanczos.ritz_pairs()
    return found.values[-count:].flip(0), found.vectors[-count:].flip(0)
