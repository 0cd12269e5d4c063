"""The update rules as their papers write them: one weight, plain Python, double precision, nothing of torch."""

import math
from collections.abc import Callable

import numpy as np

Rule = Callable[[float, float, float], float]  # weight, gradient, rate -> weight


def sgd(momentum: float = 0.0, dampening: float = 0.0, weight_decay: float = 0.0, *, nesterov: bool = False) -> Rule:
    velocity: list[float] = []

    def update(w: float, g: float, lr: float) -> float:
        g += weight_decay * w
        if momentum:
            velocity[:] = [momentum * velocity[0] + (1 - dampening) * g if velocity else g]
            g = g + momentum * velocity[0] if nesterov else velocity[0]
        return w - lr * g

    return update


def adam(beta1: float, beta2: float, eps: float, coupled: float, decoupled: float, *, amsgrad: bool = False) -> Rule:
    state = {"m": 0.0, "v": 0.0, "t": 0.0, "most": 0.0}

    def update(w: float, g: float, lr: float) -> float:
        w *= 1 - lr * decoupled
        g += coupled * w
        state["t"] += 1
        state["m"] = beta1 * state["m"] + (1 - beta1) * g
        state["v"] = beta2 * state["v"] + (1 - beta2) * g * g
        state["most"] = max(state["most"], state["v"])
        v = (state["most"] if amsgrad else state["v"]) / (1 - math.pow(beta2, state["t"]))
        return w - lr * state["m"] / (1 - math.pow(beta1, state["t"])) / (math.sqrt(v) + eps)

    return update


def rmsprop(
    alpha: float, eps: float, weight_decay: float = 0.0, momentum: float = 0.0, *, centered: bool = False
) -> Rule:
    state = {"v": 0.0, "mean": 0.0, "b": 0.0}

    def update(w: float, g: float, lr: float) -> float:
        g += weight_decay * w
        state["v"] = alpha * state["v"] + (1 - alpha) * g * g
        state["mean"] = alpha * state["mean"] + (1 - alpha) * g
        root = math.sqrt(state["v"] - (state["mean"] ** 2 if centered else 0.0)) + eps
        if not momentum:
            return w - lr * g / root
        state["b"] = momentum * state["b"] + g / root
        return w - lr * state["b"]

    return update


def adagrad(lr_decay: float, eps: float, weight_decay: float = 0.0, start: float = 0.0) -> Rule:
    state = {"s": start, "t": 0.0}

    def update(w: float, g: float, lr: float) -> float:
        g += weight_decay * w
        state["s"] += g * g
        rate = lr / (1 + state["t"] * lr_decay)
        state["t"] += 1
        return w - rate * g / (math.sqrt(state["s"]) + eps)

    return update


def adamax(beta1: float, beta2: float, eps: float, weight_decay: float = 0.0) -> Rule:
    state = {"m": 0.0, "u": 0.0, "t": 0.0}

    def update(w: float, g: float, lr: float) -> float:
        g += weight_decay * w
        state["t"] += 1
        state["m"] = beta1 * state["m"] + (1 - beta1) * g
        state["u"] = max(beta2 * state["u"], abs(g) + eps)
        return w - lr / (1 - math.pow(beta1, state["t"])) * state["m"] / state["u"]

    return update


def nadam(  # noqa: PLR0917 - the symbols of the paper
    beta1: float, beta2: float, eps: float, decay: float, coupled: float = 0.0, decoupled: float = 0.0
) -> Rule:
    """The product of the momenta is kept in single precision, as torch keeps it."""
    state = {"m": 0.0, "v": 0.0, "t": 0.0}
    product = [np.float32(1)]

    def update(w: float, g: float, lr: float) -> float:
        w *= 1 - lr * decoupled
        g += coupled * w
        state["t"] += 1
        now, soon = (beta1 * (1 - 0.5 * math.pow(0.96, t * decay)) for t in (state["t"], state["t"] + 1))
        product[0] *= np.float32(now)
        state["m"] = beta1 * state["m"] + (1 - beta1) * g
        state["v"] = beta2 * state["v"] + (1 - beta2) * g * g
        done = float(product[0])
        direction = (1 - now) * g / (1 - done) + soon * state["m"] / (1 - done * soon)
        return w - lr * direction / (math.sqrt(state["v"] / (1 - math.pow(beta2, state["t"]))) + eps)

    return update


