"""The training loop, readable from top to bottom."""

import time
from collections.abc import Callable
from functools import partial

import torch

from core.engine.build import build_training_run
from core.engine.determinism import torch_switches
from core.engine.events import Ended, Observer
from core.engine.failure import DivergedError, EngineError, known_failure
from core.engine.liveness import ReportAlive, report_nothing
from core.engine.session import Session
from core.recipe.assignment import Assignment

MINUTE = 60.0


def train(
    assignment: Assignment,
    observer: Observer,
    *,
    report_alive: ReportAlive = report_nothing,
    checkpoint_seconds: float = MINUTE,
    clock: Callable[[], float] = time.monotonic,
) -> Ended:
    """Train one assignment and say how it ended.

        build, or restore the state of a checkpoint
        for t = first … total_steps - 1:
            lr           rate(t), a pure function of t and of the evaluations before it
            step         loss and gradient of batch t, clipped if the spec has clip_grad, then the optimizer's update; a
                         GPU is at most half a second behind, see core.engine.pacing
            average      averages, SWAG and the ensemble collect the weights at the steps of their policies
            events       losses wait on the device; points and progress are emitted about twice a second
            evaluate     the ensemble when it grows; val, of the weights and of every average; the end of a cycle; an
                         evaluation changes nothing in training
            over?        a target is reached, or patience, stop_lr or the time limit ends the run
            checkpoint   every `checkpoints.every` steps, and every minute
            stop?        the observer is asked once a step
        test, the averaged weights, the best ones, the last checkpoint, results
        a number that is not finite: roll back to the last rollback point, if the spec has one, and train from there

    The same assignment gives the same points and the same bytes, also when it is stopped and resumed at any step.
    Expected failures end it with an error; a bug raises. `report_alive` is called at the start of every piece of work.
    """
    session: Session | None = None
    try:
        with torch_switches(assignment.plan):
            session = Session(build_training_run(assignment, report_alive), observer, checkpoint_seconds, clock)
            session.start_run()
            while True:
                try:
                    return _train_steps(session)
                except DivergedError as failure:
                    session.roll_back(failure)
    except EngineError as failure:
        return _failed_event(session, failure)
    except (MemoryError, RuntimeError, OSError) as error:
        if (known := known_failure(error, torch.device(assignment.plan.device))) is None:
            raise
        return _failed_event(session, known)


def _train_steps(session: Session) -> Ended:
    run, clip, train_state = session.run, session.run.clip, session.run.train_state
    collectors = run.collectors
    for t, (inputs, targets) in run.remaining_batches():
        lr = run.rate(t)  # lr
        loss = run.gradient(inputs, targets)  # step
        norm = clip() if clip else None
        run.stepper.step(lr, partial(run.gradient, inputs, targets), run.rate.momentum_at(t))
        train_state.step = done = t + 1
        for collector in collectors:  # average
            if collector.collects(done):
                collector.collect(run.stepper.eval_network())
        if run.log.record_step(loss, norm):  # events
            session.report_waiting_steps()
        session.run_due_evaluations(done)  # evaluate
        if session.should_end(done):  # over?
            break
        if session.checkpoint_due(done):  # checkpoint
            session.write_checkpoint()
        if request := session.observer.stop_request():  # stop?
            return session.stop_on_request(request)
    return session.finish_run()


def _failed_event(session: Session | None, failure: EngineError) -> Ended:
    if session:
        return session.failed_event(failure)
    return Ended("failed", None, {}, failure.as_document(), {})
