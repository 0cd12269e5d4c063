"""Chunks: a thousand points each, the open one written again as it grows, numbers from 0 in each segment."""

from core.jobs.metrics.chunks import Chunk
from worker.chunk_buffer import ChunkBuffer


def summary(chunks: tuple[Chunk, ...]) -> list[tuple[str, int, int, int, int]]:
    """(series, after_step, number, first step, points)"""
    return [
        (chunk.series, chunk.after_step, chunk.number, chunk.points.steps[0], len(chunk.points.steps))
        for chunk in chunks
    ]


def fill(book: ChunkBuffer, series: str, first: int, count: int) -> None:
    steps = list(range(first, first + count))
    book.add_points(series, steps, [step / 2 for step in steps], [float(step) for step in steps])


def test_points_are_cut_into_thousands() -> None:
    book = ChunkBuffer(0)
    fill(book, "lr", 0, 2500)
    assert summary(book.pending_chunks()) == [("lr", 0, 0, 0, 1000), ("lr", 0, 1, 1000, 1000), ("lr", 0, 2, 2000, 500)]
    assert list(book.pending_chunks()[1].points.values[:2]) == [500.0, 500.5]


def test_the_open_chunk_is_written_again_under_its_number() -> None:
    book = ChunkBuffer(300)
    fill(book, "lr", 300, 10)
    assert summary(book.pending_chunks()) == [("lr", 300, 0, 300, 10)]
    book.mark_written()
    assert book.pending_chunks() == ()
    fill(book, "lr", 310, 5)
    assert summary(book.pending_chunks()) == [("lr", 300, 0, 300, 15)]


def test_what_was_handed_out_does_not_change_later() -> None:
    book = ChunkBuffer(0)
    fill(book, "lr", 0, 3)
    before = book.pending_chunks()
    fill(book, "lr", 3, 3)
    assert summary(before) == [("lr", 0, 0, 0, 3)]


def test_going_back_forgets_what_was_not_written() -> None:
    book = ChunkBuffer(0)
    fill(book, "lr", 0, 1200)
    book.roll_back(500)
    assert book.pending_chunks() == ()
    fill(book, "lr", 500, 3)
    assert summary(book.pending_chunks()) == [("lr", 500, 0, 500, 3)]
    assert [chunk.rollbacks for chunk in book.pending_chunks()] == [1]


def test_exactly_a_thousand_leaves_nothing_open() -> None:
    book = ChunkBuffer(0)
    fill(book, "lr", 0, 1000)
    book.mark_written()
    fill(book, "lr", 1000, 1)
    assert summary(book.pending_chunks()) == [("lr", 0, 1, 1000, 1)]


def test_a_checkpoint_begins_a_new_segment_of_every_series() -> None:
    book = ChunkBuffer(0)
    fill(book, "lr", 0, 1200)
    fill(book, "train.loss", 0, 7)
    book.mark_written()
    book.begin_segment(1200)
    fill(book, "lr", 1200, 2)
    assert summary(book.pending_chunks()) == [("lr", 1200, 0, 1200, 2)]
