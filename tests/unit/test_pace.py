"""The stall watchdog: max(60 s, 20 times the median of such pieces of work), and patience with what is new."""

import pytest

from core.engine.liveness import Piece, PieceTimer
from worker.watch import StallDetector

FLOOR = 60.0


class Watched:
    """A runner's timer and its supervisor's watchdog, with one clock that stands still but for the work."""

    def __init__(self) -> None:
        self.now = 0.0
        self.frames = 0
        self.blocked = 0.0  # seconds that the pipe holds up each frame
        self.pace = StallDetector(FLOOR, self.now)
        self.begin = PieceTimer(self._send, lambda: self.now)
        self.do("step", 0.001)
        self.pace.record_step(self.now)

    def _send(self, piece: Piece, usual: float | None) -> None:
        self.frames += 1
        self.now += self.blocked
        self.pace.begin_piece(piece, usual, self.now)

    def do(self, piece: Piece, seconds: float, times: int = 1) -> bool:
        """So many pieces one after the other; whether the watchdog bites in one of them."""
        for _ in range(times):
            self.begin(piece)
            self.now += seconds
            if self.pace.is_stalled(self.now):
                return True
        return False


@pytest.fixture
def watched() -> Watched:
    return Watched()


def test_sixty_seconds_without_a_sign_are_too_many(watched: Watched) -> None:
    assert not watched.do("step", 0.001, times=1000)
    assert not watched.do("step", 0.99 * FLOOR)
    assert watched.do("step", 1.01 * FLOOR)


@pytest.mark.parametrize("piece", ["evaluate", "batch_norm", "hessian", "checkpoint"])
def test_a_long_job_of_many_pieces_is_alive(watched: Watched, piece: Piece) -> None:
    """An evaluation of forty minutes, after steps of a millisecond."""
    assert not watched.do("step", 0.001, times=1000)
    assert not watched.do(piece, 0.4 * FLOOR, times=100)


def test_slow_pieces_are_given_twenty_medians(watched: Watched) -> None:
    assert not watched.do("evaluate", 10.0, times=5)
    assert not watched.do("evaluate", 199.0)
    assert watched.do("evaluate", 201.0)


def test_one_slow_piece_does_not_stretch_the_limit(watched: Watched) -> None:
    assert not watched.do("step", 1.0, times=3)
    assert not watched.do("step", 59.0)
    assert watched.do("step", 61.0)


def test_kinds_do_not_mix(watched: Watched) -> None:
    """Steps that take a millisecond say nothing of evaluations that take hours, nor do these of steps."""
    for _ in range(20):
        assert not watched.do("step", 0.001, times=100)
        assert not watched.do("evaluate", 10.0, times=5)
        assert not watched.do("other", 0.001)
    assert not watched.do("step", 0.001)
    assert not watched.do("evaluate", 199.0)
    assert not watched.do("evaluate", 0.1)  # so that no sign is due when what follows begins
    assert watched.do("step", 1.01 * FLOOR)


def test_a_kind_that_becomes_fast_is_known_as_fast(watched: Watched) -> None:
    assert not watched.do("evaluate", 10.0, times=5)
    assert not watched.do("evaluate", 0.001, times=200)
    assert watched.do("evaluate", 1.01 * FLOOR)


def test_the_first_piece_of_a_kind_may_take_longer(watched: Watched) -> None:
    """Nothing is known of it, caches are cold, and a good job must not be lost to a slow disk or a slow machine."""
    assert not watched.do("step", 0.001, times=1000)
    assert not watched.do("evaluate", 4.99 * FLOOR)
    assert watched.do("batch_norm", 5.01 * FLOOR)


def test_until_the_first_step_everything_may_take_longer() -> None:
    pace = StallDetector(FLOOR, now=0.0)
    pace.begin_piece("dataset", None, 1.0)
    pace.begin_piece("other", 0.0, 2.0)
    assert not pace.is_stalled(300.0)
    assert pace.is_stalled(303.0)
    pace.record_step(303.0)
    assert pace.is_stalled(364.0)


def test_any_sign_counts(watched: Watched) -> None:
    watched.do("step", 0.001)
    watched.do("step", 50.0)
    watched.pace.record_sign(watched.now)
    assert not watched.pace.is_stalled(watched.now + 50.0)


def test_fast_pieces_send_hardly_a_frame(watched: Watched) -> None:
    """A hundred seconds of steps and evaluations, in pieces of a millisecond."""
    before = watched.frames
    for _ in range(1000):
        assert not watched.do("step", 0.001, times=90)
        assert not watched.do("evaluate", 0.001, times=10)
    assert watched.frames - before < 4 * 100 + 10


def test_a_pipe_that_holds_the_runner_back_makes_no_piece_longer(watched: Watched) -> None:
    assert not watched.do("step", 1.0, times=3)
    watched.blocked = 600.0
    assert not watched.do("step", 1.0, times=5)
    watched.blocked = 0.0
    assert watched.do("step", 1.01 * FLOOR)
