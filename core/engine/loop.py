"""The training loop, readable from top to bottom."""

import time
from collections.abc import Callable
from functools import partial

import torch

from core.engine.build import build
from core.engine.determinism import switched
from core.engine.events import Ended, Observer
from core.engine.failure import DivergedError, EngineError, expected
from core.engine.liveness import ReportAlive, unwatched
from core.engine.session import Session
from core.recipe.assignment import Assignment

MINUTE = 60.0


def train(
    assignment: Assignment,
    observer: Observer,
    *,
    report_alive: ReportAlive = unwatched,
    checkpoint_seconds: float = MINUTE,
    clock: Callable[[], float] = time.monotonic,
) -> Ended:
    """Train one assignment and say how it ended.

        build, or put back where a checkpoint stood
        for t = first … total_steps - 1:
            lr           rate(t), a pure function of t and of what was heard at evaluations
            step         loss and gradient of batch t, clipped if the job says so, then the optimizer's update; a GPU is
                         at most half a second behind, see core.engine.pacing
            average      what averages weights, or keeps members, takes them in when its policy says so
            events       losses wait on the device; points and progress go out about twice a second
            evaluate     an ensemble when it grows; val, and those of the averages; the end of a cycle; leaves no trace
            over?        a target is reached, patience, the learning rate or the time is at its end
            checkpoint   every `checkpoints.every` steps, and every minute
            stop?        asked once a step
        test, the averaged weights, the best ones, the last checkpoint, results
        where a number is no longer finite: back to the last mark, if the job says so, and on from there

    The same assignment gives the same points and the same bytes, also when it is stopped and resumed at any step.
    Expected failures end it with an error; a bug raises. `report_alive` hears of every piece of work as it begins.
    """
    session: Session | None = None
    try:
        with switched(assignment.plan):
            session = Session(build(assignment, report_alive), observer, checkpoint_seconds, clock)
            session.begin()
            while True:
                try:
                    return _train(session)
                except DivergedError as failure:
                    session.roll_back(failure)
    except EngineError as failure:
        return _failed(session, failure)
    except (MemoryError, RuntimeError, OSError) as error:
        if (known := expected(error, torch.device(assignment.plan.device))) is None:
            raise
        return _failed(session, known)


def _train(session: Session) -> Ended:
    run, clip, standing = session.run, session.run.clip, session.run.standing
    collectors = run.collectors
    for t, (inputs, targets) in run.batches():
        lr = run.rate(t)  # lr
        loss = run.gradient(inputs, targets)  # step
        norm = clip() if clip else None
        run.stepper.step(lr, partial(run.gradient, inputs, targets), run.rate.momentum(t))
        standing.step = done = t + 1
        for collector in collectors:  # average
            if collector.collects(done):
                collector.collect(run.stepper.presented())
        if run.log.note(loss, norm):  # events
            session.look()
        session.judge(done)  # evaluate
        if session.over(done):  # over?
            break
        if session.keeps(done):  # checkpoint
            session.keep()
        if request := session.observer.stop_request():  # stop?
            return session.stop(request)
    return session.finish()


def _failed(session: Session | None, failure: EngineError) -> Ended:
    if session:
        return session.failed(failure)
    return Ended("failed", None, {}, failure.document(), {})
