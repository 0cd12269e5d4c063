"""What happens around the steps of a run: reports, evaluations, checkpoints, the end."""

import math
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from core.engine.averaging import RunningMean
from core.engine.build import Results, Run
from core.engine.checkpoint import STATE, WEIGHTS, Files, chained, seal, write_tensor_files
from core.engine.evaluate import evaluate
from core.engine.events import (
    CheckpointWritten,
    Ended,
    Log,
    Observer,
    Outcome,
    Points,
    Progress,
    Series,
    Started,
    StopRequest,
)
from core.engine.failure import DivergedError, EngineError

FORMAT = 1  # of manifest.json
SWA = "swa."


class Session:
    """One attempt at one run: knows who watches, and when a minute has passed. Every decision but that is the run's."""

    def __init__(self, run: Run, observer: Observer, checkpoint_seconds: float) -> None:
        """A resumable checkpoint is written at least every `checkpoint_seconds`, whatever the job says."""
        self.run = run
        self.observer = observer
        self._seconds = checkpoint_seconds
        self._evaluate_every = run.spec.evaluate.every.steps(run.spec.run_length())
        self._keep_every = run.spec.checkpoints.every.steps(run.spec.run_length())
        self._keep_by = time.monotonic() + checkpoint_seconds
        self._kept: int | None = None
        self._last: tuple[float, float] | None = None
        self._pace = (run.standing.step, time.monotonic())

    def begin(self) -> None:
        """Say what runs, and whether it can be exact."""
        run = self.run
        environment = {**run.environment, "resume": run.resume} if run.resume else run.environment
        self.observer.emit(Started(run.standing.step, run.network.weights.numel(), environment))
        for reason in run.resume["reasons"] if run.resume else ():
            self.observer.emit(Log("warning", f"this resume is approximate: {reason}"))

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
        calendar, standing = self.run.calendar, self.run.standing
        total, per_epoch = calendar.total_steps, calendar.steps_per_epoch
        loss, lr = self._last or (None, None)
        finite = loss if loss is not None and math.isfinite(loss) else None
        return Progress(
            step, total, step // per_epoch, -(-total // per_epoch), step / total, finite, lr, dict(standing.metrics)
        )

    # ---- evaluate

    def evaluates(self, done: int) -> bool:
        """Every `evaluate.every` steps, and after the last."""
        return done % self._evaluate_every == 0 or done == self.run.calendar.total_steps

    def evaluate(self) -> None:
        """The validation part, for the trained weights and for their mean; and how fast the steps before were."""
        self.look()
        done, calendar = self.run.standing.step, self.run.calendar
        before, since = self._pace
        pace = (calendar.seen(done) - calendar.seen(before)) / max(time.monotonic() - since, 1e-9)
        self._measure("val", {"throughput": pace})
        self._pace = (done, time.monotonic())

    def _measure(self, split: Literal["val", "test"], extra: dict[str, float]) -> None:
        run = self.run
        part = run.data.validation if split == "val" else run.data.test
        found: dict[str, float] = {}
        for weights, network in run.candidates().items() if len(part) else ():
            prefix = SWA if weights == "swa" else ""
            values = evaluate(network, part, run.objective)
            found |= {f"{prefix}{split}.{name}": value for name, value in values.items()}
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
        return done % self._keep_every == 0 or time.monotonic() >= self._keep_by

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
            self._write(mark=mark)
        self._kept = done
        self._keep_by = time.monotonic() + self._seconds

    def _write(self, *, mark: bool) -> None:
        run, standing = self.run, self.run.standing
        tensors = {WEIGHTS: run.network.tensors() | run.data.tensors(), STATE: run.state()}
        folder = run.scratch / f"{standing.step:09d}-last"
        files = write_tensor_files(folder, tensors)
        if mark:
            standing.digest = chained(standing.digest, files)
        metrics = {name: value for name, value in standing.metrics.items() if not name.startswith(SWA)}
        more = {"digest": standing.digest, "metrics": standing.metrics, "results": standing.results}
        self._seal("last", folder, files, metrics, more)

    def _write_swa(self, swa: RunningMean) -> None:
        run, standing = self.run, self.run.standing
        folder = run.scratch / f"{standing.step:09d}-swa"
        files = write_tensor_files(folder, {WEIGHTS: swa.network().tensors() | run.data.tensors()})
        named = {name: value for name, value in standing.metrics.items() if name.startswith(SWA)}
        metrics = {name.removeprefix(SWA): value for name, value in named.items()}
        self._seal("swa", folder, files, metrics, {"models": swa.models, "metrics": metrics})

    def _seal(
        self, kind: Literal["last", "swa"], folder: Path, files: Files, metrics: dict[str, float], more: dict[str, Any]
    ) -> None:
        run, step = self.run, self.run.standing.step
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

    # ---- the end

    def stop(self, request: StopRequest) -> Ended:
        """End before the budget is spent: at once, or at a checkpoint from which the run can go on."""
        if request == "cancel":
            self._publish()
            return self.ended("cancelled", "cancelled")
        self.keep()
        return self.ended("stopped", None)

    def finish(self) -> Ended:
        """Test once, then write the mean, then the last checkpoint: whoever resumes from that has the results."""
        run, standing = self.run, self.run.standing
        if standing.results is None:
            self.look()
            self._measure("test", {})
            if run.swa and run.swa.models:
                self._write_swa(run.swa)
            standing.results = self._results()
            self.keep()
        return self.ended("succeeded", "completed")

    def _results(self) -> Results:
        """{"base": {"val": {"loss": …}, "test": …}, "swa": …} from the latest metrics."""
        results: Results = {}
        for name, value in self.run.standing.metrics.items():
            split, metric = name.removeprefix(SWA).split(".")
            weights = "swa" if name.startswith(SWA) else "base"
            results.setdefault(weights, {}).setdefault(split, {})[metric] = value
        return results

    def ended(self, outcome: Outcome, reason: Literal["completed", "cancelled"] | None) -> Ended:
        """The ending of a run that did not fail."""
        standing = self.run.standing
        return Ended(outcome, reason, standing.results or {}, None, asdict(self.progress(standing.step)))

    def failed(self, failure: EngineError) -> Ended:
        """The ending of a run that did."""
        diverged = isinstance(failure, DivergedError)
        step = failure.step if isinstance(failure, DivergedError) else self.run.standing.step
        reason: Literal["non_finite"] | None = "non_finite" if diverged else None
        return Ended("failed", reason, {}, failure.document(), asdict(self.progress(step)))
