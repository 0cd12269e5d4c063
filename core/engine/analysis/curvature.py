"""Second derivatives of the mean loss of a part: products with the Hessian, and what Lanczos sees through them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Self

import torch
from torch import Tensor
from torch.func import functional_call

from core.engine.analysis.subject import Subject
from core.engine.datasets.resident import Part
from core.engine.determinism import stream
from core.engine.evaluate import inspecting
from core.engine.networks.network import Network
from core.engine.objective import Loss

ROOM: Final = 2**30  # bytes that graphs kept between products may take
COPIES: Final = 8  # of every activation, about, that the graph of a gradient holds
LEADING_STEPS: Final = 80
SETTLED: Final = 1e-4  # of the largest eigenvalue: a pair with such a residual is good enough for a direction

Product = Callable[[Tensor], Tensor]


def slices(network: Network, flat: Tensor) -> dict[str, Tensor]:
    """A flat vector (P,) cut into the network's parameters, by name and as views."""
    named = sorted(network.module.named_parameters(), key=lambda pair: pair[1].storage_offset())
    cut = torch.split(flat, [each.numel() for _, each in named])
    return {name: values.view(each.shape) for (name, each), values in zip(named, cut, strict=True)}


class Curvature:
    """The mean loss of a part (or of several batches of it) around the weights that the network has now.

    Evaluation mode: batch norm goes by its running statistics, dropout is off. Weights and buffers are copied, so the
    network may change afterwards. Chunks count by their examples: nothing depends on how many there are. What autograd
    needs is kept between products where it fits, which halves their cost.
    """

    def __init__(self, network: Network, part: Part, loss: Loss, *, room: int = ROOM) -> None:
        """`loss` is the mean loss of a batch, outputs (b, outputs) and targets -> scalar; `room` is in bytes."""
        self._network, self._loss, self._examples = network, loss, len(part)
        self._weights = network.values.clone().requires_grad_()
        self._buffers = {name: each.clone() for name, each in network.module.named_buffers()}
        each = COPIES * activations(network, part) * network.values.element_size()
        size = max(1, min(network.most_at_once, room // max(each, 1)))
        pairs = zip(torch.split(part.inputs, size), torch.split(part.targets, size), strict=True)
        self._chunks = [Part(inputs, targets) for inputs, targets in pairs]
        self._kept: list[Tensor] | None = [] if each * len(part) <= room else None
        self.loss = 0.0
        self.gradient = torch.zeros_like(network.values)  # (P,)
        self.products = 0
        for chunk in self._chunks:
            loss_of_chunk, slope = self._slope(chunk)
            self.loss += float(loss_of_chunk.detach())
            self.gradient += slope.detach()
            if self._kept is not None:
                self._kept.append(slope)

    def _slope(self, chunk: Part) -> tuple[Tensor, Tensor]:
        """A chunk's share of the loss and of its gradient (P,), differentiable once more."""
        module = self._network.module
        with inspecting(module), torch.enable_grad():
            outputs = functional_call(module, slices(self._network, self._weights) | self._buffers, (chunk.inputs,))
            loss = self._loss(outputs, chunk.targets) * (len(chunk) / self._examples)
            (slope,) = torch.autograd.grad(loss, self._weights, create_graph=True)
        return loss, slope

    def product(self, vector: Tensor) -> Tensor:
        """H v (P,)."""
        self.products += 1
        total = torch.zeros_like(self.gradient)
        slopes = self._kept if self._kept is not None else (self._slope(chunk)[1] for chunk in self._chunks)
        for slope in slopes:
            if slope.requires_grad:  # that of a linear loss is a constant
                (share,) = torch.autograd.grad(
                    slope, self._weights, vector, retain_graph=self._kept is not None, materialize_grads=True
                )
                total += share
        return total

    @property
    def cost(self) -> dict[str, int]:
        """Passes over the part so far; a product goes back through the gradient, two backward passes."""
        again = 0 if self._kept is not None else self.products
        return {"forward": 1 + again, "backward": 1 + again + 2 * self.products}


def activations(network: Network, part: Part) -> int:
    """Numbers that one example is on its way through the network."""
    total, values = 0, part.inputs[:1]
    with inspecting(network.module):
        for layer in network.module:
            values = layer(values)
            total += values.numel()
    return total


@dataclass(frozen=True, slots=True)
class Pairs:
    """Ritz pairs, rising: `values` float64 (k,), `vectors` (k, P) of length 1, `residuals` |H v - value v| (k,).

    Within its residual of each value lies an eigenvalue; that none lies beyond the outermost is likely, not certain.
    """

    values: Tensor
    vectors: Tensor
    residuals: Tensor


@dataclass(slots=True)
class Lanczos:
    """Lanczos' iteration, every new vector made orthogonal to all before, twice (Parlett 1980, chapter 13).

    `basis` (k, P) has orthonormal rows, `diagonal` and `beside` float64 (k,) make the tridiagonal matrix. Where the
    space that the first vector spans is exhausted, it goes on with another random one, so that eigenvalues of any
    multiplicity are found.
    """

    basis: Tensor
    diagonal: Tensor
    beside: Tensor
    seed: int
    done: int = 0

    @classmethod
    def begin(cls, like: Tensor, steps: int, seed: int) -> Self:
        """So many steps at most, in the space of `like` (P,)."""
        steps = min(steps, len(like))
        numbers = torch.zeros(steps, dtype=torch.float64)
        made = cls(like.new_zeros((steps, len(like))), numbers, numbers.clone(), seed)
        made.basis[0] = made._fresh(0)
        return made

    @classmethod
    def resumed(cls, found: dict[str, Tensor], seed: int) -> Self:
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
    def full(self) -> bool:
        """Whether all its steps are done."""
        return self.done == len(self.basis)

    def extend(self, product: Product) -> None:
        """One step, one product."""
        at, rest = self.done, product(self.basis[self.done])
        self.diagonal[at] = torch.dot(rest, self.basis[at]).double()
        rest = self._orthogonal(rest, at + 1)
        size = float(torch.linalg.vector_norm(rest))
        scale = float(torch.cat([self.diagonal[: at + 1], self.beside[:at]]).abs().max())
        exhausted = size <= 10 * torch.finfo(rest.dtype).eps * scale
        self.beside[at] = 0.0 if exhausted else size
        self.done = at + 1
        if not self.full:
            self.basis[at + 1] = self._fresh(at + 1) if exhausted else rest / size

    def _orthogonal(self, vector: Tensor, count: int) -> Tensor:
        before = self.basis[:count]
        for _ in range(2):
            vector = vector - before.T @ (before @ vector)
        return vector

    def _fresh(self, count: int) -> Tensor:
        """A random direction orthogonal to the first `count` rows."""
        draw = torch.randn(self.basis.shape[1], generator=stream(self.seed, "lanczos", count), dtype=torch.float64)
        vector = self._orthogonal(draw.to(self.basis), count)
        return torch.nn.functional.normalize(vector, dim=0)

    def pairs(self) -> Pairs:
        """What is known after the steps done, at least one; residuals as exact arithmetic has them."""
        beside = self.beside[: self.done]
        matrix = torch.diag(self.diagonal[: self.done])
        matrix += torch.diag(beside[:-1], 1) + torch.diag(beside[:-1], -1)
        values, rotation = torch.linalg.eigh(matrix)  # (k,), (k, k) with a vector in each column
        vectors = rotation.T.to(self.basis) @ self.basis[: self.done]
        vectors = vectors / torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
        return Pairs(values, vectors, (beside[-1] * rotation[-1]).abs())


def leading(subject: Subject, part: Part, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """The largest eigenvalues of the Hessian, falling, float64 (count,), and their unit vectors (count, P).

    Of the mean loss of the part that the job minimises, at the weights that the subject has, in evaluation mode. A
    network of fewer than `count` weights has only so many.
    """
    curvature = Curvature(subject.network, part, subject.objective.loss)
    lanczos = Lanczos.begin(curvature.gradient, LEADING_STEPS, seed)
    while not lanczos.full:
        lanczos.extend(curvature.product)
        if lanczos.done % 10 == 0 and lanczos.done > count:
            found = lanczos.pairs()
            if bool((found.residuals[-count:] <= SETTLED * found.values.abs().max()).all()):
                break
    found = lanczos.pairs()
    return found.values[-count:].flip(0), found.vectors[-count:].flip(0)
