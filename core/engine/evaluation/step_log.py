"""Losses of steps stay on the device and are copied in one transfer, so that no step waits for the device."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from core.engine.events import Series

MOST_WAITING = 1000  # steps; bounds memory and the size of one PointsLogged event
SECONDS = 0.4  # between two drains, so that progress is at most a second old


@dataclass(frozen=True, slots=True)
class EpochLayout:
    """The examples of each step: `batch` in each, fewer in the last of an epoch of `examples`."""

    examples: int
    batch: int
    total_steps: int

    @property
    def steps_per_epoch(self) -> int:
        return -(-self.examples // self.batch)

    def examples_seen(self, step: int) -> int:
        """Examples seen in the first `step` steps."""
        epochs, rest = divmod(step, self.steps_per_epoch)
        return epochs * self.examples + rest * self.batch

    def step_examples(self, t: int) -> int:
        """Examples in step t."""
        return min(self.batch, self.examples - t % self.steps_per_epoch * self.batch)


@dataclass(frozen=True, slots=True)
class DrainedPoints:
    """New points of train.loss, lr and, if gradients are clipped by norm, grad_norm.

    `last` is (loss, lr) of the last point. `bad` is the first step whose loss is not finite.
    """

    series: dict[str, Series]
    last: tuple[float, float] | None
    bad: int | None


class StepLog:
    """train.loss at t is the example-weighted mean over the window of `every` steps that ends with step t.

    Windows are aligned to absolute steps (the last window may be short), so the points do not depend on when the log
    was drained or the run was resumed. lr and grad_norm at t are those of step t alone.
    """

    prefix = "log."

    def __init__(self, every: int, epoch_layout: EpochLayout, rate: Callable[[int], float], first: int = 0) -> None:
        """`first` is the next step."""
        self._every = every
        self._calendar = epoch_layout
        self._rate = rate
        self._first = first
        self._losses: list[Tensor] = []
        self._norms: list[Tensor] = []
        self._times: list[float] = []
        self._window = (0.0, 0)
        self._next_look = 0.0

    def record_step(self, loss: Tensor, norm: Tensor | None = None) -> bool:
        """Keep loss () and gradient norm () of the next step on the device. True if drain_points() is due."""
        self._losses.append(loss)
        if norm is not None:
            self._norms.append(norm)
        self._times.append(time.time())
        return len(self._losses) >= MOST_WAITING or time.monotonic() >= self._next_look

    def drain_points(self) -> DrainedPoints:
        """Copy the waiting losses from the device; those up to and including the first bad one become points."""
        begin, count = self._first, len(self._losses)
        numbers = torch.stack([*self._losses, *self._norms]).tolist() if self._losses else []
        values, norms = numbers[:count], numbers[count:]
        steps: list[int] = []
        means: list[float] = []
        times: list[float] = []
        bad = None
        loss_sum, examples = self._window
        for t, value, when in zip(range(begin, begin + count), values, self._times, strict=True):
            size = self._calendar.step_examples(t)
            loss_sum, examples = loss_sum + value * size, examples + size
            bad = None if math.isfinite(value) else t
            if bad is not None or (t + 1) % self._every == 0 or t + 1 == self._calendar.total_steps:
                steps.append(t)
                means.append(loss_sum / examples)
                times.append(when)
                loss_sum, examples = 0.0, 0
            if bad is not None:
                break
        self._window = loss_sum, examples
        self._first += count
        self._losses.clear()
        self._norms.clear()
        self._times.clear()
        self._next_look = time.monotonic() + SECONDS
        rates = [self._rate(t) for t in steps]
        series = {"train.loss": (steps, means, times), "lr": (list(steps), rates, list(times))} if steps else {}
        if steps and norms:
            series["grad_norm"] = (list(steps), [norms[t - begin] for t in steps], list(times))
        return DrainedPoints(series, (means[-1], rates[-1]) if steps else None, bad)

    def restart_at(self, first: int) -> None:
        """Discard all waiting losses; `first` is the next step."""
        self._first = first
        self._losses.clear()
        self._norms.clear()
        self._times.clear()

    def tensors(self) -> dict[str, Tensor]:
        """The open window: loss sum and examples, float64 (2,). Call drain_points() first."""
        return {"log.window": torch.tensor(self._window, dtype=torch.float64)}

    def expected(self, found: Mapping[str, Tensor], step: int) -> Mapping[str, Tensor]:
        return self.tensors()

    def restore(self, found: Mapping[str, Tensor]) -> None:
        """The inverse of tensors()."""
        loss_sum, examples = found["log.window"].tolist()
        self._window = loss_sum, int(examples)
