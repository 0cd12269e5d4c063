"""What happens around the steps of a run: reports, evaluations, checkpoints, the end."""

import math
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from core.engine import endings
from core.engine.best import Best
from core.engine.checkpoint import STATE, WEIGHTS, Files, chained, seal, write_tensor_files
from core.engine.evaluate import evaluate
from core.engine.events import (
    CheckpointWritten,
    Ended,
    Kind,
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
from core.engine.kept import Incumbent
from core.engine.networks.network import Network
from core.engine.resume import go_back
from core.engine.run import Results, Run
from core.recipe.stopping import StopReason

FORMAT = 1  # of manifest.json


def prefix(weights: str) -> str:
    """How the metrics of some weights begin: the job's own have no name."""
    return "" if weights == "base" else f"{weights}."


class Session:
    """One attempt at one run: knows who watches, and when a minute has passed. Every decision but that is the run's."""

    def __init__(self, run: Run, observer: Observer, checkpoint_seconds: float, clock: Callable[[], float]) -> None:
        """A resumable checkpoint is written at least every `checkpoint_seconds` of the clock, whatever the job says."""
        self.run = run
        self.observer = observer
        self._clock = clock
        self._began = clock()
        self._checkpoint_seconds = checkpoint_seconds
        self._evaluate_every = run.spec.evaluate.every.steps(run.spec.run_length())
        self._keep_every = run.spec.checkpoints.every.steps(run.spec.run_length())
        self._keep_by = self._began + checkpoint_seconds
        self._kept: int | None = None
        self._best_kept = run.best.step if run.best else None
        self._last: tuple[float, float] | None = None
        self._pace = (run.standing.step, self._began)

    def begin(self) -> None:
        """Say what runs, and whether it can be exact. The start is the first place to go back to."""
        run = self.run
        if run.mark and run.standing.step == 0:
            self._set_mark()
        environment = {**run.environment, "resume": run.resume} if run.resume else run.environment
        self.observer.emit(Started(run.standing.step, run.network.weights.numel(), environment))
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
        bounded, per_epoch = self.run.spec.run_length().bounded, calendar.steps_per_epoch
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

    def evaluate(self) -> None:
        """The validation part, for the job's weights and for every average; and how fast the steps before were."""
        self.look()
        run, done, calendar = self.run, self.run.standing.step, self.run.calendar
        before, since = self._pace
        pace = (calendar.seen(done) - calendar.seen(before)) / max(self._clock() - since, 1e-9)
        networks = run.candidates()
        self._measure("val", networks, {"throughput": pace})
        run.rate.judge(run.standing.metrics, done)
        if run.best and run.best.weights in networks:  # an average may not have begun yet
            self._judge(run.best, networks[run.best.weights])
        if done < calendar.total_steps:
            run.standing.stop_reason = run.standing.stop_reason or endings.by_evaluation(run)
        self._pace = (done, self._clock())

    def _judge(self, best: Best, network: Network) -> None:
        metrics, own = self.run.standing.metrics, f"{prefix(best.weights)}val."
        if best.judge(self.run.standing.step, metrics[best.policy.monitor], network):
            seen = [(name, value) for name, value in metrics.items() if name.startswith(own)]
            metrics |= {f"best.val.{name.removeprefix(own)}": value for name, value in seen}

    def over(self, done: int) -> bool:
        """Whether something ends the run here, before its budget."""
        standing = self.run.standing
        if standing.stop_reason is None and done < self.run.calendar.total_steps:
            standing.stop_reason = endings.by_step(self.run, self.seconds)
        return standing.stop_reason is not None

    def end_cycle(self, incumbent: Incumbent) -> None:
        """Judge and keep the weights at the end of a cycle."""
        self.look()
        done, network = self.run.standing.step, self.run.stepper.presented()
        if not all(bool(each.isfinite().all()) for each in network.floats()):
            raise DivergedError("a weight is no longer a finite number", done, self.run.rate(done - 1))
        incumbent.take(done, network)
        self._measure("val", {"incumbent": incumbent.network}, {})
        self._write_weights("cycle_end", incumbent.network, done, self._of("incumbent"), {})

    def _measure(self, split: Literal["val", "test"], networks: dict[str, Network], extra: dict[str, float]) -> None:
        run = self.run
        part = run.data.validation if split == "val" else run.data.test
        found: dict[str, float] = {}
        for weights, network in networks.items() if len(part) else ():
            values = evaluate(network, part, run.objective)
            found |= {f"{prefix(weights)}{split}.{name}": value for name, value in values.items()}
        now, done = time.time(), run.standing.step
        series: dict[str, Series] = {name: ([done], [value], [now]) for name, value in {**found, **extra}.items()}
        if series:
            self.observer.emit(Points(series))
        for name, value in found.items():
            if not math.isfinite(value):
                raise DivergedError(f"{name} became {value}", done, run.rate(done - 1))
        run.standing.metrics |= found

    # ---- checkpoint

    def keeps(self, done: int) -> bool:
        """Every `checkpoints.every` steps, and when the last checkpoint is a minute old."""
        if done == self.run.calendar.total_steps:
            return False
        return done % self._keep_every == 0 or self._clock() >= self._keep_by

    def keep(self) -> None:
        """Write a resumable checkpoint. The digest chain runs over the marks that do not depend on a clock."""
        self.look()
        done, last = self.run.standing.step, self.run.calendar.total_steps
        mark = self.run.standing.results is not None if done == last else done % self._keep_every == 0
        if not self.run.finite():
            if mark:
                raise DivergedError("a weight is no longer a finite number", done, self.run.rate(done - 1))
            self.observer.emit(Log("warning", f"no checkpoint at step {done}: a weight is no longer a finite number"))
        elif self._kept != done:
            self._keep_best()
            if mark and self.run.mark:
                self._set_mark()
            self._write(mark=mark)
        self._kept = done
        self._keep_by = self._clock() + self._checkpoint_seconds

    def _write(self, *, mark: bool) -> None:
        run, standing = self.run, self.run.standing
        tensors = {WEIGHTS: run.stepper.presented().tensors() | run.data.tensors(), STATE: run.state()}
        files = write_tensor_files(self._folder("last"), tensors)
        if mark:
            standing.digest = chained(standing.digest, files)
        replaced = run.best and run.best.restores and run.best.weights == "base"
        own = ("val.",) if replaced else ("val.", "test.")  # what was tested then are the best weights
        metrics = {name: value for name, value in standing.metrics.items() if name.startswith(own)}
        more = {
            "digest": standing.digest,
            "metrics": standing.metrics,
            "results": standing.results,
            "stop_reason": standing.stop_reason,
            "seconds": self.seconds(),
        }
        self._seal("last", standing.step, files, metrics, more)

    def _keep_best(self) -> None:
        """The best weights as a checkpoint of their own, unless they are one already."""
        best = self.run.best
        if best and best.step is not None and best.step != self._best_kept:
            self._write_best(best, best.step)

    def _write_best(self, best: Best, step: int) -> None:
        self._write_weights("best", best.network, step, self._of("best"), {"monitor": best.policy.monitor})
        self._best_kept = step

    def _of(self, weights: str) -> dict[str, float]:
        """What was last measured of some weights, by split and metric; what is restored counts as theirs."""
        splits = self._results().get(weights, {})
        return {f"{split}.{name}": value for split, found in splits.items() for name, value in found.items()}

    def _write_weights(
        self, kind: Kind, network: Network, step: int, metrics: dict[str, float], more: dict[str, Any]
    ) -> None:
        files = write_tensor_files(self._folder(kind), {WEIGHTS: network.tensors() | self.run.data.tensors()})
        self._seal(kind, step, files, metrics, {**more, "metrics": metrics})

    def _folder(self, kind: Kind) -> Path:
        """After a rollback the same steps come again: folders have names of their own then."""
        again = f"-{self.run.rate.rollbacks}" if self.run.rate.rollbacks else ""
        return self.run.scratch / f"{self.run.standing.step:09d}-{kind}{again}"

    def _seal(self, kind: Kind, step: int, files: Files, metrics: dict[str, float], more: dict[str, Any]) -> None:
        run, folder = self.run, self._folder(kind)
        epoch = step // run.calendar.steps_per_epoch
        manifest = {
            "format": FORMAT,
            "kind": kind,
            "job": run.job,
            "step": step,
            "epoch": epoch,
            "environment": run.environment,
            "files": files,
            **more,
        }
        sealed = seal(folder, files, manifest)
        resumable = kind == "last"
        self.observer.emit(CheckpointWritten(kind, step, epoch, str(folder), sealed, metrics, manifest, resumable))

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
        self._kept = self._best_kept = self._last = None
        self._pace = (run.standing.step, self._clock())
        self.keep()

    # ---- the end

    def stop(self, request: StopRequest) -> Ended:
        """End because somebody asks: at once, or at a checkpoint from which the run can go on."""
        if request == "cancel":
            self._publish()
            self._keep_best()
            return self.ended("cancelled", "cancelled")
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
            for kind, average in run.averages.items():
                if average.ready:
                    self._write_weights(kind, finalists[kind], standing.step, self._of(kind), average.details())
            if run.best and run.best.step is not None:
                self._write_best(run.best, run.best.step)
            standing.results = self._results()
            self.keep()
        return self.ended("succeeded", standing.stop_reason or "completed")

    def _results(self) -> Results:
        """{"base": {"val": {"loss": …}, "test": …}, "swa": …, "best": …} from the latest metrics."""
        results: Results = {}
        for name, value in self.run.standing.metrics.items():
            *weights, split, metric = name.split(".")
            results.setdefault("".join(weights) or "base", {}).setdefault(split, {})[metric] = value
        best = self.run.best
        if best and best.restores:
            results[best.weights] |= {"val": dict(results["best"]["val"])}
        return results

    def so_far(self) -> Results:
        """What a run that ends without a test can say: how its best weights did, and those of its last whole cycle."""
        found, best = self._results(), self.run.best
        told = (*((best.weights,) if best and best.restores else ()), "best", "incumbent")
        return {weights: found[weights] for weights in told if weights in found}

    def ended(self, outcome: Outcome, reason: StopReason | None) -> Ended:
        """The ending of a run that did not fail."""
        standing = self.run.standing
        results = self.so_far() if reason == "cancelled" else standing.results or {}
        return Ended(outcome, reason, results, None, asdict(self.progress(standing.step)))

    def failed(self, failure: EngineError) -> Ended:
        """The ending of a run that did."""
        diverged = isinstance(failure, DivergedError)
        step = failure.step if isinstance(failure, DivergedError) else self.run.standing.step
        reason: Literal["non_finite"] | None = "non_finite" if diverged else None
        with suppress(EngineError, MemoryError, OSError, RuntimeError):  # what failed first is what is reported
            self._keep_best()
        return Ended("failed", reason, self.so_far(), failure.document(), asdict(self.progress(step)))
