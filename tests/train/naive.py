"""A second trainer: small perceptrons in NumPy and double precision, gradients and update rules by hand.

It shares with the engine the order in which examples are drawn and the weights at the start, and nothing else.
"""

import math
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from core.engine.datasets.batches import epoch_draws, epoch_order
from core.recipe.spec import JobSpec
from tests.train.rules import Rule

Array = np.ndarray[Any, Any]
Weights = dict[str, Array]
Evaluate = Callable[[Weights], tuple[float, Weights]]  # weights -> loss, gradient


class Updater(Protocol):
    """What a naive optimizer can do."""

    def step(self, weights: Weights, lr: float, evaluate: Evaluate) -> Weights:
        """The weights after one step."""

    def judged(self, weights: Weights) -> Weights:
        """The weights that count, which may be others than those that are trained."""


class ByWeight:
    """A rule of its own for every single weight."""

    def __init__(self, make: Callable[[], Rule | tuple[Rule, Callable[[float], float]]]) -> None:
        self._make = make
        self._rules: dict[tuple[str, int], Any] = {}

    def step(self, weights: Weights, lr: float, evaluate: Evaluate) -> Weights:
        _, gradient = evaluate(weights)
        return self._each(weights, lambda rule, w, g: rule[0](w, g, lr), gradient)

    def judged(self, weights: Weights) -> Weights:
        return self._each(weights, lambda rule, w, _: rule[1](w) if rule[1] else w, weights)

    def _each(self, weights: Weights, apply: Callable[[Any, float, float], float], other: Weights) -> Weights:
        found = {}
        for name, values in weights.items():
            pairs = enumerate(zip(values.ravel(), other[name].ravel(), strict=True))
            new = [apply(self._rule(name, index), float(w), float(g)) for index, (w, g) in pairs]
            found[name] = np.array(new).reshape(values.shape)
        return found

    def _rule(self, name: str, index: int) -> Any:
        if (name, index) not in self._rules:
            made = self._make()
            self._rules[name, index] = made if isinstance(made, tuple) else (made, None)
        return self._rules[name, index]


class Adafactor:
    """Shazeer & Stern 2018, with torch's reading of the two epsilons; vectors keep their whole second moment."""

    def __init__(self, decay: float, eps: tuple[float, float], d: float, weight_decay: float) -> None:
        self.decay, self.eps, self.d, self.weight_decay = decay, eps, d, weight_decay
        self.moments: dict[str, Any] = {}
        self.t = 0

    def step(self, weights: Weights, lr: float, evaluate: Evaluate) -> Weights:
        _, gradient = evaluate(weights)
        self.t += 1
        return {name: self._update(name, w, gradient[name], lr) for name, w in weights.items()}

    def _update(self, name: str, w: Array, g: Array, lr: float) -> Array:
        share = math.pow(self.t, self.decay)
        if w.ndim == 2:
            rows, columns = self.moments.get(name, (np.zeros((len(w), 1)), np.zeros((1, w.shape[1]))))
            rows = rows + share * ((g**2).mean(1, keepdims=True) - rows)
            columns = columns + share * ((g**2).mean(0, keepdims=True) - columns)
            self.moments[name] = rows, columns
            v = rows * columns / max(rows.mean(), self.eps[0])
        else:
            v = self.moments[name] = self.moments.get(name, 0.0) + share * (g**2 - self.moments.get(name, 0.0))
        u = g / np.maximum(np.sqrt(v), self.eps[0])
        u /= max(1.0, math.sqrt((u**2).mean()) / self.d)
        size = max(self.eps[1], math.sqrt((w**2).mean())) * min(lr, 1 / math.sqrt(self.t))
        found: Array = w * (1 - lr * self.weight_decay) - size * u
        return found

    def judged(self, weights: Weights) -> Weights:
        return weights


class Muon:
    """Jordan et al. 2024 for the named matrices, another updater for the rest, in proportion to the rate."""

    def __init__(self, hidden: set[str], options: dict[str, float], others: Updater, pace: float) -> None:
        self.hidden, self.options, self.others, self.pace = hidden, options, others, pace
        self.momenta: Weights = {}

    def step(self, weights: Weights, lr: float, evaluate: Evaluate) -> Weights:
        loss, gradient = evaluate(weights)
        rest = {name: w for name, w in weights.items() if name not in self.hidden}
        found = self.others.step(rest, lr * self.pace, lambda _: (loss, {name: gradient[name] for name in rest}))
        found |= {name: self._update(name, weights[name], gradient[name], lr) for name in self.hidden}
        return {name: found[name] for name in weights}

    def _update(self, name: str, w: Array, g: Array, lr: float) -> Array:
        momentum, decay = self.options["momentum"], self.options["weight_decay"]
        b = self.momenta[name] = momentum * self.momenta.get(name, np.zeros_like(g)) + (1 - momentum) * g
        scale = math.sqrt(max(1.0, w.shape[0] / w.shape[1]))
        found: Array = w * (1 - lr * decay) - lr * scale * newton_schulz((1 - momentum) * g + momentum * b)
        return found

    def judged(self, weights: Weights) -> Weights:
        return weights


