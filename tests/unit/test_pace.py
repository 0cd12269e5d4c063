"""The stall watchdog: max(60 s, 20 times the median step), and patience at the start."""

from worker.watch import Pace


def test_sixty_seconds_without_a_sign_are_too_many() -> None:
    pace = Pace(60.0, now=0.0)
    pace.stepped(10, 1.0)
    pace.stepped(20, 2.0)
    assert not pace.stalled(61.9)
    assert pace.stalled(62.1)


def test_slow_steps_are_given_twenty_medians() -> None:
    pace = Pace(60.0, now=0.0)
    for step in range(1, 6):
        pace.stepped(step, 10.0 * step)  # ten seconds a step: 200 s of silence are fine
    assert pace.limit() == 200.0
    assert not pace.stalled(249.0)
    assert pace.stalled(251.0)


def test_one_slow_step_does_not_stretch_the_limit() -> None:
    pace = Pace(60.0, now=0.0)
    for step, when in ((1, 1.0), (2, 2.0), (3, 3.0), (4, 60.0)):
        pace.stepped(step, when)
    assert pace.limit() == 60.0


def test_the_first_step_may_take_longer() -> None:
    pace = Pace(60.0, now=0.0)
    pace.sign(1.0)
    assert not pace.stalled(300.0)
    assert pace.stalled(302.0)


def test_any_sign_counts() -> None:
    pace = Pace(60.0, now=0.0)
    pace.stepped(1, 0.0)
    pace.sign(50.0)
    assert not pace.stalled(100.0)
