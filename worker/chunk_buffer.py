"""Points of an attempt, gathered into column chunks until they are written. Pure bookkeeping, no database."""

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from core.jobs.metrics.chunks import Chunk, MetricPoints

CHUNK_POINTS: Final = 1000


@dataclass
class _OpenChunk:
    """The chunk of a series that still grows; it is written again and again under the same number."""

    number: int = 0
    steps: "array[int]" = field(default_factory=lambda: array("q"))
    values: "array[float]" = field(default_factory=lambda: array("d"))
    times: "array[float]" = field(default_factory=lambda: array("d"))
    dirty: bool = False


class ChunkBuffer:
    """The chunks of the segment after the last resumable checkpoint.

    A rollback to that checkpoint deletes exactly these, so a segment's numbers start at 0 in every attempt.
    """

    def __init__(self, after_step: int) -> None:
        self._after_step = after_step
        self._rollbacks = 0
        self._open: dict[str, _OpenChunk] = {}
        self._closed: list[Chunk] = []

    def add_points(self, series: str, steps: Sequence[int], values: Sequence[float], times: Sequence[float]) -> None:
        start = 0
        while start < len(steps):
            chunk = self._open.setdefault(series, _OpenChunk())
            end = start + CHUNK_POINTS - len(chunk.steps)
            chunk.steps.extend(steps[start:end])
            chunk.values.extend(values[start:end])
            chunk.times.extend(times[start:end])
            chunk.dirty = True
            if len(chunk.steps) == CHUNK_POINTS:
                self._closed.append(self._freeze_chunk(series, chunk))
                self._open[series] = _OpenChunk(number=chunk.number + 1)
            start = end

    def pending_chunks(self) -> tuple[Chunk, ...]:
        """Everything that is not written yet."""
        return (*self._closed, *self._dirty_chunks())

    def mark_written(self) -> None:
        """The pending chunks are in the database; nothing was added meanwhile."""
        self._closed.clear()
        for chunk in self._open.values():
            chunk.dirty = False

    def begin_segment(self, after_step: int) -> None:
        """A checkpoint closes the segment; call it when everything has been written."""
        self._after_step = after_step
        self._open.clear()

    def roll_back(self, after_step: int) -> None:
        """The run is back at this step: the points after it are void, pending or written."""
        self._after_step = after_step
        self._rollbacks += 1
        self._closed.clear()
        self._open.clear()

    def _dirty_chunks(self) -> Iterator[Chunk]:
        for series, chunk in self._open.items():
            if chunk.dirty:
                yield self._freeze_chunk(series, chunk)

    def _freeze_chunk(self, series: str, chunk: _OpenChunk) -> Chunk:
        points = MetricPoints(series, chunk.steps[:], chunk.values[:], chunk.times[:])
        return Chunk(series, self._after_step, chunk.number, points, self._rollbacks)