def newton_schulz(g: Array) -> Array:
    """Five rounds of x <- a x + b (x xᵀ) x + c (x xᵀ)² x from g / |g|; singular values end near 1."""
    x = g.T if g.shape[0] > g.shape[1] else g
    x = x / np.linalg.norm(x)
    for _ in range(5):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x.T if g.shape[0] > g.shape[1] else x


class LBFGS:
    """Nocedal's two loops over the last pairs (s, y), moves of length lr, `moves` of them in a step."""

    def __init__(self, moves: int, history: int) -> None:
        self.moves, self.history = moves, history
        self.pairs: list[tuple[Array, Array]] = []
        self.before: tuple[Array, Array] | None = None

    def step(self, weights: Weights, lr: float, evaluate: Evaluate) -> Weights:
        for _ in range(self.moves):
            g, w = flat(evaluate(weights)[1]), flat(weights)
            if self.before is not None:
                s, y = w - self.before[0], g - self.before[1]
                if s @ y > 1e-10:
                    self.pairs = [*self.pairs, (s, y)][-self.history :]
            length = lr if self.before is not None else min(1.0, 1 / np.abs(g).sum()) * lr
            self.before = w, g
            weights = unflat(w - length * self._inverse_hessian_times(g), weights)
        return weights

    def _inverse_hessian_times(self, g: Array) -> Array:
        q, alphas = g.copy(), []
        for s, y in reversed(self.pairs):
            alphas.append(s @ q / (s @ y))
            q -= alphas[-1] * y
        if self.pairs:
            s, y = self.pairs[-1]
            q *= s @ y / (y @ y)
        for (s, y), alpha in zip(self.pairs, reversed(alphas), strict=True):
            q += (alpha - y @ q / (s @ y)) * s
        return q

    def judged(self, weights: Weights) -> Weights:
        return weights


def flat(weights: Weights) -> Array:
    return np.concatenate([each.ravel() for each in weights.values()])


def unflat(values: Array, like: Weights) -> Weights:
    sizes = np.cumsum([each.size for each in like.values()])[:-1]
    return {name: part.reshape(like[name].shape) for (name, part) in zip(like, np.split(values, sizes), strict=True)}


def perceptron(inputs: Array, targets: Array) -> Evaluate:
    """Mean cross-entropy of tanh layers with a softmax at the end, and its gradient by hand."""

    def evaluate(weights: Weights) -> tuple[float, Weights]:
        names = [name.removesuffix(".weight") for name in weights if name.endswith(".weight")]
        values = [inputs]
        for name in names:
            z = values[-1] @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]
            values.append(z if name == names[-1] else np.tanh(z))
        logs = values.pop() - 0.0
        logs -= logs.max(1, keepdims=True)
        logs -= np.log(np.exp(logs).sum(1, keepdims=True))
        rows = np.arange(len(targets))
        slope = np.exp(logs)
        slope[rows, targets] -= 1
        slope /= len(targets)
        gradient = {}
        for name in reversed(names):
            before = values.pop()
            gradient |= {f"{name}.weight": slope.T @ before, f"{name}.bias": slope.sum(0)}
            slope = slope @ weights[f"{name}.weight"] * (1 - before**2)
        return float(-logs[rows, targets].mean()), {name: gradient[name] for name in weights}

    return evaluate


def sharp(evaluate: Evaluate, rho: float) -> Evaluate:
    """The loss at w with the gradient at w + rho g / |g|."""

    def evaluated(weights: Weights) -> tuple[float, Weights]:
        loss, gradient = evaluate(weights)
        norm = math.sqrt(sum(float((g**2).sum()) for g in gradient.values()))
        return loss, evaluate({name: w + rho * gradient[name] / norm for name, w in weights.items()})[1]

    return evaluated


def train(
    spec: JobSpec, part: tuple[Array, Array], weights: Weights, updater: Updater, rate: Callable[[int], float]
) -> tuple[Weights, list[float]]:
    """The weights that count at the end, and the loss before each step."""
    inputs, targets = part
    losses: list[float] = []
    group = len(targets) if spec.batch_size == "full" else spec.batch_size * spec.accumulate
    for epoch in range(spec.epochs or 0):
        drawn = (epoch_draws if spec.sampling == "with_replacement" else epoch_order)(len(targets), spec.seed, epoch)
        order = np.arange(len(targets)) if spec.batch_size == "full" else drawn.numpy()
        for start in range(0, len(order), group):
            chosen = order[start : start + group]
            evaluate = perceptron(inputs[chosen], targets[chosen])
            losses.append(evaluate(weights)[0])
            if spec.sam and (len(losses) - 1) % spec.sam.interval == 0:
                evaluate = sharp(evaluate, spec.sam.rho)
            weights = updater.step(weights, rate(len(losses) - 1), evaluate)
    return updater.judged(weights), losses
