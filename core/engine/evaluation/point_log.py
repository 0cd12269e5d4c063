"""The step log of a run whose weights are a point: it also logs the coordinates after every step."""

import time
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from core.engine.evaluation.step_log import DrainedPoints, EpochLayout, StepLog
from core.engine.events import Series
from core.engine.networks.network import Network

PREFIX = "point."


class PointLog(StepLog):
    """A series for each weight: its start at step 0, its value after t steps at t, as often as train.loss."""

    def __init__(  # noqa: PLR0913, PLR0917 - those of StepLog, the network and the names
        self,
        every: int,
        epoch_layout: EpochLayout,
        rate: Callable[[int], float],
        first: int,
        network: Network,
        names: tuple[str, ...],
    ) -> None:
        """`names` are the names of the weights, in their order."""
        super().__init__(every, epoch_layout, rate, first)
        self._weights = network.weights.detach()
        self._names = names
        self._places: list[Tensor] = []
        self.restart_at(first)

    def restart_at(self, first: int) -> None:
        """Continue at step `first`. A run that starts at 0 logs the present weights as its start."""
        super().restart_at(first)
        self._places.clear()
        self._start = [] if first else [(0, self._weights.tolist(), time.time())]

    def record_step(self, loss: Tensor, norm: Tensor | None = None) -> bool:
        """Keep the loss, and a copy of the weights after the step."""
        self._places.append(self._weights.clone())
        return super().record_step(loss, norm)

    def drain_points(self) -> DrainedPoints:
        """The points since the last call; a step with a non-finite loss gives no coordinates."""
        begin, places = self._first, self._places
        drained = super().drain_points()
        rows = torch.stack(places).tolist() if places else []
        steps, _, times = drained.series.get("train.loss", ([], [], []))
        ends = zip(steps, times, strict=True)
        visited = [*self._start, *((t + 1, rows[t - begin], when) for t, when in ends if t != drained.bad)]
        self._places, self._start = [], []
        return replace(drained, series=drained.series | self._coordinate_series(visited))

    def _coordinate_series(self, visited: list[tuple[int, list[float], float]]) -> dict[str, Series]:
        if not visited:
            return {}
        steps, rows, times = (list(column) for column in zip(*visited, strict=True))
        columns = zip(*rows, strict=True)
        return {
            f"{PREFIX}{name}": (list(steps), list(column), list(times))
            for name, column in zip(self._names, columns, strict=True)
        }
