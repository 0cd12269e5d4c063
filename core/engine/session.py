"""What happens around the steps of a run: reports, evaluations, checkpoints, the end."""

import math
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from typing import Literal

from core.engine import stop_conditions
from core.engine.checkpoints.resume import go_back
from core.engine.checkpoints.run_checkpoints import RunCheckpoints
from core.engine.checkpoints.writer import Unwritten
from core.engine.evaluation import ensemble_metrics
from core.engine.evaluation.evaluate import evaluate
from core.engine.evaluation.results import metrics_of, results, so_far
from core.engine.events import (
    Ended,
    Log,
    Observer,
    Outcome,
    Points,
    Progress,
    RolledBack,
    Series,
    Started,
    StopRequest,
)
from core.engine.failure import DivergedError, EngineError
from core.engine.networks.network import Network
from core.engine.run import Run
from core.engine.weights.best import Best
from core.engine.weights.ensemble import Ensemble
from core.engine.weights.snapshot import Incumbent
from core.recipe.stopping import StopReason

Split = Literal["val", "test", "function"]


def prefix(weights: str) -> str:
    """How the metrics of some weights begin: the job's own have no name."""
    return "" if weights == "base" else f"{weights}."


class Session:
    """One attempt at one run: knows who watches, and when a minute has passed. Every decision but that is the run's."""

    def __init__(self, run: Run, observer: Observer, checkpoint_seconds: float, clock: Callable[[], float]) -> None:
        """A resumable checkpoint is written at least every `checkpoint_seconds` of the clock, whatever the job says."""
        self.run = run
        self.observer = observer
        self._checkpoints = RunCheckpoints(run, observer, lambda: self.progress(run.standing.step))
        self._clock = clock
        self._began = clock()
        self._checkpoint_seconds = checkpoint_seconds
        self._evaluate_every = run.spec.evaluate.every.steps(run.shape.run)
        self._keep_every = run.spec.checkpoints.every.steps(run.shape.run)
        self._keep_by = self._began + checkpoint_seconds
        self._kept: int | None = None
        self._marked: int | None = None
        self._last: tuple[float, float] | None = None
        self._pace = (run.standing.step, self._began)

    def begin(self) -> None:
        """Say what runs, and whether it can be exact. The start is the first place to go back to."""
        run = self.run
        if run.mark and not run.mark.known:
            self._set_mark()
        environment = {**run.environment, "resume": run.resume} if run.resume else run.environment
        self.observer.emit(Started(run.standing.step, run.network.weights.numel(), environment))
        for rule, weights in run.stepper.roles().items():
            self.observer.emit(Log("info", f"{rule} steps {', '.join(weights)}"))
        for reason in run.resume["reasons"] if run.resume else ():
            self.observer.emit(Log("warning", f"this run is approximate: {reason}"))

    # ---- events

    def look(self) -> None:
        """Bring the waiting losses over and report them. Raises DivergedError at the first that is no finite number."""
        bad = self._publish()
        if bad is not None:
            what = f"the loss became {self._last[0] if self._last else math.nan}"
            raise DivergedError(what, bad, self.run.rate(bad))

    def _publish(self) -> int | None:
        drained = self.run.log.drain()
        if drained.series:
            self.observer.emit(Points(drained.series))
        self._last = drained.last or self._last
        if drained.bad is None:
            self.observer.emit(self.progress(self.run.standing.step))
        return drained.bad

    def progress(self, step: int) -> Progress:
        """Where the run stands after `step` complete steps."""
        calendar, standing, limit = self.run.calendar, self.run.standing, self.run.spec.seconds
        bounded, per_epoch = self.run.shape.run.bounded, calendar.steps_per_epoch
        total = calendar.total_steps if bounded else None
        shares = (step / total if total else 0.0, min(1.0, self.seconds() / limit) if limit else 0.0)
        loss, lr = self._last or (None, None)
        finite = loss if loss is not None and math.isfinite(loss) else None
        epochs = -(-total // per_epoch) if total else None
        return Progress(step, total, step // per_epoch, epochs, max(shares), finite, lr, dict(standing.metrics))

    def seconds(self) -> float:
        """How long this run has been trained, earlier attempts up to their checkpoint included."""
        return self.run.standing.seconds + self._clock() - self._began

    # ---- evaluate

    def evaluates(self, done: int) -> bool:
        """Every `evaluate.every` steps, and after the last."""
        return done % self._evaluate_every == 0 or done == self.run.calendar.total_steps

    def judge(self, done: int) -> None:
        """Whatever is to be judged after `done` steps."""
        ensemble, incumbent = self.run.ensemble, self.run.incumbent
        if ensemble and ensemble.collects(done):
            self.grow(ensemble)
        if self.evaluates(done):
            self.evaluate()
        if incumbent and incumbent.completes(done):
            self.end_cycle(incumbent)

    def evaluate(self) -> None:
        """The validation part, for the job's weights and for every average; and how fast the steps before were."""
        self.look()
        run, done, calendar = self.run, self.run.standing.step, self.run.calendar
        before, since = self._pace
        pace = (calendar.seen(done) - calendar.seen(before)) / max(self._clock() - since, 1e-9)
        networks = run.candidates()
        self._measure(run.spec.data.judged_on, networks, {"throughput": pace})
        run.rate.judge(run.standing.metrics, done)
        if run.best and run.best.weights in networks:  # an average may not have begun yet
            self._judge(run.best, networks[run.best.weights])
        if done < calendar.total_steps:
            run.standing.stop_reason = run.standing.stop_reason or stop_conditions.by_evaluation(run)
        self._pace = (done, self._clock())

    def _judge(self, best: Best, network: Network) -> None:
        metrics, split = self.run.standing.metrics, self.run.spec.data.judged_on
        if best.judge(self.run.standing.step, metrics[best.policy.monitor], network):
            own = f"{prefix(best.weights)}{split}."
            seen = {name.removeprefix(own): value for name, value in metrics.items() if name.startswith(own)}
            metrics |= {f"best.{split}.{name}": value for name, value in seen.items()}

    def over(self, done: int) -> bool:
        """Whether something ends the run here, before its budget."""
        standing = self.run.standing
        if standing.stop_reason is None and done < self.run.calendar.total_steps:
            standing.stop_reason = stop_conditions.by_step(self.run, self.seconds)
        return standing.stop_reason is not None

    def end_cycle(self, incumbent: Incumbent) -> None:
        """Judge and keep the weights at the end of a cycle."""
        self.look()
        done, network = self.run.standing.step, self.run.stepper.presented()
        if not network.finite():
            raise self._not_finite()
        incumbent.take(done, network)
        self._measure(self.run.spec.data.judged_on, {"incumbent": incumbent.network}, {})
        with suppress(Unwritten):  # at the end it is written again
            self._checkpoints.write_incumbent(incumbent)

    def grow(self, ensemble: Ensemble) -> None:
        """The validation part, for the member that has just come in and for the ensemble as it now is."""
        self.look()
        found = ensemble_metrics.at_collection(self.run, ensemble)
        self._report(found)
        self.run.standing.metrics |= {name: value for name, value in found.items() if name.startswith("ensemble.")}

    def _measure(self, split: Split, networks: dict[str, Network], extra: dict[str, float]) -> None:
        run = self.run
        part = {"val": run.data.validation, "test": run.data.test, "function": run.data.train}[split]
        found: dict[str, float] = {}
        for weights, network in networks.items() if len(part) else ():
            values = evaluate(network, part, run.objective)
            found |= {f"{prefix(weights)}{split}.{name}": value for name, value in values.items()}
        self._report(found | extra)
        run.standing.metrics |= found

    def _report(self, found: dict[str, float]) -> None:
        """Points at the present step. Raises DivergedError at what is no finite number, once it has been seen."""
        now, done = time.time(), self.run.standing.step
        series: dict[str, Series] = {name: ([done], [value], [now]) for name, value in found.items()}
        if series:
            self.observer.emit(Points(series))
        for name, value in found.items():
            if not math.isfinite(value):
                raise DivergedError(f"{name} became {value}", done, self.run.rate(done - 1))

    # ---- checkpoint

    def keeps(self, done: int) -> bool:
        """Every `checkpoints.every` steps, and when the last checkpoint is a minute old."""
        if done == self.run.calendar.total_steps:
            return False
        return done % self._keep_every == 0 or self._clock() >= self._keep_by

    def keep(self) -> None:
        """Write a resumable checkpoint. The digest chain runs over the marks that do not depend on a clock.

        One that this machine does not take is made good by the next; Unwritten is raised where there is none.
        """
        self.look()
        done, last = self.run.standing.step, self.run.calendar.total_steps
        mark = self.run.standing.results is not None if done == last else done % self._keep_every == 0
        if not self.run.finite():
            if mark:
                raise self._not_finite()
            self.observer.emit(Log("warning", f"no checkpoint at step {done}: a weight is no longer a finite number"))
            self._kept = done
        elif self._kept != done:
            try:
                self._write(mark=mark and self._marked != done)
                self._kept = done
            except Unwritten:
                if self._checkpoints.writer.insists:
                    raise
        self._keep_by = self._clock() + self._checkpoint_seconds

    def _write(self, *, mark: bool) -> None:
        """What lies beside comes first: whoever goes on from the checkpoint takes it for stored."""
        chain = self.run.standing.digest if mark else None
        if mark:
            self._marked = self.run.standing.step
            self._set_mark()
        try:
            self._checkpoints.write_missing()
            self._checkpoints.write_last(seconds=self.seconds(), chain=chain)
        except Unwritten:
            if chain is not None:
                self._checkpoints.chain_unwritten(chain)
            raise

    def _not_finite(self) -> DivergedError:
        done = self.run.standing.step
        return DivergedError("a weight is no longer a finite number", done, self.run.rate(done - 1))

    # ---- back

    def _set_mark(self) -> None:
        """Everything is finite here, and would be at the same step in any other attempt."""
        run, standing = self.run, self.run.standing
        if run.mark:
            there = {"step": standing.step, "digest": standing.digest, "metrics": standing.metrics}
            run.mark.set(run.stepper.presented().tensors(), run.state(), there)

    def roll_back(self, failure: DivergedError) -> None:
        """Go back to the last mark, from where rates are lower; raises `failure` where that is not wanted any more."""
        run = self.run
        if run.mark is None or run.rate.rollbacks >= run.mark.policy.times:
            raise failure
        go_back(run, run.mark)
        policy, count = run.mark.policy, run.rate.rollbacks
        message = (
            f"{failure}: back to step {run.standing.step}, from where learning rates are multiplied by "
            f"{policy.factor**count:g} (rollback {count} of {policy.times})"
        )
        self.observer.emit(RolledBack(run.standing.step, message))
        self._checkpoints.forget_written()
        self._kept = self._marked = self._last = None
        self._pace = (run.standing.step, self._clock())
        self.keep()

    # ---- the end

    def stop(self, request: StopRequest) -> Ended:
        """End because somebody asks: at once, or at a checkpoint from which the run can go on."""
        if request == "cancel":
            self._publish()
            with suppress(Unwritten):  # nobody waits for a disk
                self._checkpoints.write_missing()
            return self.ended("cancelled", "cancelled")
        self._checkpoints.writer.insists = True
        self.keep()
        return self.ended("stopped", None)

    def finish(self) -> Ended:
        """Test once, write averages and the best, then the last checkpoint: whoever resumes from it has the results."""
        run, standing = self.run, self.run.standing
        if standing.results is None:
            if not self.evaluates(standing.step):
                self.evaluate()
            self.look()
            finalists = run.finalists()
            self._measure("test", finalists, {})
            self._compare()
            self._checkpoints.writer.insists = True
            for kind, average in run.averages.items():
                if average.ready:
                    self._checkpoints.write_weights(
                        kind, finalists[kind], standing.step, metrics_of(run, kind), average.details()
                    )
            if run.best:
                self._checkpoints.write_best(run.best)
            if run.incumbent:
                self._checkpoints.write_incumbent(run.incumbent)
            if run.ensemble:
                self._checkpoints.write_members(run.ensemble)
            standing.results = results(run)
            self.keep()
        return self.ended("succeeded", standing.stop_reason or "completed")

    def _compare(self) -> None:
        """Ensembles and samples, on all that was held out. What an ensemble grew through has its series already."""
        found = ensemble_metrics.at_the_end(self.run)
        self._report(
            {name: value for name, value in found.items() if not name.startswith(("member_", "ensemble.val."))}
        )
        self.run.standing.metrics |= found

    def ended(self, outcome: Outcome, reason: StopReason | None) -> Ended:
        """The ending of a run that did not fail."""
        standing = self.run.standing
        found = so_far(self.run) if reason == "cancelled" else standing.results or {}
        return Ended(outcome, reason, found, None, asdict(self.progress(standing.step)))

    def failed(self, failure: EngineError) -> Ended:
        """The ending of a run that did."""
        diverged = isinstance(failure, DivergedError)
        step = failure.step if isinstance(failure, DivergedError) else self.run.standing.step
        reason: Literal["non_finite"] | None = "non_finite" if diverged else None
        if failure.code != "device_failed":  # else every call to it would fail too, or never return
            with suppress(EngineError, MemoryError, OSError, RuntimeError):  # what failed first is what is reported
                self._checkpoints.write_missing()
        return Ended("failed", reason, so_far(self.run), failure.document(), asdict(self.progress(step)))