def radam(beta1: float, beta2: float, eps: float, coupled: float = 0.0, decoupled: float = 0.0) -> Rule:
    state = {"m": 0.0, "v": 0.0, "t": 0.0}
    most = 2 / (1 - beta2) - 1

    def update(w: float, g: float, lr: float) -> float:
        w *= 1 - lr * decoupled
        g += coupled * w
        state["t"] += 1
        state["m"] = beta1 * state["m"] + (1 - beta1) * g
        state["v"] = beta2 * state["v"] + (1 - beta2) * g * g
        left = 1 - math.pow(beta2, state["t"])
        n = most - 2 * state["t"] * (1 - left) / left
        mean = state["m"] / (1 - math.pow(beta1, state["t"]))
        if n <= 5:
            return w - lr * mean
        trust = math.sqrt((n - 4) * (n - 2) * most / ((most - 4) * (most - 2) * n))
        return w - lr * mean * trust * math.sqrt(left) / (math.sqrt(state["v"]) + eps)

    return update


def adadelta(rho: float, eps: float, weight_decay: float = 0.0) -> Rule:
    state = {"v": 0.0, "u": 0.0}

    def update(w: float, g: float, lr: float) -> float:
        g += weight_decay * w
        state["v"] = rho * state["v"] + (1 - rho) * g * g
        d = math.sqrt(state["u"] + eps) / math.sqrt(state["v"] + eps) * g
        state["u"] = rho * state["u"] + (1 - rho) * d * d
        return w - lr * d

    return update


def asgd(lambd: float, alpha: float, t0: float, weight_decay: float = 0.0) -> tuple[Rule, Callable[[float], float]]:
    """The update, and the mean of the weights behind step t0 (until there are two of them, the weight)."""
    seen: list[float] = []

    def update(w: float, g: float, lr: float) -> float:
        g += weight_decay * w
        eta = lr / (1 + lambd * lr * len(seen)) ** alpha
        seen.append(w * (1 - lambd * eta) - eta * g)
        return seen[-1]

    def mean(w: float) -> float:
        late = seen[int(t0) + 1 :]
        return sum(late) / len(late) if late else w

    return update, mean


def rprop(shrink: float, grow: float, smallest: float, largest: float) -> Rule:
    state = {"before": 0.0, "size": -1.0}

    def update(w: float, g: float, lr: float) -> float:
        size = lr if state["size"] < 0 else state["size"]
        turned = g * state["before"]
        factor = grow if turned > 0 else shrink if turned < 0 else 1.0
        state["size"] = min(largest, max(smallest, size * factor))
        state["before"] = 0.0 if turned < 0 else g
        sign = (state["before"] > 0) - (state["before"] < 0)
        return w - state["size"] * sign

    return update


def lion(beta1: float, beta2: float, weight_decay: float = 0.0) -> Rule:
    state = {"m": 0.0}

    def update(w: float, g: float, lr: float) -> float:
        direction = beta1 * state["m"] + (1 - beta1) * g
        state["m"] = beta2 * state["m"] + (1 - beta2) * g
        return w * (1 - lr * weight_decay) - lr * ((direction > 0) - (direction < 0))

    return update


def schedule_free(  # noqa: PLR0917 - the symbols of the paper
    beta: float, r: float, power: float, weight_decay: float = 0.0, beta2: float | None = None, eps: float = 0.0
) -> tuple[Rule, Callable[[float], float]]:
    """Y -> the next y, and the x that is judged. All three points are kept; with beta2 the gradient is Adam's."""
    state = {"weights": 0.0, "most": 0.0, "t": 0.0, "v": 0.0}
    points: dict[str, float] = {}

    def update(y: float, g: float, lr: float) -> float:
        x, z = points.get("x", y), points.get("z", y)
        if beta2 is not None:
            state["v"] = beta2 * state["v"] + (1 - beta2) * g * g
            g /= math.sqrt(state["v"] / (1 - math.pow(beta2, state["t"] + 1))) + eps
        g += weight_decay * y
        state["most"] = max(state["most"], lr)
        weight = math.pow(state["t"] + 1, r) * math.pow(state["most"], power)
        state["weights"] += weight
        state["t"] += 1
        z -= lr * g
        x += weight / state["weights"] * (z - x)
        points.update(x=x, z=z)
        return (1 - beta) * z + beta * x

    return update, lambda y: points.get("x", y)
