"""What happens around the steps of a run: reports, evaluations, checkpoints, the end."""

import math
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from core.engine import verdict
from core.engine.best import Best
from core.engine.checkpoint import STATE, WEIGHTS, Files, chained, seal, write_tensor_files
from core.engine.ensemble import Ensemble
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
    Series,
    Started,
    StopReason,
    StopRequest,
)
from core.engine.failure import DivergedError, EngineError
from core.engine.networks.network import Network
from core.engine.run import Results, Run

FORMAT = 1  # of manifest.json
Split = Literal["val", "test", "function"]
RESULTS = {"function": "train"}  # a function is the mean over the train part


def prefix(weights: str) -> str:
    """How the metrics of some weights begin: the job's own have no name."""
    return "" if weights == "base" else f"{weights}."


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
        self._best_kept = run.best.step if run.best else None
        self._members_kept = set(run.ensemble.steps) if run.ensemble else set()
        self._last: tuple[float, float] | None = None
        self._pace = (run.standing.step, time.monotonic())

    def begin(self) -> None:
        """Say what runs, and whether it can be exact."""
        run = self.run
        environment = {**run.environment, "resume": run.resume} if run.resume else run.environment
        self.observer.emit(Started(run.standing.step, run.network.weights.numel(), environment))
        for rule, weights in run.stepper.roles().items():
            self.observer.emit(Log("info", f"{rule} steps {', '.join(weights)}"))
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
        """The validation part, for the job's weights and for every average; and how fast the steps before were."""
        self.look()
        run, done, calendar = self.run, self.run.standing.step, self.run.calendar
        before, since = self._pace
        pace = (calendar.seen(done) - calendar.seen(before)) / max(time.monotonic() - since, 1e-9)
        judged_on = run.spec.data.judged_on
        self._measure(judged_on, run.candidates(), {"throughput": pace})
        if run.best and run.best.judge(done, run.standing.metrics[run.best.policy.monitor], run.stepper.presented()):
            seen = run.standing.metrics.items()
            run.standing.metrics |= {f"best.{name}": value for name, value in seen if name.startswith(f"{judged_on}.")}
        if run.best and run.best.exhausted and done < calendar.total_steps:
            run.standing.stop_reason = "early_stopping"
        self._pace = (done, time.monotonic())

    def grow(self, ensemble: Ensemble) -> None:
        """The validation part, for the member that has just come in and for the ensemble as it now is."""
        self.look()
        found = verdict.at_collection(self.run, ensemble)
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
            self._keep_aside()
            self._write(mark=mark)
        self._kept = done
        self._keep_by = time.monotonic() + self._seconds

    def _write(self, *, mark: bool) -> None:
        run, standing = self.run, self.run.standing
        tensors = {WEIGHTS: run.stepper.presented().tensors() | run.data.tensors(), STATE: run.state()}
        files = write_tensor_files(self._folder("last", standing.step), tensors)
        if mark:
            standing.digest = chained(standing.digest, files)
        # With restore_best what was tested are not these weights.
        own = ("val.", "function.", *(() if self._restores() else ("test.",)))
        metrics = {name: value for name, value in standing.metrics.items() if name.startswith(own)}
        more = {
            "digest": standing.digest,
            "metrics": standing.metrics,
            "results": standing.results,
            "stop_reason": standing.stop_reason,
        }
        self._seal("last", standing.step, files, metrics, more)

    def _keep_aside(self) -> None:
        """The best weights and the members of an ensemble as checkpoints of their own, unless they are that already."""
        best, ensemble = self.run.best, self.run.ensemble
        if best and best.step is not None and best.step != self._best_kept:
            self._write_best(best, best.step)
        for step in ensemble.steps if ensemble else ():
            if ensemble and step not in self._members_kept:
                self._write_member(ensemble, step, verdict.of_member(self.run, ensemble, step))

    def _write_best(self, best: Best, step: int) -> None:
        self._write_weights("best", best.network, step, self._metrics_of("best"), {"monitor": best.policy.monitor})
        self._best_kept = step

    def _write_members(self, ensemble: Ensemble) -> None:
        """Again, now that they have been tested too."""
        for number, step in enumerate(ensemble.steps, 1):
            self._write_member(ensemble, step, self._metrics_of(f"member_{number}"))

    def _write_member(self, ensemble: Ensemble, step: int, metrics: dict[str, float]) -> None:
        network = ensemble.network(step)
        numbers = all(bool(each.isfinite().all()) for each in network.floats())
        if numbers and all(map(math.isfinite, metrics.values())):  # a run that diverged may have kept others
            self._write_weights("snapshot", network, step, metrics, {})
            self._members_kept.add(step)

    def _metrics_of(self, weights: str) -> dict[str, float]:
        """What was last measured of some weights, without their name."""
        named = {name: value for name, value in self.run.standing.metrics.items() if name.startswith(f"{weights}.")}
        return {name.removeprefix(f"{weights}."): value for name, value in named.items()}

    def _write_weights(
        self, kind: Kind, network: Network, step: int, metrics: dict[str, float], more: dict[str, Any]
    ) -> None:
        tensors = network.tensors() | self.run.data.tensors()
        files = write_tensor_files(self._folder(kind, step), {WEIGHTS: tensors})
        self._seal(kind, step, files, metrics, {**more, "metrics": metrics})

    def _folder(self, kind: Kind, step: int) -> Path:
        return self.run.scratch / f"{self.run.standing.step:09d}-{kind}-{step:09d}"

    def _seal(self, kind: Kind, step: int, files: Files, metrics: dict[str, float], more: dict[str, Any]) -> None:
        run, folder = self.run, self._folder(kind, step)
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
        """End because somebody asks: at once, or at a checkpoint from which the run can go on."""
        if request == "cancel":
            self._publish()
            self._keep_aside()
            return self.ended("cancelled", "cancelled")
        self.keep()
        return self.ended("stopped", None)

    def finish(self) -> Ended:
        """Test once, write averages and the best, then the last checkpoint: whoever resumes from it has the results."""
        run, standing = self.run, self.run.standing
        if standing.results is None:
            self.look()
            self._measure("test", run.finalists(), {})
            self._compare()
            for kind, average in run.averages.items():
                if average.ready:
                    metrics = self._metrics_of(kind)
                    self._write_weights(kind, average.network(), standing.step, metrics, average.details())
            if run.best and run.best.step is not None:
                self._write_best(run.best, run.best.step)
            if run.ensemble:
                self._write_members(run.ensemble)
            standing.results = self._results()
            self.keep()
        return self.ended("succeeded", standing.stop_reason or "completed")

    def _compare(self) -> None:
        """Ensembles and samples, on all that was held out. What an ensemble grew through has its series already."""
        found = verdict.at_the_end(self.run)
        self._report(
            {name: value for name, value in found.items() if not name.startswith(("member_", "ensemble.val."))}
        )
        self.run.standing.metrics |= found

    def _restores(self) -> bool:
        best = self.run.best
        return best is not None and best.step is not None and best.policy.restore_best

    def _results(self) -> Results:
        """{"base": {"val": {"loss": …}, "test": …}, "swa": …, "best": …} from the latest metrics."""
        results: Results = {"base": {}}  # first, whatever was measured first
        for name, value in self.run.standing.metrics.items():
            *weights, split, metric = name.split(".")
            results.setdefault("".join(weights) or "base", {}).setdefault(RESULTS.get(split, split), {})[metric] = value
        if self._restores():
            results["base"] |= {split: dict(values) for split, values in results["best"].items()}
        return {weights: splits for weights, splits in results.items() if splits}

    def so_far(self) -> Results:
        """What a run that ends without a test can say: how its best weights did."""
        found = self._results()
        told = ("base", "best") if self._restores() else ("best",)
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
        if diverged:
            self._keep_aside()
        results = self.so_far() if diverged else {}
        return Ended("failed", reason, results, failure.document(), asdict(self.progress(step)))
